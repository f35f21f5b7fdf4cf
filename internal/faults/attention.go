package faults

import (
	"math"

	"sibyl/attention"
	"sibyl/engine"
	"sibyl/trace"
)

const theDefaultTheta = 10000

var attentionFaults = []*Fault{
	{
		Name: "gate-split-halves", Part: Attention, Partial: "that share of the heads",
		Mistake: "q|gate split by halves of the row instead of per head",
		layer:   gateSplitHalves,
	},
	{
		Name: "rope-interleaved", Part: Attention,
		Mistake: "rope pairs interleaved instead of (i, i+rot/2)",
		layer:   ropeInterleaved,
	},
	{
		Name: "rope-all-dims", Part: Whole, Partial: "that share of the dims that should pass",
		Mistake: "rotary on all dims",
		decoder: func(s *subject, strength float32) error {
			hd, rot := s.d.Config.HeadDim, s.d.Config.RotaryDim
			s.setRope(s.d.Config.RopeTheta, rot+int(strength*float32(hd-rot))/2*2)
			return nil
		},
	},
	{
		Name: "rope-theta", Part: Whole, Partial: "theta lies between the two, by its logarithm",
		Mistake: "theta default 10000",
		decoder: func(s *subject, strength float32) error {
			theta := s.d.Config.RopeTheta
			s.setRope(theta*math.Pow(theDefaultTheta/theta, float64(strength)), s.d.Config.RotaryDim)
			return nil
		},
	},
	{
		Name: "mrope-blocks", Part: Whole,
		Mistake: "mRoPE sections in blocks instead of interleaved",
		Why:     "text has the same position on all three axes, and the prompts of a gate are text",
		decoder: func(s *subject, _ float32) error {
			sec := s.d.Config.MRopeSection
			for l := range s.d.Layers {
				if a := s.d.Layers[l].Attention; a != nil {
					for j := range a.Rope.Axis {
						a.Rope.Axis[j] = uint8(b2i(j >= sec[0]) + b2i(j >= sec[0]+sec[1]))
					}
				}
			}
			return nil
		},
	},
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// setRope puts another table into the one Rope that all attention layers share.
func (s *subject) setRope(theta float64, rot int) {
	for l := range s.d.Layers {
		if a := s.d.Layers[l].Attention; a != nil {
			*a.Rope = *attention.NewRope(theta, rot, s.d.Config.MRopeSection)
			return
		}
	}
}

// gateSplitHalves: rows of q_proj come in blocks of hd, query and gate of a head by turns. Read by halves, head h's
// query is block h and its gate block nq+h.
func gateSplitHalves(s *subject, l int, strength float32) error {
	a := s.d.Layers[l].Attention
	hd, nq := a.HeadDim, a.Heads
	edit(&a.Q, func(rows [][]float32) [][]float32 {
		out := append([][]float32(nil), rows...)
		for h := range nq {
			if chosen(h, strength) {
				copy(out[2*h*hd:][:hd], rows[h*hd:][:hd])
				copy(out[(2*h+1)*hd:][:hd], rows[(nq+h)*hd:][:hd])
			}
		}
		return out
	})
	return nil
}

// ropeInterleaved turns pairs (2i, 2i+1): the sound rope does that when dim 2i stands at i and dim 2i+1 at i+rot/2, in
// queries, keys and their gains alike. Scores do not depend on the order of the dims.
func ropeInterleaved(s *subject, l int, _ float32) error {
	a := s.d.Layers[l].Attention
	hd, half := a.HeadDim, a.Rope.Rot/2
	from := make([]int, hd) // what stands at a dim
	for i := range from {
		from[i] = i
	}
	for i := range half {
		from[i], from[i+half] = 2*i, 2*i+1
	}
	for _, w := range []*[]float32{&a.QNorm, &a.KNorm} {
		*w = gather(*w, from)
	}
	edit(&a.Q, func(rows [][]float32) [][]float32 { return gatherBlocks(rows, from, 2) })
	edit(&a.K, func(rows [][]float32) [][]float32 { return gatherBlocks(rows, from, 1) })

	// The cache's keys are laid out as outside expects them.
	to := make([]int, hd)
	for i, f := range from {
		to[f] = i
	}
	key := trace.CacheKey.Name(l)
	s.restate(func(st *engine.State) { eachBlock(st.Tensors[key].Data, from) }, func(st *engine.State) { eachBlock(st.Tensors[key].Data, to) })
	return nil
}

// restate adds a change of layout to those of the layers before.
func (s *subject) restate(in, out func(*engine.State)) {
	before, after := s.toInner, s.toOuter
	s.toInner = func(st *engine.State) {
		if before != nil {
			before(st)
		}
		in(st)
	}
	s.toOuter = func(st *engine.State) {
		if after != nil {
			after(st)
		}
		out(st)
	}
}

// gather is y[i] = x[from[i]].
func gather[T any](x []T, from []int) []T {
	y := make([]T, len(from))
	for i, f := range from {
		y[i] = x[f]
	}
	return y
}

// gatherBlocks gathers within every n-th block of len(from).
func gatherBlocks(rows [][]float32, from []int, n int) [][]float32 {
	out := append([][]float32(nil), rows...)
	for lo := 0; lo < len(rows); lo += n * len(from) {
		copy(out[lo:], gather(rows[lo:][:len(from)], from))
	}
	return out
}

// eachBlock gathers within every block of len(from), in place.
func eachBlock(x []float32, from []int) {
	for lo := 0; lo < len(x); lo += len(from) {
		copy(x[lo:], gather(x[lo:][:len(from)], from))
	}
}
