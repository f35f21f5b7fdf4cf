package quant

import "sibyl/bundle"

// Needs is what Write takes, known before it starts.
type Needs struct {
	Disk   int64 // bytes of weights it writes
	Memory int64 // bytes it keeps at once: the pieces that threads work on, and the scales of one weight
}

// Needs estimates Write's needs, the memory from above. It reads headers only. Errors are those of Write.
func (s *Scheme) Needs(ck *bundle.Checkpoint, threads int) (Needs, error) {
	a, err := s.AssignTo(ck)
	if err != nil {
		return Needs{}, err
	}
	units, err := a.units(ck)
	if err != nil {
		return Needs{}, err
	}
	var n Needs
	for i := range units {
		u := &units[i]
		n.Disk += u.bytes()
		// Of each element in work: before and after as float32, q twice or the rounded weight, and the fits.
		memory := int64(threads) * int64(min(u.step(), u.rows)) * int64(u.cols) * 24
		if u.spec.Format.Quantized() {
			memory += 8 * int64(u.elements()/u.spec.Block) // scales and minvals; appending may hold the latter twice
		}
		n.Memory = max(n.Memory, memory)
	}
	return n, nil
}
