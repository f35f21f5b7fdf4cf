package main

import "sibyl/internal/near"

// didYouMean is the remedy of an error about a word: the near ones, or else all of them.
var didYouMean = near.DidYouMean
