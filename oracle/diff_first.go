package oracle

import (
	"sibyl/trace"
)

// Divergence says where two runs part. Taps are looked at in the order of the math, and of a tap the first token.
type Divergence struct {
	// Bit is the first element whose bits differ; null if none does.
	Bit *Place `json:"bit"`
	// Unexplained is the first tap whose error is more than rounding makes of the error of its inputs; null if none is.
	//
	// With e the relative error of a token's row (rms of the difference over rms of REF's row), e_in the largest e of
	// the recorded inputs of the tap (of earlier tokens too where the tap looks back), and u the unit roundoff of the
	// coarser side, a row is unexplained if e > 64 * (e_in + n*u); n is 1, and one more for every tap between that was
	// not recorded. One step can do a good deal in ordinary cases: a sum of n products in float32 in any order loses
	// about sqrt(n) u of its largest terms, a norm per head makes a small head's error as large as the others', and
	// gates and products magnify what they are given a few times. The most seen between engines that share no
	// arithmetic is 23 (gdn.gated_norm; the test prints it), so 64 has room. So neither the smooth growth of fp32, fp16 or bf16
	// rounding through the layers nor what a fault drags behind it is reported, but the tap where it begins.
	// A router's choice of experts is judged only where its probabilities have the same bits on both sides.
	Unexplained *Place `json:"unexplained"`
	// Largest is the largest e / (e_in + n*u) of all rows (null: infinite), and the tap it is at, "" if nothing
	// differs: how near rounding comes to the factor, or how far beyond it a fault is.
	Largest   Number `json:"largest_ratio"`
	LargestAt string `json:"largest_ratio_at"`
	// Unit is u: 2^-24, 2^-11 or 2^-8, read off the residual stream's own bits: the coarser side's values all lie on
	// the grid of fp32, fp16 or bf16.
	Unit Number `json:"unit_roundoff"`
}

// Place is a tap and a token.
type Place struct {
	Name       string `json:"name"`
	Layer      int    `json:"layer"`        // -1 at top level
	Token      int    `json:"token"`        // -1 for states
	RelError   Number `json:"rel_error"`    // of the token's row (of the state); null if infinite
	InputError Number `json:"input_error"`  // e_in
	Tokens     int    `json:"tokens"`       // how many rows of this tap are so
	Inputs     int    `json:"inputs_known"` // recorded tensors it is computed from; with 0 they count as exact
	Steps      int    `json:"steps"`        // n: steps of the math from these to it
	// MadeBy are the operations of TEST that make the tap, the last one first, where TEST is an engine.Locator.
	MadeBy []string `json:"made_by,omitempty"`
}

// NonFinitePlace is the first element, in the order of the math and then of the tokens, that is NaN or infinite.
type NonFinitePlace struct {
	Tensors int    `json:"tensors"` // how many hold any
	Name    string `json:"name"`
	Layer   int    `json:"layer"` // -1 at top level
	Token   int    `json:"token"` // -1 for states
}

// nonFinite finds it; nil if every element is a number on both sides.
func (d *differ) nonFinite() (out *NonFinitePlace) {
	for _, c := range d.order {
		if c.firstEither < 0 {
			continue
		}
		if out == nil {
			out = &NonFinitePlace{Name: c.info.Name, Layer: c.info.Layer, Token: c.firstEither / c.width}
			if c.info.Tap.Cache() {
				out.Token = -1
			}
		}
		out.Tensors++
	}
	return out
}

// unexplainedFactor is the 64 of Divergence.Unexplained.
const unexplainedFactor = 64

func (d *differ) first() Divergence {
	u := d.unit()
	out := Divergence{Unit: Number(u)}
	rows := map[string][]float64{}
	for _, c := range d.order {
		e := make([]float64, len(c.rowDD))
		median := c.medianRow()
		for t := range e {
			e[t] = c.rowError(t, median)
			if c.info.DType == trace.I32 {
				e[t] = min(1, float64(c.rowDiffer[t])) // another expert is another tensor: wholly wrong
			}
		}
		rows[c.info.Name] = e
	}
	exists := trace.Kinds(d.ref.Tensors())
	for _, c := range d.order {
		if c.info.Tap >= trace.NumTaps {
			continue // a rollout follows from the logits, but not from those of this sequence
		}
		if out.Bit == nil && c.differ > 0 {
			out.Bit = d.place(c, rows, exists, func(t int, _, _ float64) bool { return c.rowDiffer[t] > 0 })
		}
		if out.Unexplained == nil {
			out.Unexplained = d.place(c, rows, exists, func(t int, in, n float64) bool {
				if c.info.DType == trace.I32 {
					return c.rowDiffer[t] > 0 && in == 0
				}
				return rows[c.info.Name][t] > unexplainedFactor*(in+n*u)
			})
		}
		if c.info.DType == trace.I32 {
			continue
		}
		d.place(c, rows, exists, func(t int, in, n float64) bool {
			// A row of infinite error whose inputs have it too is no number, and no larger than any.
			if ratio := rows[c.info.Name][t] / (in + n*u); ratio > float64(out.Largest) {
				out.Largest, out.LargestAt = Number(ratio), c.info.Name
			}
			return false
		})
	}
	return out
}

// place finds the first row of a tensor for which is holds, given the error of its inputs and the steps from them.
func (d *differ) place(c *comparison, rows map[string][]float64, exists func(trace.Tap, int) bool, is func(row int, in, steps float64) bool) *Place {
	inputs, skipped := trace.Inputs(c.info.Tap, c.info.Layer, d.lastLayer(), exists, func(t trace.Tap, l int) bool { return d.lookup(t, l) != nil })
	var out *Place
	history := 0.0 // of inputs that look back: the largest so far
	for t := range c.rowDD {
		in := 0.0
		for _, x := range inputs {
			e := rows[x.Tap.Name(x.Layer)]
			switch {
			case len(e) != len(c.rowDD): // a state after all tokens
				for _, v := range e {
					history = max(history, v)
				}
			case x.History:
				history = max(history, e[t])
			default:
				in = max(in, e[t])
			}
		}
		in = max(in, history)
		if !is(t, in, float64(1+skipped)) {
			continue
		}
		if out == nil {
			out = &Place{Name: c.info.Name, Layer: c.info.Layer, Token: t, RelError: Number(rows[c.info.Name][t]), InputError: Number(in), Inputs: len(inputs), Steps: 1 + skipped}
			if c.info.Tap.Cache() {
				out.Token = -1
			}
		}
		out.Tokens++
	}
	return out
}

// unit is the unit roundoff of the coarser side: 2^-24 for float32, 2^-11 for fp16, 2^-8 for bf16. It is read off
// the outputs of the layers, sums of two numbers that no coarser grid holds by chance; logits stand in without them.
func (d *differ) unit() float64 {
	a, b, seen := 24, 24, false
	gather := func(c *comparison) {
		if c.n > 0 {
			a, b, seen = min(a, c.gridA), min(b, c.gridB), true
		}
	}
	for _, c := range d.order {
		if c.info.Tap == trace.LayerOut {
			gather(c)
		}
	}
	if c := d.lookup(trace.Logits, -1); c != nil && !seen {
		gather(c)
	}
	switch zeros := max(a, b); {
	case !seen || zeros < 13 || zeros >= 24: // 24: only zeros were seen
		return 0x1p-24
	case zeros < 16:
		return 0x1p-11
	}
	return 0x1p-8
}
