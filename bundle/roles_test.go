package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bundles are the samples: exported by Apple's tools, listed by a reader of its own.
const bundles = testdata + "/bundles"

// sampleAsset is the .aimodel of a sample.
func sampleAsset(t testing.TB, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(bundles, name, "*.aimodel"))
	if err != nil || len(found) != 1 {
		t.Fatalf("sample %s: %v (%v)", name, found, err)
	}
	return found[0]
}

func samples(t testing.TB) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(bundles, "*", "listing.json"))
	if err != nil || len(found) != 10 {
		t.Fatalf("found %d samples (%v), want 10", len(found), err)
	}
	for i, f := range found {
		found[i] = filepath.Base(filepath.Dir(f))
	}
	return found
}

func openSample(t testing.TB, path string) *Bundle {
	t.Helper()
	b, err := OpenBundle(context.Background(), path, BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// listing is the part of listing.json that roles are held against.
type listing struct {
	Profile string
	Weights []struct {
		Function string
		Use      string
		Data     struct {
			SHA256 string
			Shape  []int
		}
		Tensor  string       `json:"checkpoint_tensor"`
		Tensors []listedPart `json:"checkpoint_tensors"`
		Stored  string       `json:"stored_as"`
	}
}

type listedPart struct {
	Tensor     string
	Rows       []int
	SourceRows []int `json:"source_rows"`
	Heads      int
	Repeated   int
	PerHead    int `json:"rows_per_head"`
	Stride     int `json:"source_stride"`
	Offset     int `json:"source_offset"`
}

func readListing(t *testing.T, name string) (l listing) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(bundles, name, "listing.json"))
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// canonical is a listing's name as Use.Name writes it.
func canonical(tensor string, p listedPart) string {
	name := strings.TrimPrefix(tensor, "model.")
	for _, proj := range []string{"gate", "up", "down"} {
		packed := map[string]string{"gate": "gate_up_proj", "up": "gate_up_proj", "down": "down_proj"}[proj]
		if s, ok := strings.CutSuffix(name, "mlp.switch_mlp."+proj+"_proj.weight"); ok {
			return s + "mlp.experts." + packed + " (" + proj + ")"
		}
	}
	switch {
	case strings.HasSuffix(name, "experts.gate_up_proj") && p.SourceRows[0] == 0:
		name += " (gate)"
	case strings.HasSuffix(name, "experts.gate_up_proj"):
		name += " (up)"
	case strings.HasSuffix(name, "experts.down_proj"):
		name += " (down)"
	case strings.HasSuffix(name, ".conv1d.weight") && !strings.Contains(name, "linear_attn"): // as the apple-q35 listings shorten it
		name = strings.Replace(name, "conv1d", "linear_attn.conv1d", 1)
	}
	return name
}

// rows are the spans that a listed part says.
func (p listedPart) rows() (out []string) {
	switch {
	case len(p.Rows) == 0:
	case p.Heads > 0:
		for h := range p.Heads {
			out = append(out, fmt.Sprint(Span{p.Rows[0] + h*p.PerHead, p.Offset + h*p.Stride, p.PerHead}))
		}
	default:
		out = append(out, fmt.Sprint(Span{p.Rows[0], 0, p.Rows[1] - p.Rows[0]}))
	}
	return out
}

// expected lists "NAME sha256 of the constant, form, rows" of a function, sorted.
func (l *listing) expected(function string) []string {
	type key struct{ name, sum, form string }
	last := "" // prefill ends in the last layer's caches, which no gate reaches
	if function == "prefill" {
		last = "layers.7.self_attn.q_proj.weight"
	}
	rows := map[key][]string{}
	put := func(name, sum, form string, r []string) {
		k := key{name, sum, form}
		rows[k] = append(rows[k], r...)
	}
	for _, w := range l.Weights {
		form, _, _ := strings.Cut(w.Stored, ",")
		if form == "" {
			form = "w"
		}
		switch {
		case w.Function != function || strings.HasPrefix(w.Stored, "rope"):
		case w.Use == "embedding+head":
			put("embed_tokens.weight", w.Data.SHA256, form, nil)
			put("lm_head.weight", w.Data.SHA256, form, nil)
		case w.Use == "linear" && w.Tensor == "model.embed_tokens.weight":
			put("lm_head.weight", w.Data.SHA256, form, nil)
		case w.Tensor != "":
			put(canonical(w.Tensor, listedPart{}), w.Data.SHA256, form, nil)
		}
		if w.Function == function {
			for _, p := range w.Tensors {
				if canonical(p.Tensor, p) == last && p.Offset > 0 {
					continue
				}
				put(canonical(p.Tensor, p), w.Data.SHA256, form, p.rows())
			}
		}
	}
	var out []string
	for k, r := range rows {
		slices.Sort(r)
		out = append(out, fmt.Sprint(k.name, " ", k.sum, " ", k.form, " ", r))
	}
	slices.Sort(out)
	return out
}

// TestRoles: every weight of every sample is recovered from the graph alone, in every function, with its rows.
func TestRoles(t *testing.T) {
	t.Parallel()
	for _, name := range samples(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := readListing(t, name)
			b := openSample(t, sampleAsset(t, name))
			p, err := b.Profile()
			if err != nil {
				t.Fatal(err)
			}
			want := "zoo-s1"
			if l.Profile != "" {
				want = l.Profile
			}
			if p.Name != want {
				t.Errorf("profile %s, want %s", p.Name, want)
			}
			functions := []string{"main"}
			if p.Name == "apple-q35" {
				functions = append(functions, "prefill")
			}
			for _, function := range functions {
				r, err := b.Roles(function)
				if err != nil {
					t.Fatal(err)
				}
				for _, problem := range r.Problems {
					t.Errorf("%s: %v", function, problem)
				}
				var got []string
				for _, u := range r.Uses {
					sum := sha256.Sum256(u.Data.Const.Data)
					var rows []string
					for _, s := range u.Spans {
						rows = append(rows, fmt.Sprint(s))
					}
					slices.Sort(rows)
					got = append(got, fmt.Sprint(u.Name(), " ", hex.EncodeToString(sum[:]), " ", u.Form, " ", rows))
				}
				slices.Sort(got)
				if diff := cmp.Diff(l.expected(function), got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", function, diff)
				}
				if r.InvFreq == nil {
					t.Errorf("%s: no inverse frequencies", function)
				}
			}
		})
	}
}
