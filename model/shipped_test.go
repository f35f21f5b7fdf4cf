package model

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/precision"
	"sibyl/quant"
)

var (
	bf16Spec = quant.Spec{Format: quant.BF16}
	u4Spec   = quant.Spec{Format: quant.U4, Block: 32, Axis: 1}
)

// shippedSamples says which checkpoint each bundle was exported from, in which scheme, and under which contracts it is
// compared.
var shippedSamples = []struct {
	name, checkpoint string
	scheme           *quant.Scheme // nil: the named one
	named            string
	contracts        []string
}{
	{"tiny-dense-tied-fp16", "tiny-dense-tied", nil, "fp16", []string{"coreai-fp16", "hf-fp32", "coreai-cpu"}},
	{"tiny-dense-tied-int4lin", "tiny-dense-tied", nil, "int4lin", []string{"coreai-fp16", "hf-fp32", "coreai-cpu"}},
	{"tiny-dense-tied-int8lin-debuginfo", "tiny-dense-tied", nil, "int8lin", []string{"coreai-fp16", "coreai-eager", "hf-fp32"}},
	{"tiny-moe-int8hu-sym", "tiny-moe", nil, "int8hu-sym", []string{"coreai-fp16", "hf-fp32", "coreai-cpu"}},
	{"tiny-moe-fp16", "tiny-moe", nil, "fp16", []string{"coreai-fp16", "hf-fp32", "coreai-cpu"}}, // experts stored [in, out]
	{"opticks-2m-int8hu-sym", "opticks-2m", nil, "int8hu-sym", []string{"coreai-fp16", "hf-fp32"}},
	{"tiny-dense-tied-u4-minval", "tiny-dense-tied", &quant.Scheme{Name: "u4 body", Body: u4Spec, Head: bf16Spec, Embed: bf16Spec, Rest: bf16Spec}, "", []string{"coreai-bf16", "hf-fp32"}},
	{"tiny-dense-gva-apple-q35", "tiny-dense-gva", nil, "u4-minval", []string{"coreai-bf16", "hf-fp32", "hf-bf16"}},
	{"tiny-dense-gva-apple-q35-bf16", "tiny-dense-gva", &quant.Scheme{Name: "bf16", Body: bf16Spec, Head: bf16Spec, Embed: bf16Spec, Rest: bf16Spec}, "", []string{"coreai-bf16", "hf-fp32"}},
	{"tiny-moe-apple-q35", "tiny-moe", nil, "u4-minval", []string{"coreai-bf16", "hf-fp32", "hf-bf16"}},
	{"opticks-2m-apple-q35", "opticks-2m", nil, "u4-minval", []string{"coreai-bf16", "hf-fp32"}},
}

const shippedDir = "../testdata/bundles"

// shippedPath is a LanguageBundle's folder, or the .aimodel of a sample that is none.
func shippedPath(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(shippedDir, name)
	if _, err := os.Stat(filepath.Join(dir, "metadata.json")); err == nil {
		return dir
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.aimodel"))
	if err != nil || len(found) != 1 {
		t.Fatalf("sample %s: %v (%v)", name, found, err)
	}
	return found[0]
}

// openShipped opens a bundle's weights.
func openShipped(t *testing.T, name string) *bundle.Shipped {
	t.Helper()
	src, err := bundle.OpenSource(context.Background(), shippedPath(t, name), bundle.BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return src.(*bundle.Shipped)
}

// fault is an element that the exporter folded wrongly, as listing.json marks it.
type fault struct {
	tensor string // name below the prefix
	at     int
}

var faultText = regexp.MustCompile(`folded as almost 0: index \[([0-9, ]+)\]`)

func exporterFaults(t *testing.T, name string) (out []fault) {
	t.Helper()
	var l struct {
		Weights []struct {
			Tensor string `json:"checkpoint_tensor"`
			Stored string `json:"stored_as"`
		}
	}
	text, err := os.ReadFile(filepath.Join(shippedDir, name, "listing.json"))
	if name == "tiny-moe-fp16" && os.IsNotExist(err) {
		return nil // none in its norms: inspect --against finds every byte
	}
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range l.Weights {
		m := faultText.FindStringSubmatch(w.Stored)
		if m == nil {
			continue
		}
		for _, n := range strings.Split(m[1], ",") {
			i, err := strconv.Atoi(strings.TrimSpace(n))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fault{strings.TrimPrefix(w.Tensor, "model."), i})
		}
	}
	return out
}

// norms are a decoder's gains by tensor name.
func norms(d *Decoder) map[string]*Norm {
	out := map[string]*Norm{config.FinalNorm.Name(0): &d.FinalNorm}
	for l := range d.Layers {
		out[config.InputNorm.Name(l)] = &d.Layers[l].InputNorm
		out[config.PostAttnNorm.Name(l)] = &d.Layers[l].PostAttnNorm
	}
	return out
}

// withFaults gives a decoder of the checkpoint the gains that the exporter folded wrongly, and only those.
func withFaults(t *testing.T, d, shipped *Decoder, faults []fault) {
	t.Helper()
	mine, theirs := norms(d), norms(shipped)
	for _, f := range faults {
		a, b := mine[f.tensor], theirs[f.tensor]
		if a == nil || b == nil {
			t.Fatalf("%s is no norm", f.tensor)
		}
		gain := b.One + b.Weight[f.at]
		if 1+a.Weight[f.at] == gain {
			t.Errorf("%s[%d]: the listing marks a fault where there is none", f.tensor, f.at)
		}
		if a.Weight[f.at] = gain - 1; 1+a.Weight[f.at] != gain {
			t.Fatalf("%s[%d]: no weight gives the gain %v", f.tensor, f.at, gain)
		}
	}
}

// TestShipped: from a bundle's bits the oracle computes what it computes from the checkpoint with the scheme, in every
// bit of logits and states, but for the elements that listing.json marks.
func TestShipped(t *testing.T) {
	t.Parallel()
	for _, tt := range shippedSamples {
		for _, contract := range tt.contracts {
			t.Run(tt.name+"/"+contract, func(t *testing.T) {
				t.Parallel()
				if testing.Short() && contract == "coreai-cpu" && tt.name != "tiny-dense-tied-fp16" {
					t.Skip("one bundle is enough for -short: this arithmetic is slow")
				}
				src := openShipped(t, tt.name)
				path := filepath.Join("../testdata/goldens", tt.checkpoint)
				if tt.checkpoint == "opticks-2m" {
					path = "" // the demo model
				}
				ck, err := bundle.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				a := planned(t, src, contract, nil, "")
				b := planned(t, ck, contract, tt.scheme, tt.named)
				withFaults(t, b.d, a.d, exporterFaults(t, tt.name))
				sameConfig(t, ck.Config(), src.Config())
				for _, calls := range []engine.Path{{}, {Chunk: 1}} {
					if diff := firstDifference(t, a, b, calls); diff != "" {
						t.Errorf("%v: %s", calls, diff)
					}
				}
			})
		}
	}
}

// planned binds a source under a contract and a scheme.
func planned(t *testing.T, src bundle.Source, contract string, scheme *quant.Scheme, named string) *Engine {
	t.Helper()
	chosen, err := precision.Choose(contract)
	if err != nil {
		t.Fatal(err)
	}
	plan, arith := &Plan{Keep: true}, kernels.Exact
	if chosen.Contract.Arithmetic != "" {
		arith = kernels.Own(chosen.Contract.Arithmetic)
	}
	if err = plan.UseContract(src.Config(), chosen); err == nil {
		err = plan.useScheme(src, named)
	}
	if err == nil && scheme != nil {
		var a *quant.Assignment
		if a, err = scheme.Assign(src.Config()); err == nil {
			plan.View = func(at Place, r config.Role, m *kernels.Matrix) (*kernels.Matrix, error) {
				return a.View(max(at.Layer, 0), r, m)
			}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(src, plan, arith, engine.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// sameConfig compares what a graph says with config.json, but for what it cannot know: ids that end a text, positions,
// the sections of mRoPE; and a head that the exporter made a table of its own.
func sameConfig(t *testing.T, want, got *config.Config) {
	t.Helper()
	type shape struct {
		Kinds []config.LayerKind
		Sizes []int
		Eps   float64
		Theta float64
		MoE   config.MoE
	}
	of := func(c *config.Config) shape {
		s := shape{c.Layers, []int{c.HiddenSize, c.NumLayers, c.VocabSize, c.NumHeads, c.NumKVHeads, c.HeadDim, c.RotaryDim,
			c.KeyHeads, c.ValueHeads, c.KeyDim, c.ValueDim, c.ConvKernel, c.IntermediateSize}, c.RMSNormEps, c.RopeTheta, config.MoE{}}
		if c.MoE != nil {
			s.MoE = *c.MoE
		}
		return s
	}
	if a, b := fmt.Sprint(of(want)), fmt.Sprint(of(got)); a != b {
		t.Errorf("the graph's configuration is\n%s, config.json's\n%s", b, a)
	}
}

// firstDifference runs two engines on the same ids and says where logits or states first differ in a bit.
func firstDifference(t *testing.T, a, b *Engine, path engine.Path) string {
	t.Helper()
	ids := []int32{3, 141, 59, 265, 358, 97, 93, 238, 462, 64, 338, 327}
	var rows [2][][]float32
	var states [2]engine.State
	for i, e := range []*Engine{a, b} {
		want := engine.Want{Logits: true, Path: path, FinalState: &states[i]}
		err := e.Score(context.Background(), []engine.Prompt{{IDs: ids}}, want, func(p *engine.Position) error {
			rows[i] = append(rows[i], slices.Clone(p.Logits))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for pos := range rows[0] {
		for j, x := range rows[0][pos] {
			if y := rows[1][pos][j]; x != y {
				return fmt.Sprintf("logit %d at position %d is %v from the bundle and %v from the checkpoint", j, pos, x, y)
			}
		}
	}
	for name, s := range states[0].Tensors {
		for j, x := range s.Data {
			if y := states[1].Tensors[name].Data[j]; x != y {
				return fmt.Sprintf("%s[%d] is %v from the bundle and %v from the checkpoint", name, j, x, y)
			}
		}
	}
	return ""
}
