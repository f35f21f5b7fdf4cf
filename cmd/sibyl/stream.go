package main

import (
	"errors"

	"sibyl/bundle"
	"sibyl/internal/memlimit"
)

// Streaming is embedded by verbs that run whole texts.
type Streaming struct {
	Stream *bool `negatable:"" help:"Read the weights layer by layer and let go of each: the same bits in little memory (on by itself for a model that does not fit)."`
}

// choose decides how the CPU engines of this command read c: layer by layer if asked, or if the weights are more than the
// memory that is left. Mapped weights need no memory of their own, but a model that does not fit is read from disk again
// for every pass that goes through all of it.
func (v *Streaming) choose(a *App, c bundle.Source) error {
	if v.Stream != nil {
		a.stream = *v.Stream
		return nil
	}
	left, err := a.memoryLeft()
	switch {
	case errors.Is(err, memlimit.ErrUnknown):
		return nil
	case err != nil:
		return err
	}
	if size := c.Sizes().Total(); size > left.Bytes {
		a.stream = true
		a.Note("%s of weights do not fit %s of memory (%s): they are read layer by layer; --no-stream does not", bytesText(size), bytesText(left.Bytes), left.Source)
	}
	return nil
}
