package aicode

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// port is an input, state or output as listings have it.
type port struct {
	Name  string  `json:"name"`
	DType string  `json:"dtype"`
	Shape []int64 `json:"shape"`
}

type function struct {
	Name      string `json:"name"`
	Private   bool   `json:"private"`
	Composite string `json:"composite"`
	Inputs    []port `json:"inputs"`
	States    []port `json:"states"`
	Outputs   []port `json:"outputs"`
	Ops       int    `json:"ops"`
}

// samples opens every bundle of testdata with its listing.
func samples(t *testing.T, f func(t *testing.T, p *Program, dir string)) {
	t.Helper()
	listings, err := filepath.Glob("../../testdata/bundles/*/listing.json")
	if err != nil || len(listings) != 10 {
		t.Fatalf("%d samples (%v), want 10", len(listings), err)
	}
	for _, listing := range listings {
		dir := filepath.Dir(listing)
		found, err := filepath.Glob(filepath.Join(dir, "*.aimodel", "main.mlirb"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v (%v), want one program", dir, found, err)
		}
		file := found[0]
		t.Run(filepath.Base(dir), func(t *testing.T) {
			p, c, err := Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}()
			f(t, p, dir)
		})
	}
}

func ports(args []Arg, want func(Arg) bool) []port {
	list := []port{}
	for _, a := range args {
		if want(a) {
			t := a.Type
			if t.Kind == Handle {
				t = t.Of
			}
			list = append(list, port{a.Name, t.Elem.String(), append([]int64{}, t.Dims...)})
		}
	}
	return list
}

func TestFunctions(t *testing.T) {
	samples(t, func(t *testing.T, p *Program, dir string) {
		b, err := os.ReadFile(filepath.Join(dir, "listing.json"))
		if err != nil {
			t.Fatal(err)
		}
		var want struct {
			Functions []function
			Version   uint64 `json:"asset_version"`
			Resources int
		}
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		var got []function
		for _, g := range p.Graphs {
			f := function{Name: g.Name, Private: g.Private, Composite: g.Composite}
			f.Inputs = ports(g.Inputs, func(a Arg) bool { return a.State == "" })
			if s := ports(g.Inputs, func(a Arg) bool { return a.State != "" }); len(s) > 0 {
				f.States = s
			}
			f.Outputs = ports(g.Outputs, func(a Arg) bool { return a.Type.Kind == Tensor })
			_ = g.Body.Walk(func(*Op) error { f.Ops++; return nil })
			got = append(got, f)
		}
		if d := cmp.Diff(want.Functions, got); d != "" {
			t.Errorf("functions (-listing +decoded):\n%s", d)
		}
		if p.AssetVersion != want.Version || len(p.Resources) != want.Resources {
			t.Errorf("asset version %d, %d resources; want %d, %d", p.AssetVersion, len(p.Resources), want.Version, want.Resources)
		}
	})
}
