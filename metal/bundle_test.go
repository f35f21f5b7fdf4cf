package metal_test

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/internal/inputerr"
)

// TestBundles: from a shipped bundle's bits the kernels compute under hf-fp32 what the oracle computes from them, within the bound of a
// float32 engine.
func TestBundles(t *testing.T) {
	t.Parallel()
	ids := []int32{3, 141, 59, 265, 358, 97, 93, 238, 462, 64, 338, 327}
	for _, c := range []struct {
		name string
		long bool
	}{
		{"tiny-dense-tied-fp16/*.aimodel", false},
		{"tiny-dense-tied-int4lin/*.aimodel", false},
		{"tiny-dense-tied-int8lin-debuginfo/*.aimodel", true},
		{"tiny-moe-fp16/*.aimodel", false}, // experts stored [in, out]
		{"tiny-moe-int8hu-sym/*.aimodel", true},
		{"tiny-dense-gva-apple-q35/*.aimodel", false}, // rows of fused matrices
		{"tiny-moe-apple-q35/*.aimodel", true},
		{"opticks-2m-int8hu-sym", true},
	} {
		if c.long && testing.Short() {
			continue
		}
		t.Run(strings.TrimSuffix(c.name, "/*.aimodel"), func(t *testing.T) {
			t.Parallel()
			found, err := filepath.Glob(filepath.Join("../testdata/bundles", c.name))
			if err != nil || len(found) != 1 {
				t.Fatalf("%v (%v)", found, err)
			}
			test := open(t, "metal-cpu", engine.Spec{Model: found[0], Contract: "hf-fp32"})
			ref := open(t, "cpu", engine.Spec{Model: found[0], Contract: "hf-fp32"})
			got, want := collect{}, collect{}
			g, w := score(t, test, engine.Want{Taps: got, Logits: true}, ids), score(t, ref, engine.Want{Taps: want, Logits: true}, ids)
			for i := range w {
				if d := goldens.MaxDiff(g[i].Logits, w[i].Logits); !(d <= goldens.LogitBound) {
					t.Errorf("position %d: logits %.3g apart, bound %.3g", i, d, goldens.LogitBound)
				}
			}
			for name, x := range want {
				most := 1.0
				for _, v := range x {
					most = max(most, math.Abs(float64(v)))
				}
				if d := goldens.MaxDiff(got[name], x); !(d <= max(1e-4*most, goldens.LogitBound)) && !strings.Contains(name, "topk") {
					t.Errorf("%s %.3g apart, bound %.3g", name, d, 1e-4*most)
				}
			}
			if test.Info().Profile != ref.Info().Profile || test.Info().Scheme != ref.Info().Scheme {
				t.Errorf("profile %s, scheme %s; the oracle says %s, %s", test.Info().Profile, test.Info().Scheme, ref.Info().Profile, ref.Info().Scheme)
			}
			n := test.Info().Fallbacks
			if c.name == "tiny-moe-fp16/*.aimodel" && n["bytes of weights copied"] > 8*3*32*64*32*2+2048 {
				t.Errorf("%v: experts that were turned have two bytes a weight, as in the file", n)
			}
			t.Logf("%v", n)
		})
	}
}

// TestBundleRollout: the ship configuration under its profile's own contract: 64 greedy ids after each of the demo model's prompts are
// the oracle's, or the oracle's own margin there is below the gate's floor.
func TestBundleRollout(t *testing.T) {
	t.Parallel()
	const path = "../testdata/bundles/opticks-2m-int8hu-sym"
	test, ref := open(t, "metal-cpu", engine.Spec{Model: path}), open(t, "cpu", engine.Spec{Model: path})
	if test.Info().Contract != "coreai-fp16" || test.Info().Scheme != "int8hu-sym" {
		t.Fatalf("%+v", test.Info())
	}
	prompts, n := goldens.Load(t, "opticks-2m", "golden").Rollouts()
	if testing.Short() {
		prompts, n = prompts[:1], 16
	}
	tokens, flips := 0, 0
	for _, ids := range prompts {
		chosen := roll(t, ref, ids, engine.Options{MaxTokens: n})
		got := roll(t, test, ids, engine.Options{Force: idsOf(chosen)})
		for i, want := range chosen {
			tokens++
			if got[i].ID == want.ID {
				continue
			}
			flips++
			t.Logf("prompt of %d, token %d: %d where the oracle has %d at a margin of %.4f", len(ids), i, got[i].ID, want.ID, want.LogitGap())
			if !(want.LogitGap() < floor) {
				t.Errorf("neither TIE nor NEAR")
			}
		}
	}
	t.Logf("%d prompts, %d tokens, %d flips", len(prompts), tokens, flips)
}

// TestBundleRefused: what no kernel computes of a bundle is said.
func TestBundleRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		spec       engine.Spec
	}{
		{"apple-q35", "a state rounded once a call", engine.Spec{Model: "../testdata/bundles/opticks-2m-apple-q35"}},
		{"quantized-twice", "already quantized", engine.Spec{Model: "../testdata/bundles/opticks-2m-int8hu-sym", Scheme: "int4lin"}},
	} {
		_, err := engine.Open(context.Background(), "metal-cpu", c.spec)
		var bad *inputerr.Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ...%s...", c.name, err, c.want)
		}
	}
}
