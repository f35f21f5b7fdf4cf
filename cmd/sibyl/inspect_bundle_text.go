package main

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var layerNumber = regexp.MustCompile(`layers\.\d+\.`)

// render writes the inspection for people.
func (r *bundleInspection) render(w io.Writer, every, hashes bool) error {
	if err := table(w, "", r.head1()); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := r.renderFunctions(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	rows := [][]string{{"group", "stored", "share", "per token", "share"}}
	for _, g := range r.Groups {
		rows = append(rows, []string{g.Name, bytesText(g.Bytes), percent(g.Bytes, r.Bytes), bytesText(g.PerToken), percent(g.PerToken, r.BytesPerToken)})
	}
	if err := table(w, "lrrrr", rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := r.renderWeights(w, every, hashes); err != nil {
		return err
	}
	if r.Against != nil {
		if err := r.Against.render(w); err != nil {
			return err
		}
	}
	return r.renderNotes(w)
}

func percent(n, of int64) string {
	return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(max(1, of)))
}

// head1 is the block of names and sizes at the top.
func (r *bundleInspection) head1() [][]string {
	profile := "none that sibyl knows"
	if r.Profile != "" {
		profile = r.Profile + ", contract " + r.Contract
		if r.Contract == "" {
			profile = r.Profile + " in another dtype: no contract describes it"
		}
	}
	as := &r.Asset
	rows := [][]string{{"name", r.Name}, {"kind", r.Kind}, {"profile", profile}}
	if l := r.Language; l != nil {
		rows = append(rows, []string{"metadata", fmt.Sprintf("%s; vocabulary %s, up to %s positions; tokenizer of %s; compression %s", printable(l.Name), countText(int64(l.Vocab)),
			countText(int64(l.MaxContext)), printable(l.Tokenizer), orNone(l.Compression))})
	}
	rows = append(rows, []string{"asset", fmt.Sprintf("%s, made by %s on %s", printable(as.Name), orNone(as.Producer), orNone(as.Created))})
	if as.Bytes > 0 {
		rows = append(rows, []string{"program", fmt.Sprintf("%s; bytecode %d of %s, aicode %s, format %d; %s", bytesText(as.Bytes), as.Bytecode, printable(as.Writer), as.Dialect, as.Format,
			plural(as.Resources, "resource", "resources"))})
	}
	hash := map[string]string{hashMatches: as.SHA256 + ", matches", hashDiffers: "DIFFERS: see below", hashUnread: "not compared (--hash does)"}[r.MainHash]
	rows = append(rows, []string{"main.hash", hash})
	if len(as.Compiled) > 0 {
		rows = append(rows, []string{"compiled", strings.Join(as.Compiled, ", ") + ": described, never executed"})
	}
	if r.totals != nil {
		rows = append(rows, []string{"parameters", fmt.Sprintf("%s, %s as stored; %d quantized weights, %d others", countText(r.Parameters), bytesText(r.Bytes), r.totals.Quantized, r.totals.Plain)},
			[]string{"per token", bytesText(r.BytesPerToken) + " of weights"})
	}
	return rows
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return printable(s)
}

// renderFunctions is the tree of functions: inputs, states, outputs; composites in one line.
func (r *bundleInspection) renderFunctions(w io.Writer) error {
	var rows [][]string
	composites := map[string]int{}
	for _, f := range r.Functions {
		if f.Private {
			composites[f.Composite]++
			continue
		}
		rows = append(rows, []string{"function " + printable(f.Name), "", fmt.Sprintf("%s ops", countText(int64(f.Ops)))})
		for _, list := range []struct {
			what  string
			ports []portInfo
		}{{"input", f.Inputs}, {"state", f.States}, {"output", f.Outputs}} {
			for _, p := range list.ports {
				rows = append(rows, []string{"  " + list.what, printable(p.Name), p.DType + dimsText(p.Shape)})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(composites)) {
		rows = append(rows, []string{"composite", orNone(name), plural(composites[name], "shape", "shapes")})
	}
	return table(w, "lll", rows)
}

// dimsText prints a shape, "?" for a dynamic dimension.
func dimsText(dims []int64) string {
	s := make([]string, len(dims))
	for i, d := range dims {
		if s[i] = strconv.FormatInt(d, 10); d < 0 {
			s[i] = "?"
		}
	}
	return "[" + strings.Join(s, ", ") + "]"
}

// renderWeights lists main's weights, or folds those of one role; other functions are listed where they have their own.
func (r *bundleInspection) renderWeights(w io.Writer, every, hashes bool) error {
	head := []string{"weight", "count", "scheme", "shape", "scales", "q", "bytes", "of a token"}
	if every && hashes {
		head = append(head, "sha256 of q and scales, or of the bytes")
	}
	rows := [][]string{head}
	type line struct {
		row             []string
		count           int
		lo, hi          int64
		ranged          bool
		bytes, perToken int64
	}
	index, lines := map[string]*line{}, []*line{}
	for _, x := range r.Weights {
		if x.Function != "main" {
			continue
		}
		name := x.Name
		if name == "" {
			name = x.Use + " (" + x.Chain + ")"
		}
		if !every {
			name = layerNumber.ReplaceAllString(name, "")
		}
		data := x.Constants[0]
		key := fmt.Sprint(name, x.Scheme, x.Block, data.Shape)
		if every {
			key += strconv.FormatInt(data.Offset, 10) + x.Chain
		}
		l := index[key]
		if l == nil {
			l = &line{row: []string{printable(name), "", x.Scheme, dimsText(data.Shape), scalesText(x.Block, data.Shape), "", "", ""}}
			if every && hashes {
				l.row = append(l.row, sumOf(x))
			}
			index[key], lines = l, append(lines, l)
		}
		if x.QMin != nil {
			if !l.ranged {
				l.lo, l.hi, l.ranged = *x.QMin, *x.QMax, true
			}
			l.lo, l.hi = min(l.lo, *x.QMin), max(l.hi, *x.QMax)
		}
		l.count++
		l.bytes += x.Bytes
		l.perToken += x.PerToken
	}
	for _, l := range lines {
		l.row[1], l.row[6], l.row[7] = strconv.Itoa(l.count), bytesText(l.bytes), percent(l.perToken, r.BytesPerToken)
		if l.ranged {
			l.row[5] = fmt.Sprintf("%d..%d", l.lo, l.hi)
		}
		rows = append(rows, l.row)
	}
	return table(w, "lrllllrrl", rows)
}

// sumOf is the one hash that tells a weight.
func sumOf(x weightInfo) string {
	if x.QThenScale != "" {
		return x.QThenScale
	}
	return x.Constants[0].SHA256
}

// renderParts is all there is of a bundle whose program is not known.
func (r *bundleInspection) renderParts(w io.Writer) error {
	if err := table(w, "", r.head1()); err != nil {
		return err
	}
	rows := [][]string{{"resource", "byte", "alignment", "bytes"}}
	for _, x := range r.Resources {
		rows = append(rows, []string{printable(x.Key), strconv.FormatInt(x.Offset, 10), strconv.FormatInt(x.Align, 10), strconv.Itoa(x.Bytes)})
	}
	fmt.Fprintln(w)
	if len(rows) > 1 {
		return table(w, "lrrr", rows)
	}
	return nil
}

func (r *bundleInspection) renderNotes(w io.Writer) error {
	var b strings.Builder
	b.WriteByte('\n')
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "note: %s\n", f)
	}
	switch {
	case !r.read:
		fmt.Fprintf(&b, "only listed: ranges of q, NaN and Inf are in the bytes, of which there are %s (--hash reads them)\n", bytesText(r.Asset.Bytes))
	case !r.notFinite():
		b.WriteString("no NaN or Inf in the scales and in the weights that are not quantized\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
