package against

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/inputerr"
)

const testdata = "../../testdata"

// checkpoints are what the samples were exported from; "" is the demo model.
var checkpoints = map[string]string{
	"opticks-2m-apple-q35": "", "opticks-2m-int8hu-sym": "",
	"tiny-dense-gva-apple-q35": "tiny-dense-gva", "tiny-dense-gva-apple-q35-bf16": "tiny-dense-gva",
	"tiny-dense-tied-fp16": "tiny-dense-tied", "tiny-dense-tied-int4lin": "tiny-dense-tied", "tiny-dense-tied-int8lin-debuginfo": "tiny-dense-tied",
	"tiny-dense-tied-u4-minval": "tiny-dense-tied", "tiny-moe-apple-q35": "tiny-moe", "tiny-moe-int8hu-sym": "tiny-moe",
}

func openCheckpoint(t *testing.T, name string) *bundle.Checkpoint {
	t.Helper()
	if name != "" {
		name = filepath.Join(testdata, "goldens", name)
	}
	ck, err := bundle.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ck.Close() })
	return ck
}

func openBundle(t *testing.T, dir string) (*bundle.Bundle, *bundle.Listing) {
	t.Helper()
	b, err := bundle.OpenBundle(context.Background(), dir, bundle.BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	l, err := b.Listing()
	if err != nil {
		t.Fatal(err)
	}
	return b, l
}

func asset(t *testing.T, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(testdata, "bundles", name, "*.aimodel"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	return found[0]
}

func compare(t *testing.T, l *bundle.Listing, ck *bundle.Checkpoint, function string) *Report {
	t.Helper()
	r, err := Compare(context.Background(), l, ck, Options{Function: function, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var faultAt = regexp.MustCompile(`index \[(\d+)\]`)

// TestNames: the name of every weight of every sample, by bytes and dataflow, is that of its listing; the exporter's faults are
// where the listing marks them, and nowhere else.
func TestNames(t *testing.T) {
	for name, ckName := range checkpoints {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(testdata, "bundles", name, "listing.json"))
			if err != nil {
				t.Fatal(err)
			}
			var listing struct {
				Weights []struct {
					Function string
					Tensor   string                    `json:"checkpoint_tensor"`
					Tensors  []struct{ Tensor string } `json:"checkpoint_tensors"`
					Stored   string                    `json:"stored_as"`
				}
			}
			if err := json.Unmarshal(text, &listing); err != nil {
				t.Fatal(err)
			}
			_, l := openBundle(t, asset(t, name))
			ck := openCheckpoint(t, ckName)
			r := compare(t, l, ck, "main")
			if len(r.Missing) > 0 {
				t.Errorf("no weight was made of %v", r.Missing)
			}
			for i, m := range r.Matches {
				want := listing.Weights[i]
				var names, got []string
				if want.Tensor != "" {
					names = append(names, want.Tensor)
				}
				for _, x := range want.Tensors {
					names = append(names, x.Tensor)
				}
				for _, p := range m.Parts {
					n, _, _ := strings.Cut(strings.Replace(p.Name, ck.Prefix(), "model.", 1), " (")
					got = append(got, n)
				}
				for k, n := range names {
					names[k] = inCheckpoint(n, ck.Config().TieWordEmbeddings)
				}
				slices.Sort(names)
				slices.Sort(got)
				if names = slices.Compact(names); strings.HasPrefix(want.Stored, "rope") {
					names = []string{"inv_freq"}
				}
				if !m.Equal() || !slices.Equal(slices.Compact(got), names) {
					t.Errorf("weight %d: %v, %s, %+v; want %v by bytes and dataflow", i, got, m.How, m.Parts, names)
				}
				if f := faultAt.FindStringSubmatch(want.Stored); f != nil {
					if have := fmt.Sprint(m.Parts[0].Fault); have != "["+f[1]+"]" {
						t.Errorf("%s: faults at %s, want [%s]", names, have, f[1])
					}
				} else if len(m.Parts[0].Fault) > 0 {
					t.Errorf("%s: faults at %v, want none", names, m.Parts[0].Fault)
				}
			}
		})
	}
}

var portExperts = regexp.MustCompile(`switch_mlp\.(gate|up|down)_proj\.weight$`)

// inCheckpoint is a listing's name as the checkpoint has it: listings shorten one, and have some of the port's.
func inCheckpoint(n string, tied bool) string {
	if m := portExperts.FindStringSubmatch(n); m != nil {
		n = strings.TrimSuffix(n, m[0]) + map[string]string{"gate": "experts.gate_up_proj", "up": "experts.gate_up_proj", "down": "experts.down_proj"}[m[1]]
	}
	if strings.HasSuffix(n, ".conv1d.weight") && !strings.Contains(n, "linear_attn") {
		n = strings.Replace(n, "conv1d", "linear_attn.conv1d", 1)
	}
	if n == "lm_head.weight" && tied {
		n = "model.embed_tokens.weight"
	}
	return n
}

// TestPrefill: the second function, whose last layer lacks what no state needs.
func TestPrefill(t *testing.T) {
	_, l := openBundle(t, asset(t, "tiny-dense-gva-apple-q35"))
	r := compare(t, l, openCheckpoint(t, "tiny-dense-gva"), "prefill")
	for _, m := range r.Matches {
		if m.How != Both && m.How != Formula {
			t.Errorf("%+v", m.Parts)
		}
	}
	for _, name := range r.Missing {
		if !strings.Contains(name, "layers.7.") && !strings.Contains(name, "lm_head") && !strings.HasSuffix(name, ".norm.weight") {
			t.Errorf("prefill lacks %s", name)
		}
	}
}

// TestWithoutDataflow: names by bytes alone, as in a graph of an unknown profile.
func TestWithoutDataflow(t *testing.T) {
	_, l := openBundle(t, asset(t, "tiny-moe-int8hu-sym"))
	l.Roles = map[string]*bundle.Roles{}
	var want []string
	for _, w := range l.Weights {
		want = append(want, w.Name())
		w.Parts = nil
	}
	r := compare(t, l, openCheckpoint(t, "tiny-moe"), "main")
	for i, m := range r.Matches {
		if want[i] == "" {
			continue // inverse frequencies
		}
		if m.How != Bytes || len(m.Parts) != 1 || !strings.HasSuffix(m.Parts[0].Name, want[i]) {
			t.Errorf("%s: %s %+v", want[i], m.How, m.Parts)
		}
	}
}

// TestDifferent: two weights in each other's place, one scale, one q, one gain; each is told, and nothing else.
func TestDifferent(t *testing.T) {
	src, l := openBundle(t, asset(t, "tiny-dense-tied-int4lin"))
	find := func(role config.Role, layer int) *bundle.Use { return l.Roles["main"].Find(role, layer, "") }
	up, gate := find(config.UpProj, 2), find(config.GateProj, 2)
	upScale, gateScale := up.Dequant.Operands[1].Def.Const, gate.Dequant.Operands[1].Def.Const
	down, norm := find(config.DownProj, 4), find(config.PostAttnNorm, 1)
	downScale := down.Dequant.Operands[1].Def.Const
	scale, q, gain := bytes.Clone(downScale.Data), bytes.Clone(down.Data.Const.Data), bytes.Clone(norm.Data.Const.Data)
	downScale.Set(scale, 7, downScale.Bits(7)+1)
	down.Data.Const.Set(q, 3, (down.Data.Const.Bits(3)+1)&7)
	norm.Data.Const.Set(gain, 11, norm.Data.Const.Bits(11)+1)
	out := filepath.Join(t.TempDir(), "x.aimodel")
	edits := []bundle.Edit{{Const: up.Data.Const, Data: gate.Data.Const.Data}, {Const: gate.Data.Const, Data: up.Data.Const.Data}, {Const: upScale, Data: gateScale.Data},
		{Const: gateScale, Data: upScale.Data}, {Const: downScale, Data: scale}, {Const: down.Data.Const, Data: q}, {Const: norm.Data.Const, Data: gain}}
	if err := src.Rewrite(context.Background(), out, edits, bundle.RewriteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, changed := openBundle(t, out)
	r := compare(t, changed, openCheckpoint(t, "tiny-dense-tied"), "main")
	told := map[string]Part{}
	for _, m := range r.Matches {
		if !m.Equal() {
			told[m.Weight.Name()] = m.Parts[0]
		}
	}
	if p := told["layers.2.mlp.up_proj.weight"]; !strings.HasSuffix(p.BytesOf, "layers.2.mlp.gate_proj.weight") || p.Diff.RMS == 0 {
		t.Errorf("up_proj: %+v, want the bytes of gate_proj", p)
	}
	if p := told["layers.2.mlp.gate_proj.weight"]; !strings.HasSuffix(p.BytesOf, "layers.2.mlp.up_proj.weight") {
		t.Errorf("gate_proj: %+v, want the bytes of up_proj", p)
	}
	if p := told["layers.4.mlp.down_proj.weight"]; p.Diff.Q != 1 || p.Diff.Scales != 1 || p.Diff.First != 3 || p.BytesOf != "" || p.Diff.MaxAbs == 0 {
		t.Errorf("down_proj: %+v, want one q and one scale from element 3 on", p)
	}
	if p := told["layers.1.post_attention_layernorm.weight"]; p.Diff.Values != 1 || p.Diff.First != 11 || p.Diff.MaxAbs > 0x1p-22 {
		t.Errorf("norm: %+v, want element 11, one unit in the last place", p)
	}
	if len(told) != 4 {
		t.Errorf("%d weights differ, want 4: %v", len(told), told)
	}
}

// TestRefused: checkpoints of other models.
func TestRefused(t *testing.T) {
	_, l := openBundle(t, asset(t, "tiny-dense-tied-int4lin"))
	_, err := Compare(context.Background(), l, openCheckpoint(t, "tiny-moe"), Options{Function: "main"})
	var in *inputerr.Error
	if !errors.As(err, &in) || !strings.Contains(err.Error(), "this one is of another model") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Compare(ctx, l, openCheckpoint(t, "tiny-dense-tied"), Options{Function: "main"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestOtherScheme: a weight with a zero point is named by its place and not called different.
func TestOtherScheme(t *testing.T) {
	_, l := openBundle(t, asset(t, "tiny-dense-tied-u4-minval"))
	w := l.Weights[0]
	odd := *w.Quant.Offset1
	odd.Data = bytes.Repeat([]byte{0x11}, len(odd.Data))
	q := *w.Quant
	q.Offset1 = &odd
	w.Quant = &q
	for _, m := range compare(t, l, openCheckpoint(t, "tiny-dense-tied"), "main").Matches {
		if want := m.Weight == w; (m.How == Place) != want || !want && !m.Equal() {
			t.Errorf("%s: %s %+v", m.Weight.Name(), m.How, m.Parts)
		}
	}
}
