package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"sibyl/quant"
)

// writeQuantized prints what quantizing did, or would do.
func writeQuantized(w io.Writer, r *quant.Report, s *quant.Scheme, everyTensor bool) error {
	written := "nothing: a dry run"
	if r.Dir != "" {
		written = fmt.Sprintf("%s, %d files", r.Dir, len(r.Files))
	}
	scheme := s.Name + ": " + s.Meaning
	if s.File != "" {
		scheme = fmt.Sprintf("%s: a recipe (%s, sha256 %.12s)", s.Name, s.File, s.SHA256)
	}
	head := [][]string{
		{"model", r.Model}, {"scheme", scheme},
		{"weights", fmt.Sprintf("%s to %s (%.1f %%)", bytesText(r.SourceBytes), bytesText(r.Bytes), 100*float64(r.Bytes)/float64(max(1, r.SourceBytes)))},
		{"written", written},
	}
	if r.UntiedHead {
		head = append(head, []string{"head", "a copy of its own, untied from the embedding"})
	}
	groups := [][]string{{"group", "tensors", "weights", "source", "written", "B/weight", "SNR dB", "median", "cosine"}}
	worst := [][]string{{"worst block of", "SNR dB", "abs max", "first weight"}}
	for _, g := range r.Groups {
		groups = append(groups, []string{g.Name, countText(int64(g.Tensors)), countText(int64(g.Weights)), bytesText(g.SourceBytes), bytesText(g.Bytes),
			fmt.Sprintf("%.4f", float64(g.Bytes)/float64(max(1, g.Weights))), snrText(g.SNR), snrText(g.MedianSNR), cosineText(g.Cosine)})
		if b := g.Worst; b != nil {
			worst = append(worst, []string{g.Name, snrText(b.SNR), fmt.Sprintf("%.3g", float64(b.AbsMax)), blockText(r, b)})
		}
	}
	list := [][][]string{head, groups}
	if len(worst) > 1 {
		list = append(list, worst)
	}
	if everyTensor {
		list = append(list, quantizedTensors(r))
	}
	if err := tables(w, []string{"", "lrrrrrrrr", "lrr", "llrrr"}, list...); err != nil {
		return err
	}
	return writeQuantizeNotes(w, r)
}

// blockText is where a block begins; rows of packed experts are counted from the expert's first.
func blockText(r *quant.Report, b *quant.Block) string {
	text, row := b.Tensor, b.Row
	for i := range r.Tensors {
		if shape := r.Tensors[i].Shape; r.Tensors[i].Name == b.Tensor && len(shape) == 3 {
			text += fmt.Sprintf(", expert %d", row/shape[1])
			row %= shape[1]
		}
	}
	return fmt.Sprintf("%s, row %d, column %d", text, row, b.Column)
}

// quantizedTensors is a line for each tensor.
func quantizedTensors(r *quant.Report) [][]string {
	rows := [][]string{{"tensor", "kept as", "written", "SNR dB", "cosine", "sha256 of q and scales"}}
	for i := range r.Tensors {
		t := &r.Tensors[i]
		rows = append(rows, []string{t.Name, t.Spec, bytesText(t.Bytes), snrText(t.SNR), cosineText(t.Cosine), t.SHA256})
	}
	return rows
}

// shownNotes is how many notes are printed; --json has all.
const shownNotes = 10

// writeQuantizeNotes ends with what deserves a look: weights that overflow first.
func writeQuantizeNotes(w io.Writer, r *quant.Report) error {
	var lines []string
	for _, n := range r.Warnings {
		lines = append(lines, "warning: "+n.String())
	}
	for _, n := range r.Notes[:min(shownNotes, len(r.Notes))] {
		lines = append(lines, "note: "+n.String())
	}
	if more := len(r.Notes) - shownNotes; more > 0 {
		lines = append(lines, fmt.Sprintf("note: and %d more tensors like these; --json lists them", more))
	}
	if r.LeftOut > 0 {
		lines = append(lines, fmt.Sprintf("note: %d tensors that the text model does not use are left out", r.LeftOut))
	}
	if len(lines) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.Join(lines, "\n"))
	return err
}

// snrText is a ratio in dB; "same" where nothing was changed.
func snrText(f quant.Figure) string {
	if math.IsInf(float64(f), 1) {
		return "same"
	}
	return fmt.Sprintf("%.1f", float64(f))
}

// cosineText is "1" where nothing was changed, else eight digits.
func cosineText(f quant.Figure) string {
	if f == 1 {
		return "1"
	}
	return strconv.FormatFloat(float64(f), 'f', 8, 64)
}
