package graph

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"sibyl/engine"
	"sibyl/precision"
)

// graphDigests are the bundles whose checkpoint and scheme are among the goldens of the exported graph with each
// operation exact: sha256 of logits and states. Source: testdata/contracts, made from graph.safetensors.
var graphDigests = []struct{ bundle, set, variant string }{
	{"tiny-dense-tied-fp16", "tiny-dense-tied", "fp16"},
	{"tiny-dense-tied-int4lin", "tiny-dense-tied", "int4lin"},
	{"tiny-dense-tied-int8lin-debuginfo", "tiny-dense-tied", "int8lin"},
	{"tiny-moe-int8hu-sym", "tiny-moe", "int8hu_sym"},
	{"opticks-2m-int8hu-sym", "opticks-2m", "int8hu_sym"},
}

func TestExactBits(t *testing.T) {
	t.Parallel()
	for _, g := range graphDigests {
		t.Run(g.bundle, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile("../testdata/contracts/" + g.set + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var golden struct {
				Prompts map[string][]int32
				Tensors map[string]map[string]struct{ SHA256 string }
			}
			if err := json.Unmarshal(text, &golden); err != nil {
				t.Fatal(err)
			}
			models, err := filepath.Glob("../testdata/bundles/" + g.bundle + "/*.aimodel")
			if err != nil || len(models) != 1 {
				t.Fatal(models, err)
			}
			e := open(t, models[0], "")
			ran := 0
			for p, ids := range golden.Prompts {
				kind := g.variant + "." + p + "."
				if golden.Tensors["graph"][kind+"logits"].SHA256 == "" || testing.Short() && len(ids) > 20 {
					continue
				}
				ran++
				seq := e.layout.start()
				same := func(what string, x []float32) {
					if got, want := sum16(x), golden.Tensors["graph"][kind+what].SHA256; got != want {
						t.Errorf("%s%s: sha256 %s, want %s", kind, what, got, want)
					}
				}
				same("logits", rows(t, e, seq, ids, engine.Path{}, 0))
				for i, a := range e.layout.handles {
					same(a.name, filled(e, seq, i).floats())
				}
			}
			if ran == 0 {
				t.Error("no prompt was run")
			}
		})
	}
}

// sum16 is the sha256 of x as fp16 bytes.
func sum16(x []float32) string {
	b := make([]byte, 0, 2*len(x))
	for _, v := range x {
		b = binary.LittleEndian.AppendUint16(b, precision.F32ToF16(v))
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
