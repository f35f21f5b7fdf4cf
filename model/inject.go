package model

import "sibyl/internal/kernels"

// Change lets f alter the bound decoder and choose another arithmetic, before the engine runs anything. It is the seam
// of fault injection (internal/faults): the math files stay as they are, and what they are given is wrong.
func (e *Engine) Change(f func(d *Decoder, ar *kernels.Arith) (*kernels.Arith, error)) error {
	if e.d == nil {
		return errClosed
	}
	ar, err := f(e.d, e.arith)
	if err == nil {
		e.arith = ar
	}
	return err
}
