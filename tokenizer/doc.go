// Package tokenizer turns text into token ids and back, as Hugging Face's Rust tokenizers library (0.23) does with the
// Qwen family's tokenizer.json: byte-level BPE behind a splitting regex, NFC, and added tokens.
//
// The way of a text, in the order the files should be read:
//
//	special.go      added tokens are cut out first (<|im_start|>, <think>); what lies between goes on
//	nfc.go          each stretch between them is brought to NFC by itself, never across an added token
//	pretokenize.go  each stretch is cut into words by the family's regex, recognised by its exact text
//	bpe.go          each word, as bytes, is merged pair by pair, lowest rank first: merges only, no look-up of whole words
//	decode.go       ids to bytes to text; stream.go does it token by token and never splits a character
//
// Around it: load.go and jsonscan.go read tokenizer.json, tiktoken.go the form without merges, chat.go and template*.go
// the chat templates, which are written by hand in Go and recognised by the sha256 of their Jinja text.
//
// What is not known is refused by name (*inputerr.Error), never guessed: another model type, regex, normalizer or decoder.
//
// Known differences from the Rust library, each deliberate:
//   - a file it would read with a warning or silently (duplicate token or id, gap in the ids, duplicate merge, missing byte
//     token, added token whose id contradicts the vocabulary) is refused here;
//   - invalid UTF-8 in the input becomes U+FFFD, one for each maximal subpart; a Rust string cannot hold it at all;
//   - Unicode tables are Go's (15.0 with Go 1.26); characters assigned since then split or compose as unassigned ones.
package tokenizer
