package oracle

import (
	"fmt"
	"math"
	"strings"

	"sibyl/trace"
)

// Heat is the relative error of each layer's output, over buckets of tokens: what the terminal shows as a strip.
type Heat struct {
	Layers []int `json:"layers"`
	// From holds the first token of each bucket.
	From []int `json:"token_from"`
	// RelError is [bucket][layer]: rms of the difference over rms of REF; null where either side has a NaN or Inf.
	RelError [][]Number `json:"rel_error"`
}

// maxBuckets is how many rows the strip has at most.
const maxBuckets = 8

// heat buckets the rows of the layers' outputs; nil without any.
func (d *differ) heat(tokens int) *Heat {
	h := &Heat{}
	buckets := min(tokens, maxBuckets)
	for b := range buckets {
		h.From = append(h.From, b*tokens/buckets)
	}
	h.RelError = make([][]Number, buckets)
	for l := 0; l <= d.lastLayer(); l++ {
		c := d.lookup(trace.LayerOut, l)
		if c == nil {
			continue
		}
		h.Layers = append(h.Layers, l)
		for b, from := range h.From {
			to := tokens
			if b+1 < buckets {
				to = h.From[b+1]
			}
			var dd, aa float64
			invalid := false
			for t := from; t < to; t++ {
				dd, aa = dd+c.rowDD[t], aa+c.rowAA[t]
				invalid = invalid || c.rowNonFinite[t] > 0
			}
			e := relative(dd, aa)
			if invalid {
				e = math.Inf(1)
			}
			h.RelError[b] = append(h.RelError[b], Number(e))
		}
	}
	if len(h.Layers) == 0 {
		return nil
	}
	return h
}

// The strip's levels: one a decade of relative error.
const (
	heatBlocks = "▁▂▃▄▅▆▇█"
	heatDigits = "12345678"
)

// heatCell gives a level from 1 (< 1e-7) to 8 (>= 1e-1) as a character; '.' for the same bits, '!' for no number.
func heatCell(e Number, levels []rune) rune {
	switch x := float64(e); {
	case !finite(x):
		return '!'
	case x == 0:
		return '.'
	default:
		return levels[min(max(int(math.Floor(math.Log10(x)))+8, 0), 7)]
	}
}

// renderHeat draws one row for each bucket of tokens and one character for each layer, in as many strips as the
// width asks for.
func (r *DiffResult) renderHeat(b *strings.Builder, v DiffView) {
	h := r.Heat
	if h == nil {
		return
	}
	levels := []rune(heatDigits)
	if v.Unicode {
		levels = []rune(heatBlocks)
	}
	width := v.Width
	if width <= 0 {
		width = 80
	}
	const label = 16
	per := max(width-label, 8)
	for from := 0; from < len(h.Layers); from += per {
		to := min(from+per, len(h.Layers))
		fmt.Fprintf(b, "relative error of the layers' outputs, layers %d to %d from left to right\n", h.Layers[from], h.Layers[to-1])
		for k, first := range h.From {
			last := r.Tokens - 1
			if k+1 < len(h.From) {
				last = h.From[k+1] - 1
			}
			line := fmt.Sprintf("%-*s", label, fmt.Sprintf("tokens %d-%d", first, last))
			for _, e := range h.RelError[k][from:to] {
				line += string(heatCell(e, levels))
			}
			b.WriteString(line + "\n")
		}
	}
	b.WriteString(". same bits")
	for i, c := range levels[:7] {
		fmt.Fprintf(b, "  %c <1e%d", c, i-7)
	}
	fmt.Fprintf(b, "  %c more  ! NaN, Inf\n\n", levels[7])
}
