package bundle

import (
	"sibyl/internal/mmap"
	"sibyl/internal/safetensors"
)

// Drop tells the system that bytes lo to hi of a weight as it is stored will not be read again soon, so that reading
// a model from front to back does not fill the memory with what was read. hi < 0 is the end; of a quantized weight, or
// of one that t is a part of, everything is dropped. Data stay valid: pages come back from the file. It is a hint;
// where the system takes none, and for weights that are not mapped, it does nothing.
func (c *Checkpoint) Drop(t Tensor, lo, hi int) { c.advise(t, lo, hi, mmap.DontNeed) }

// advise gives the system a hint about bytes lo to hi of a weight.
func (c *Checkpoint) advise(t Tensor, lo, hi int, what mmap.Advice) {
	for _, name := range []string{t.Name, t.Name + ".q", t.Name + ".scale", t.Name + ".minval"} {
		for _, f := range c.shards {
			stored, ok := f.Tensor(name)
			if !ok {
				continue
			}
			if name != t.Name || hi < 0 || len(stored.Data) != len(t.Data) {
				lo, hi = 0, len(stored.Data)
			}
			advise(f, stored, lo, min(hi, len(stored.Data)), what)
		}
	}
}

func advise(f *safetensors.File, t safetensors.Tensor, lo, hi int, what mmap.Advice) {
	m, all := f.Map(), f.Tensors()
	if m == nil || lo >= hi {
		return
	}
	data := m.Len() - int(all[len(all)-1].End) // the data section ends with the file
	_ = m.Advise(what, data+int(t.Begin)+lo, hi-lo)
}
