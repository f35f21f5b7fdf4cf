package oracle

import (
	"fmt"
	"math"
	"path"

	"sibyl/internal/inputerr"
	"sibyl/internal/strictyaml"
	"sibyl/trace"
)

// Tolerances is a file of bounds per tap, for `sibyl diff --tol`:
//
//	rules:
//	  - taps: "layer*.out"       # a glob over tap names: * any run, ? one character, [0-3] a class
//	    max_scaled: 1e-4         # |d| <= 1e-4 * max(1, largest |ref|)
//	  - taps: logits
//	    max_abs: 2e-4            # |d| <= 2e-4
//	    rms: 1e-5                # rms of d
//	    cosine: 0.99999          # at least
//	  - taps: "*.moe.topk_index"
//	    mismatches: 0            # elements that differ, for taps of integers
//
// Every rule that matches a tensor binds it; a tensor that no rule matches is not judged, and the result says so.
type Tolerances struct {
	File  string    `yaml:"-"`
	Rules []TolRule `yaml:"rules"`
}

// TolRule is one rule. Bounds are in the tap's own unit, except max_scaled and rel, which are ratios; nil is no bound.
type TolRule struct {
	Taps       string   `yaml:"taps"`
	MaxAbs     *float64 `yaml:"max_abs"`    // largest |d|
	MaxScaled  *float64 `yaml:"max_scaled"` // largest |d| over max(1, largest |ref|): TensorStats.LeastTolerance
	RMS        *float64 `yaml:"rms"`        // rms of d
	Rel        *float64 `yaml:"rel"`        // rms of d over rms of ref
	Cosine     *float64 `yaml:"cosine"`     // at least this
	Mismatches *int     `yaml:"mismatches"` // integers that differ
}

// maxTolRules bounds the rules: real files have a dozen.
const maxTolRules = 500

// ReadTolerances reads a file of bounds. Unknown and doubled keys, malformed globs, empty rules and bounds that are
// not finite or below 0 give an *inputerr.Error.
func ReadTolerances(file string) (*Tolerances, error) {
	t := &Tolerances{File: file}
	if err := strictyaml.Read(file, "tolerances", t); err != nil {
		return nil, err
	}
	return t, t.check()
}

// ParseTolerances reads the text b of a file of bounds; file is for messages.
func ParseTolerances(file string, b []byte) (*Tolerances, error) {
	t := &Tolerances{File: file}
	if err := strictyaml.Parse(file, "tolerances", b, t); err != nil {
		return nil, err
	}
	return t, t.check()
}

func (t *Tolerances) check() error {
	if len(t.Rules) == 0 || len(t.Rules) > maxTolRules {
		return &inputerr.Error{File: t.File, Field: "rules", Found: fmt.Sprintf("%d rules", len(t.Rules)),
			Want: fmt.Sprintf("1 to %d", maxTolRules), Do: "begin with: rules: [{taps: logits, max_abs: 1e-3}]"}
	}
	for i := range t.Rules {
		if err := t.Rules[i].check(t.File, i); err != nil {
			return err
		}
	}
	return nil
}

// bounds lists a rule's bounds on taps of numbers: value, bound (nil: none), and the text between them.
func (r *TolRule) bounds(s *TensorStats) []bound {
	return []bound{
		{"max_abs", float64(s.MaxAbs), r.MaxAbs, "<="},
		{"max_scaled", float64(s.LeastTolerance), r.MaxScaled, "<="},
		{"rms", float64(s.RMSDiff), r.RMS, "<="},
		{"rel", float64(s.RelError), r.Rel, "<="},
		{"cosine", float64(s.Cosine), r.Cosine, ">="},
	}
}

type bound struct {
	what  string
	value float64
	limit *float64
	op    string
}

func (r *TolRule) check(file string, i int) error {
	bad := func(field, found, want string) error {
		return &inputerr.Error{File: file, Field: fmt.Sprintf("rules[%d].%s", i, field), Found: found, Want: want, Do: "correct the rule"}
	}
	if _, err := path.Match(r.Taps, "x"); err != nil || r.Taps == "" {
		return bad("taps", inputerr.Clip(r.Taps, 80), "a glob over tap names")
	}
	some := r.Mismatches != nil
	if some && *r.Mismatches < 0 {
		return bad("mismatches", fmt.Sprint(*r.Mismatches), "a count, at least 0")
	}
	for _, b := range r.bounds(&TensorStats{}) {
		if b.limit == nil {
			continue
		}
		some = true
		if b.what == "cosine" && !(*b.limit >= -1 && *b.limit <= 1) {
			return bad(b.what, fmt.Sprint(*b.limit), "a number from -1 to 1")
		}
		if b.what != "cosine" && !(*b.limit >= 0 && *b.limit < math.Inf(1)) {
			return bad(b.what, fmt.Sprint(*b.limit), "a finite number, at least 0")
		}
	}
	if !some {
		return bad("taps", inputerr.Clip(r.Taps, 80)+" without a bound", "at least one of max_abs, max_scaled, rms, rel, cosine, mismatches")
	}
	return nil
}

// TolResult is what the tolerances say of a diff.
type TolResult struct {
	File     string     `json:"file"`
	Judged   int        `json:"judged"`   // tensors that a rule bound
	Unjudged []string   `json:"unjudged"` // tensors that no rule bound
	Exceeded []Exceeded `json:"exceeded"` // in the order of the math, then of the rules
}

// Exceeded is one bound that a tensor did not keep.
type Exceeded struct {
	Name  string `json:"name"`
	Rule  int    `json:"rule"`  // index in the file
	Bound string `json:"bound"` // "max_abs", ...
	Value Number `json:"value"` // null if there is none because of a non-finite mismatch
	Limit Number `json:"limit"`
}

// Judge holds tensors to the rules. A rule that binds none of them is an error: it is a spelling mistake more often
// than not, and a gate that checks nothing must not pass. For the same reason a tensor without an element that is a number on
// both sides exceeds every bound, as one with a non-finite mismatch does.
func (t *Tolerances) Judge(tensors []TensorStats) (*TolResult, error) {
	out := &TolResult{File: t.File, Unjudged: []string{}, Exceeded: []Exceeded{}}
	used := make([]bool, len(t.Rules))
	for i := range tensors {
		s := &tensors[i]
		judged := false
		for k := range t.Rules {
			r := &t.Rules[k]
			if ok, _ := path.Match(r.Taps, s.Name); !ok { // the glob was checked when it was read
				continue
			}
			if over, bound := r.judge(s, k); bound {
				judged, used[k] = true, true
				out.Exceeded = append(out.Exceeded, over...)
			}
		}
		if judged {
			out.Judged++
		} else {
			out.Unjudged = append(out.Unjudged, s.Name)
		}
	}
	for k, ok := range used {
		if !ok {
			return nil, &inputerr.Error{File: t.File, Field: fmt.Sprintf("rules[%d].taps", k), Found: inputerr.Clip(t.Rules[k].Taps, 80) + ", which binds no compared tensor",
				Want: "a rule that matches one with a bound of its kind", Do: "`sibyl taps` lists the names; integers (topk_index, input_ids, greedy.ids) take mismatches, all others the rest"}
		}
	}
	return out, nil
}

// judge gives the bounds that s exceeds, and whether the rule has any for its kind.
func (r *TolRule) judge(s *TensorStats, k int) (over []Exceeded, bound bool) {
	if s.DType == trace.I32 {
		if r.Mismatches == nil {
			return nil, false
		}
		if s.Differ > *r.Mismatches {
			over = append(over, Exceeded{s.Name, k, "mismatches", Number(s.Differ), Number(*r.Mismatches)})
		}
		return over, true
	}
	for _, b := range r.bounds(s) {
		if b.limit == nil {
			continue
		}
		bound = true
		// NaN (no cosine, no relative error: a side is all zeros) fails like any other value that is not within.
		kept := b.value <= *b.limit
		if b.op == ">=" {
			kept = b.value >= *b.limit
		}
		if s.NonFinite.Mismatched > 0 || s.NonFinite.any() && !s.numbers() {
			kept, b.value = false, math.NaN()
		}
		if !kept {
			over = append(over, Exceeded{s.Name, k, b.what, Number(b.value), Number(*b.limit)})
		}
	}
	return over, bound
}
