package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/quant"
)

// writeSchemes prints what each scheme is, then how it keeps each part of a model, then what the formats are.
func writeSchemes(w io.Writer, list []*quant.Scheme) error {
	meanings, parts := [][]string{}, [][]string{{"scheme", "body", "B/weight", "head", "B/weight", "embedding", "B/weight", "rest"}}
	var used []quant.Spec
	use := func(s quant.Spec) (string, string) {
		if !slices.Contains(used, s) {
			used = append(used, s)
		}
		return specName(s), perWeight(s)
	}
	for _, s := range list {
		if s.File != "" {
			continue
		}
		meanings = append(meanings, []string{s.Name, s.Meaning})
		row := []string{s.Name}
		for _, spec := range []quant.Spec{s.Body, s.Head, s.Embed} {
			name, bytes := use(spec)
			row = append(row, name, bytes)
		}
		rest, _ := use(s.Rest)
		parts = append(parts, append(row, rest))
	}
	if len(meanings) > 0 {
		if err := tables(w, []string{"", "llrlrlrl", ""}, meanings, parts, partMeanings); err != nil {
			return err
		}
	}
	for i, s := range list {
		if s.File == "" {
			continue
		}
		if i > 0 || len(meanings) > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		if err := writeRecipe(w, s, use); err != nil {
			return err
		}
	}
	return writeFormats(w, used)
}

// writeFormats prints the arithmetic of the quantized ones of specs.
func writeFormats(w io.Writer, specs []quant.Spec) error {
	rows := [][]string{{"format", "blocks", "scale, 2^-23 at least", "q", "reads as"}}
	for _, s := range specs {
		if s.Format.Quantized() {
			f := s.Formula()
			rows = append(rows, []string{specName(s), fmt.Sprintf("%d, %s", s.Block, [2]string{"output", "input"}[s.Axis]), f.Scale, f.Q, f.Reads})
		}
	}
	if len(rows) == 1 {
		return nil
	}
	if err := tables(w, []string{"", ""}, nil, rows); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, "\nR16, B: rounded to fp16, bf16, as w itself is first; round: to the nearest, ties to even\n")
	return err
}

// partMeanings says what the columns hold.
var partMeanings = [][]string{
	{"body", "projections of mixers and MLPs, routed and shared experts"},
	{"head", "lm_head; where a tied head is kept unlike the embedding it becomes a copy of its own"},
	{"rest", "norms, conv1d, A_log, dt_bias, router, shared_expert_gate: never quantized"},
	{"B/weight", "bytes, with the weight's share of scale and minval"},
}

// writeRecipe prints a recipe's rules, a line each pattern.
func writeRecipe(w io.Writer, s *quant.Scheme, use func(quant.Spec) (string, string)) error {
	if _, err := fmt.Fprintf(w, "%s  a recipe (%s, sha256 %.12s): the first rule that matches decides\n\n", s.Name, s.File, s.SHA256); err != nil {
		return err
	}
	rows := [][]string{{"rule", "kept as", "B/weight", "match"}}
	for i, r := range s.Rules() {
		name, bytes := use(r.Spec)
		rows = append(rows, []string{strconv.Itoa(i), name, bytes, printable(r.Match[0])})
		for _, p := range r.Match[1:] {
			rows = append(rows, []string{"", "", "", printable(p)})
		}
	}
	name, bytes := use(s.Rest)
	return tables(w, []string{"llrl"}, append(rows, []string{"rest", name, bytes, "what no rule matches"}))
}

// printable is text from a file as it is written, quoted if it is not for a terminal, cut where nobody reads on.
func printable(p string) string {
	if len(p) <= 70 && !strings.ContainsFunc(p, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return p
	}
	return inputerr.Clip(p, 70)
}

// specName is a spec without its blocks: "int8 clipping".
func specName(s quant.Spec) string { return strings.TrimSpace(s.Format.String() + " " + s.Mode()) }

// perWeight is the bytes of a weight, "-" where the file decides.
func perWeight(s quant.Spec) string {
	if s.Format == quant.Stored {
		return "-"
	}
	return strconv.FormatFloat(s.BytesPerWeight(), 'f', -1, 64)
}

// tables prints tables with an empty line between them.
func tables(w io.Writer, right []string, list ...[][]string) error {
	for i, rows := range list {
		if i > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		if err := table(w, right[i], rows); err != nil {
			return err
		}
	}
	return nil
}
