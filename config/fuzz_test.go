package config_test

import (
	"strings"
	"testing"

	"sibyl/config"
	"sibyl/internal/malformed"
)

// FuzzConfig: no panic, and whatever is accepted keeps what Config promises: positive counts, exact divisions, and
// shapes whose products fit.
func FuzzConfig(f *testing.F) {
	for _, tt := range malformed.All() {
		if b, ok := tt.Files["config.json"]; ok {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := config.Parse("x", b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "x: ") {
				t.Fatalf("the error does not name the file: %v", err)
			}
			return
		}
		if len(c.Layers) != c.NumLayers || c.NumHeads%c.NumKVHeads != 0 || c.ValueHeads%c.KeyHeads != 0 ||
			c.RotaryDim%2 != 0 || c.RotaryDim > c.HeadDim || c.MRopeSection[0]+c.MRopeSection[1]+c.MRopeSection[2] != c.RotaryDim/2 ||
			!(c.RMSNormEps > 0) || !(c.RopeTheta > 1) || (c.MoE == nil) != (c.IntermediateSize > 0) {
			t.Fatalf("accepted: %+v", c)
		}
		for _, r := range append(c.LayerRoles(config.GatedDeltaNet), c.LayerRoles(config.FullAttention)...) {
			n := 8
			for _, d := range r.Shape(c) {
				if d < 1 || n > (1<<62)/d {
					t.Fatalf("%s has shape %v", r, r.Shape(c))
				}
				n *= d
			}
		}
	})
}
