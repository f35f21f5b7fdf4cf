package bundle

import "sibyl/internal/mmap"

// Drop tells the system that bytes lo to hi of a weight as it is stored will not be read again soon, so that reading
// a model from front to back does not fill the memory with what was read. hi < 0 is the end; the scales and minvals of a
// quantized weight go with it. Data stay valid: pages come back from the file. It is a hint; where the system takes none,
// and for weights that are not mapped, it does nothing.
func (w *weights) Drop(t Tensor, lo, hi int) { w.hint(t, lo, hi, mmap.DontNeed) }

// WillNeed tells the system that bytes lo to hi of a weight are read next, as WillNeedLayer does of a layer's weights.
func (w *weights) WillNeed(t Tensor, lo, hi int) { w.hint(t, lo, hi, mmap.WillNeed) }

// Forget tells the system that nobody reads bytes lo to hi of a weight again soon, as ForgetLayer does of a layer's weights.
func (w *weights) Forget(t Tensor, lo, hi int) { w.hint(t, lo, hi, mmap.Forget) }

// Stay tells the system that all weights are read again and again, as a model is that decodes, and is called before they are read.
// What is in memory already stays as it is.
func (w *weights) Stay() {
	w.stays = true
	for _, m := range w.maps {
		_ = m.Advise(mmap.Stay, 0, m.Len()) // a hint
	}
}

// hint gives the system a hint about bytes lo to hi of a weight.
func (w *weights) hint(t Tensor, lo, hi int, what mmap.Advice) {
	for _, p := range t.Parts {
		w.hint(p, 0, -1, what)
	}
	if hi < 0 || hi > len(t.Data) {
		hi = len(t.Data)
	}
	if lo < hi {
		w.hintBytes(t.Data[lo:hi], what)
	}
	if t.Quant != nil {
		w.hintBytes(t.Quant.Scale, what)
		w.hintBytes(t.Quant.Min, what)
	}
}

// hintBytes gives the system a hint about b, if it is a view of a mapped file.
func (w *weights) hintBytes(b []byte, what mmap.Advice) {
	if w.stays && what == mmap.WillNeed {
		return // it would bring small pages
	}
	for _, m := range w.maps {
		if m.AdviseView(what, b) {
			return
		}
	}
}

// scanBlock is what is read between two looks at the context by what reads all weights once, in bytes: a multiple of 8.
const scanBlock = 4 << 20

// scanAhead is how far a disk is asked to be ahead of such a reading.
const scanAhead = 4 * scanBlock

// blocks reads b from front to back: it asks for what comes, calls f for each block, and lets go of it. A model larger than
// the memory is read as fast as its disk gives it, and takes no room.
func (w *weights) blocks(b []byte, f func([]byte) error) error {
	w.hintBytes(b[:min(len(b), scanAhead)], mmap.WillNeed)
	for len(b) > 0 {
		n := min(len(b), scanBlock)
		if len(b) > scanAhead {
			w.hintBytes(b[scanAhead:min(len(b), scanAhead+scanBlock)], mmap.WillNeed)
		}
		if err := f(b[:n]); err != nil {
			return err
		}
		w.hintBytes(b[:n], mmap.DontNeed)
		b = b[n:]
	}
	return nil
}
