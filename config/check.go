package config

import (
	"fmt"

	"sibyl/internal/inputerr"
)

// Check holds a configuration that was not read from a config.json (Parse does its own judging) to the same bounds:
// every count positive and no larger than is read, every division exact.
func (c *Config) Check() error {
	bad := func(field, found, want string) error {
		return &inputerr.Error{File: c.File, Field: field, Found: found, Want: want, Do: "the model is not of the family, or damaged"}
	}
	counts := []struct {
		field    string
		n, limit int
	}{
		{"hidden size", c.HiddenSize, maxHidden}, {"layers", c.NumLayers, maxLayers}, {"vocabulary", c.VocabSize, maxVocab}, {"positions", c.MaxPositions, maxPositions},
		{"query heads", c.NumHeads, maxHeads}, {"kv heads", c.NumKVHeads, maxHeads}, {"head dim", c.HeadDim, maxHeadDim}, {"rotary dims", c.RotaryDim, c.HeadDim},
		{"key heads", c.KeyHeads, maxHeads}, {"value heads", c.ValueHeads, maxHeads}, {"key dim", c.KeyDim, maxHeadDim}, {"value dim", c.ValueDim, maxHeadDim},
		{"conv taps", c.ConvKernel, MaxConvKernel},
	}
	if m := c.MoE; m != nil {
		counts = append(counts, []struct {
			field    string
			n, limit int
		}{{"experts", m.NumExperts, maxExperts}, {"chosen experts", m.TopK, m.NumExperts}, {"experts' width", m.IntermediateSize, maxFFN},
			{"shared expert's width", m.SharedIntermediateSize, maxFFN}}...)
	} else {
		counts = append(counts, struct {
			field    string
			n, limit int
		}{"intermediate size", c.IntermediateSize, maxFFN})
	}
	for _, k := range counts {
		if k.n < 1 || k.n > k.limit {
			return bad(k.field, fmt.Sprint(k.n), fmt.Sprintf("1 to %d", k.limit))
		}
	}
	switch {
	case c.NumHeads%c.NumKVHeads != 0:
		return bad("query heads", fmt.Sprint(c.NumHeads), fmt.Sprintf("a multiple of the kv heads, %d", c.NumKVHeads))
	case c.ValueHeads%c.KeyHeads != 0:
		return bad("value heads", fmt.Sprint(c.ValueHeads), fmt.Sprintf("a multiple of the key heads, %d", c.KeyHeads))
	case c.RotaryDim%2 != 0:
		return bad("rotary dims", fmt.Sprint(c.RotaryDim), "an even number")
	case len(c.Layers) != c.NumLayers:
		return bad("layers", fmt.Sprint(len(c.Layers)), fmt.Sprint(c.NumLayers))
	case !(c.RMSNormEps > 0 && c.RMSNormEps < 1):
		return bad("eps", fmt.Sprint(c.RMSNormEps), "a number between 0 and 1")
	}
	return nil
}
