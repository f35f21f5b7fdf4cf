package faults

import (
	"fmt"
	"math"

	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/trace"
)

const (
	shareOfChannels = "that share of the channels"
	outBetween      = "the result lies between the right and the wrong"
)

var gdnFaults = []*Fault{
	{
		Name: "heads-tiled", Part: GDN,
		Mistake: "value heads tiled instead of repeated",
		layer:   headsTiled,
	},
	{
		Name: "l2-eps-mean", Part: GDN, Partial: "eps lies between the two",
		Mistake: "l2norm eps on the mean",
		Why:     "on every model of the study a head's sum of squares is over 1e4 times dk * eps; it takes an input of all but zeros",
		layer: func(s *subject, l int, strength float32) error {
			s.contract(l).L2Eps *= 1 + strength*float32(s.d.Config.KeyDim-1)
			return nil
		},
	},
	{
		Name: "l2-eps-outside", Part: GDN,
		Mistake: "l2norm eps outside the root",
		Why:     "on every model of the study a head's norm is over 1e5 times eps; it takes an input of all but zeros",
		layer: func(s *subject, l int, _ float32) error {
			c := s.contract(l)
			eps := c.L2Eps
			c.L2Eps = 0
			s.arith(l).Rsqrt = func(x float32) float32 { return 1 / (float32(math.Sqrt(float64(x))) + eps) }
			return nil
		},
	},
	{
		Name: "l2-eps-missing", Part: GDN, Partial: "that share of eps",
		Mistake: "l2norm eps missing",
		Why:     "on every model of the study a head's sum of squares is over 1e5 times eps; it takes an input of all but zeros",
		layer: func(s *subject, l int, strength float32) error {
			s.contract(l).L2Eps *= 1 - strength
			return nil
		},
	},
	{
		Name: "no-query-scale", Part: GDN, Partial: "that power of dk^0.5 is left out",
		Mistake: "missing dk^-0.5",
		// The gated norm divides by the scale of what it normalises, so this shows only where its eps (1e-6) is not small
		// beside the mean square of the delta rule's out: early in a text, and in heads that forget fast.
		layer: func(s *subject, l int, strength float32) error {
			factor := float32(math.Pow(float64(s.d.Config.KeyDim), float64(strength)/2))
			s.delta(l, func(sound step) step {
				return func(S, q, k, v, out []float32, decay, beta float32, tmp []float64) {
					sound(S, scaled(q, factor), k, v, out, decay, beta, tmp)
				}
			})
			return nil
		},
	},
	{
		Name: "decay-after-update", Part: GDN, Partial: "that power of the decay comes late",
		Mistake: "decay after the update",
		layer: func(s *subject, l int, strength float32) error {
			s.delta(l, func(sound step) step { return decayLate(sound, strength) })
			return nil
		},
	},
	{
		Name: "memory-before-decay", Part: GDN, Partial: "what is recalled lies between the two",
		Mistake: "decay after what is recalled (S^T k of the state before its decay)",
		layer: func(s *subject, l int, strength float32) error {
			s.delta(l, func(sound step) step { return recallEarly(sound, strength) })
			return nil
		},
	},
	{
		Name: "output-before-update", Part: GDN, Partial: outBetween,
		Mistake: "output before the update",
		layer: func(s *subject, l int, strength float32) error {
			s.delta(l, func(sound step) step { return outputEarly(sound, strength) })
			return nil
		},
	},
	{
		Name: "conv-reversed", Part: GDN, Partial: shareOfChannels,
		Mistake: "conv taps reversed",
		layer: func(s *subject, l int, strength float32) error {
			return s.taps(l, strength, func(out, w []float32) {
				for j := range w {
					out[j] = w[len(w)-1-j]
				}
			})
		},
	},
	{
		Name: "conv-late", Part: GDN, Partial: shareOfChannels,
		Mistake: "conv taps one column late",
		layer: func(s *subject, l int, strength float32) error {
			return s.taps(l, strength, func(out, w []float32) {
				copy(out, w[1:]) // the current token meets no tap, the oldest tap no token
				out[len(w)-1] = 0
			})
		},
	},
	{
		Name: "conv-silu-missing", Part: GDN, Partial: outBetween,
		Mistake: "conv silu missing",
		layer: func(s *subject, l int, strength float32) error {
			ar, sound := s.arith(l), s.arith(l).SiLU
			ar.SiLU = func(dst, x []float32) {
				if &dst[0] != &x[0] { // the gated norm's silu(z); the conv's works in place
					sound(dst, x)
					return
				}
				right := make([]float32, len(x))
				sound(right, x)
				for i, v := range x {
					dst[i] = blend(right[i], v, strength)
				}
			}
			return nil
		},
	},
}

// step is the type of kernels.Arith.DeltaStep.
type step = func(S, q, k, v, out []float32, decay, beta float32, tmp []float64)

// delta replaces layer l's delta rule by one made of the sound one, in the same arithmetic.
func (s *subject) delta(l int, wrong func(sound step) step) {
	var ar *kernels.Arith = s.arith(l)
	ar.DeltaStep = wrong(ar.DeltaStep)
}

func scaled(x []float32, by float32) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = v * by
	}
	return y
}

// decayLate is S *= decay^(1-s); S += k (x) beta*(v - S^T k); S *= decay^s; o = S^T q.
func decayLate(sound step, s float32) step {
	return func(S, q, k, v, out []float32, decay, beta float32, tmp []float64) {
		before := float32(math.Pow(float64(decay), float64(1-s)))
		after := float32(math.Pow(float64(decay), float64(s)))
		sound(S, q, k, v, out, before, beta, tmp)
		for i := range S {
			S[i] *= after
		}
		for i := range out { // o is linear in S
			out[i] *= after
		}
	}
}

// recallEarly updates with beta*(v - R^T k), R between decay*S and S. With the values v + (decay*S - R)^T k, that is
// what the sound rule does.
func recallEarly(sound step, s float32) step {
	return func(S, q, k, v, out []float32, decay, beta float32, tmp []float64) {
		recalled := make([]float32, len(v))
		sound(append([]float32(nil), S...), k, k, v, recalled, 1, 0, tmp) // beta 0: recalled = S^T k
		values := make([]float32, len(v))
		for i := range v {
			values[i] = v[i] + s*(decay-1)*recalled[i]
		}
		sound(S, q, k, values, out, decay, beta, tmp)
	}
}

// outputEarly gives S^T q of the decayed state before the update.
func outputEarly(sound step, s float32) step {
	return func(S, q, k, v, out []float32, decay, beta float32, tmp []float64) {
		early := make([]float32, len(out))
		sound(append([]float32(nil), S...), q, k, v, early, decay, 0, tmp)
		sound(S, q, k, v, out, decay, beta, tmp)
		for i := range out {
			out[i] = blend(out[i], early[i], s)
		}
	}
}

// taps changes the conv taps of a share of the channels.
func (s *subject) taps(l int, share float32, f func(out, w []float32)) error {
	g := s.d.Layers[l].GDN
	w := append([]float32(nil), g.Conv...)
	for c := range len(w) / g.Kernel {
		if chosen(c, share) {
			f(w[c*g.Kernel:][:g.Kernel], g.Conv[c*g.Kernel:][:g.Kernel])
		}
	}
	g.Conv = w
	return nil
}

// headsTiled gives value head h the key head h%nk. The mixer gives slot s the key head s/(nv/nk), so head h is put into
// the slot that has its key: every weight with value heads is permuted, and the states with them.
func headsTiled(s *subject, l int, _ float32) error {
	g := s.d.Layers[l].GDN
	nk, nv, dk, dv := g.KeyHeads, g.ValueHeads, g.KeyDim, g.ValueDim
	if nk == nv {
		return bad("heads-tiled", fmt.Sprintf("a model of %d key and %d value heads", nk, nv), "more value heads: with as many, the two are one")
	}
	head, slot := make([]int, nv), make([]int, nv) // head[s] is in slot s, slot[h] holds head h
	for h := range nv {
		slot[h] = h%nk*(nv/nk) + h/nk
		head[slot[h]] = h
	}
	values := wide(head, dv) // channels of a [nv*dv] axis
	channels := make([]int, g.Channels())
	for i := range channels {
		channels[i] = i
	}
	v := channels[2*nk*dk:]
	for i, f := range values {
		v[i] = 2*nk*dk + f
	}
	edit(&g.QKV, func(rows [][]float32) [][]float32 { return gather(rows, channels) })
	edit(&g.Z, func(rows [][]float32) [][]float32 { return gather(rows, values) })
	edit(&g.B, func(rows [][]float32) [][]float32 { return gather(rows, head) })
	edit(&g.A, func(rows [][]float32) [][]float32 { return gather(rows, head) })
	edit(&g.Out, func(rows [][]float32) [][]float32 {
		for i := range rows {
			rows[i] = gather(rows[i], values)
		}
		return rows
	})
	g.ALog, g.DtBias = gather(g.ALog, head), gather(g.DtBias, head)
	g.Conv = gather(g.Conv, wide(channels, g.Kernel))
	back := make([]int, len(channels))
	for i, f := range channels {
		back[f] = i
	}
	conv, state := trace.CacheConvState.Name(l), trace.CacheRecurrentState.Name(l)
	move := func(heads, channels []int) func(*engine.State) {
		return func(st *engine.State) {
			eachBlock(st.Tensors[state].Data, wide(heads, dk*dv))
			eachBlock(st.Tensors[conv].Data, wide(channels, g.Kernel))
		}
	}
	s.restate(move(head, channels), move(slot, back))
	return nil
}

// wide is from for blocks of n elements.
func wide(from []int, n int) []int {
	out := make([]int, 0, n*len(from))
	for _, f := range from {
		for i := range n {
			out = append(out, f*n+i)
		}
	}
	return out
}
