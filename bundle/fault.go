package bundle

import "sibyl/internal/mmap"

// Catch is for who reads views of weights: their files are others', and may be cut, or their disk may fail, meanwhile. It
// gives what is to be deferred, which turns such a fault of the calling goroutine into *err, an *inputerr.Error that names
// the file. Any other panic goes on.
//
//	defer bundle.Catch(&err)()
func Catch(err *error) func() { return mmap.Catch(err) }

// Unchanged is for who computed with weights: files that somebody wrote to meanwhile, by check (Source.Check), become *err if there
// is none, since what was computed is of neither. It is deferred.
func Unchanged(err *error, check func() error) {
	if *err == nil {
		*err = check()
	}
}
