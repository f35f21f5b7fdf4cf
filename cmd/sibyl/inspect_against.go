package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"sibyl/bundle"
	"sibyl/internal/against"
	"sibyl/internal/inputerr"
)

// againstInfo is a bundle beside the checkpoint it was made from.
type againstInfo struct {
	Checkpoint   string         `json:"checkpoint"`
	ConfigSHA256 string         `json:"config_sha256"`
	Weights      int            `json:"weights"`
	Equal        int            `json:"equal"`    // by bytes and dataflow, or the formula; the exporter's fault apart
	ByBytes      int            `json:"by_bytes"` // of those that the dataflow does not name
	Differ       int            `json:"differ"`
	NotCompared  int            `json:"not_compared"` // of schemes that sibyl does not quantize with
	Unnamed      int            `json:"unnamed"`
	Matches      []matchInfo    `json:"matches"`
	Faults       []faultInfo    `json:"exporter_faults"`
	Missing      []string       `json:"missing"` // tensors that no weight of main was made of
	Forms        map[string]int `json:"forms"`   // weights by how they were quantized or folded
}

// matchInfo is a weight and the tensors it was made of.
type matchInfo struct {
	Function string      `json:"function"`
	Weight   string      `json:"weight"`
	How      string      `json:"named_by"`
	Equal    bool        `json:"equal"`
	Parts    []partMatch `json:"parts"`
}

// partMatch is a tensor in a weight, and what differs.
type partMatch struct {
	Tensor   string  `json:"tensor"`
	StoredAs string  `json:"stored_as"`
	Elements int64   `json:"elements"`
	Q        int64   `json:"q_differ,omitempty"`
	Scales   int64   `json:"scales_differ,omitempty"`
	Mins     int64   `json:"minvals_differ,omitempty"`
	Values   int64   `json:"values_differ,omitempty"`
	First    *int64  `json:"first,omitempty"` // the first element that differs
	MaxAbs   float64 `json:"max_abs,omitempty"`
	RMS      float64 `json:"rms,omitempty"`
	BytesOf  string  `json:"bytes_of,omitempty"`
	Faults   []int64 `json:"exporter_faults,omitempty"`
}

// faultInfo are elements that the exporter folded wrongly.
type faultInfo struct {
	Tensor   string  `json:"tensor"`
	Elements []int64 `json:"elements"`
}

// demoName stands for the demo model where an empty name would say nothing.
const demoName = "demo"

// against compares every public function with the checkpoint.
func (r *bundleInspection) against(ctx context.Context, a *App, model string) (err error) {
	if model == demoName && !pathExists(model) {
		model = ""
	}
	ck, err := bundle.Open(model)
	if err != nil {
		return err
	}
	defer closing(ck, &err)
	info := &againstInfo{Checkpoint: ck.Name(), ConfigSHA256: ck.ConfigSHA256(), Matches: []matchInfo{}, Faults: []faultInfo{}, Missing: []string{}, Forms: map[string]int{}}
	faults := map[string]bool{}
	for _, f := range r.Functions {
		if f.Private {
			continue
		}
		report, err := against.Compare(ctx, r.listing, ck, against.Options{Function: f.Name, Threads: a.Threads, Progress: a.Progress("comparing " + f.Name)})
		if err != nil {
			return err
		}
		for _, m := range report.Matches {
			info.add(m, faults)
		}
		if f.Name == "main" {
			info.Missing = append(info.Missing, report.Missing...)
		}
	}
	r.Against = info
	for _, name := range info.Missing {
		r.Findings = append(r.Findings, printable(name)+" of the checkpoint is in no weight of main")
	}
	return nil
}

func (info *againstInfo) add(m against.Match, faults map[string]bool) {
	out := matchInfo{Function: m.Weight.Function, Weight: m.Weight.Name(), How: m.How.String(), Equal: m.Equal(), Parts: []partMatch{}}
	for _, p := range m.Parts {
		x := partMatch{Tensor: p.Name, StoredAs: p.Spec, Elements: p.Elements, Q: p.Diff.Q, Scales: p.Diff.Scales, Mins: p.Diff.Mins, Values: p.Diff.Values,
			MaxAbs: p.Diff.MaxAbs, RMS: p.Diff.RMS, BytesOf: p.BytesOf, Faults: p.Fault}
		if p.Diff.First >= 0 {
			x.First = &p.Diff.First
		}
		out.Parts = append(out.Parts, x)
		if len(p.Fault) > 0 && !faults[p.Name] {
			faults[p.Name] = true
			info.Faults = append(info.Faults, faultInfo{p.Name, p.Fault})
		}
		info.Forms[p.Spec]++
	}
	info.Weights++
	switch {
	case m.Equal():
		info.Equal++
	case m.How == against.Bytes:
		info.ByBytes++
	case m.How == against.Place:
		info.NotCompared++
	case m.How == against.Dataflow:
		info.Differ++
	default:
		info.Unnamed++
	}
	info.Matches = append(info.Matches, out)
}

// render prints the comparison for people.
func (info *againstInfo) render(w io.Writer) error {
	rows := [][]string{{"against", printable(info.Checkpoint) + ", config sha256 " + info.ConfigSHA256},
		{"equal", fmt.Sprintf("%d of %s: the bytes are those of the tensor that their place in the graph names", info.Equal, plural(info.Weights, "weight", "weights"))}}
	if info.ByBytes > 0 {
		rows = append(rows, []string{"by bytes", fmt.Sprintf("%d whose bytes are a tensor's and whose place says nothing", info.ByBytes)})
	}
	if info.Unnamed > 0 {
		rows = append(rows, []string{"unnamed", fmt.Sprintf("%d with no tensor's bytes and no known place", info.Unnamed)})
	}
	if info.NotCompared > 0 {
		rows = append(rows, []string{"not compared", fmt.Sprintf("%d in a scheme that sibyl does not quantize with; their places name them", info.NotCompared)})
	}
	rows = append(rows, []string{"differ", fmt.Sprint(info.Differ)})
	for _, f := range info.Faults {
		at := strings.Trim(strings.ReplaceAll(fmt.Sprint(f.Elements), " ", ", "), "[]")
		rows = append(rows, []string{"exporter", fmt.Sprintf("%s: %s (%s) of fp16-subnormal w folded as almost 0, a fault of its constant folder", printable(f.Tensor),
			plural(len(f.Elements), "element", "elements"), at)})
	}
	fmt.Fprintln(w)
	if err := table(w, "", rows); err != nil || info.Differ == 0 {
		return err
	}
	lines := [][]string{{"differs", "function", "stored as", "q", "scales", "minvals", "values", "of", "max abs", "rms", "from element", "has the bytes of"}}
	for _, m := range info.Matches {
		for _, p := range m.Parts {
			if m.Equal || p.First == nil {
				continue
			}
			lines = append(lines, []string{printable(p.Tensor), printable(m.Function), p.StoredAs, fmt.Sprint(p.Q), fmt.Sprint(p.Scales), fmt.Sprint(p.Mins), fmt.Sprint(p.Values), countText(p.Elements),
				fmt.Sprintf("%.3g", p.MaxAbs), fmt.Sprintf("%.3g", p.RMS), fmt.Sprint(*p.First), printable(p.BytesOf)})
		}
	}
	fmt.Fprintln(w)
	return table(w, "lllrrrrrrrrl", lines)
}

// checkAgainst refuses --against where there is nothing to hold against a checkpoint.
func (v *Inspect) checkAgainst() error {
	if v.Against == "" {
		return nil
	}
	return &inputerr.Error{File: "--against", Found: "a MODEL that is no bundle", Want: "a LanguageBundle or .aimodel", Do: "checkpoints are compared by their hashes: sibyl inspect --hash"}
}
