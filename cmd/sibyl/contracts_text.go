package main

import (
	"fmt"
	"io"
	"strings"

	"sibyl/precision"
)

// tableWidth is how wide contracts side by side may be; the columns that do not fit come in a table below.
const tableWidth = 120

// write prints what each contract is, then the settings in groups: a row each, a column a contract.
func (t *contractTable) write(w io.Writer) error {
	if err := t.writeMeanings(w); err != nil {
		return err
	}
	if len(t.rows) == 0 {
		_, err := fmt.Fprintln(w, "No setting differs.")
		return err
	}
	heads := t.heads()
	for lo := 0; lo < len(t.columns); {
		hi := t.fitting(heads, lo)
		if err := narrowTable(w, t.cells(heads, lo, hi)); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		lo = hi
	}
	_, err := fmt.Fprint(w, ".  F32, not rounded further; of a form: no\n")
	return err
}

// cells is the table of columns lo..hi-1, their heads above it.
func (t *contractTable) cells(heads [][]string, lo, hi int) (rows [][]string) {
	for line := range heads[0] {
		row := []string{""}
		for _, h := range heads[lo:hi] {
			row = append(row, h[line])
		}
		if strings.Join(row, "") != "" { // the names here may be shorter than those elsewhere
			rows = append(rows, row)
		}
	}
	group := ""
	for _, s := range t.rows {
		if s.Group != group {
			group = s.Group
			rows = append(rows, []string{""}, []string{group})
		}
		row := []string{"  " + s.Name}
		for _, c := range t.columns[lo:hi] {
			row = append(row, cell(s.Value(c)))
		}
		rows = append(rows, append(row, s.Meaning))
	}
	return rows
}

// fitting is the end of the columns from lo on that fit beside each other, at least one.
func (t *contractTable) fitting(heads [][]string, lo int) (hi int) {
	names, meanings := 0, 0
	for _, s := range t.rows {
		names, meanings = max(names, len("  "+s.Name)), max(meanings, len(s.Meaning))
	}
	left := tableWidth - names - 1 - meanings
	for hi = lo; hi < len(t.columns); hi++ {
		width := 0
		for _, h := range heads[hi] {
			width = max(width, len(h))
		}
		for _, s := range t.rows {
			width = max(width, len(cell(s.Value(t.columns[hi]))))
		}
		if left -= width + 1; left < 0 && hi > lo {
			break
		}
	}
	return hi
}

// writeMeanings lists the contracts, and the rules of those from files.
func (t *contractTable) writeMeanings(w io.Writer) error {
	var rows [][]string
	for _, c := range t.list {
		meaning := c.Contract.Meaning
		if c.File != "" {
			meaning = strings.TrimPrefix(fmt.Sprintf("%s (%s, from %s, sha256 %.12s)", meaning, "based on "+c.Base, c.File, c.Digest()), " ")
		}
		rows = append(rows, []string{c.Contract.Name, meaning})
		for _, r := range c.At {
			where := "everywhere"
			if len(r.Layers) > 0 {
				where = "layers " + strings.Join(r.Layers, ",")
			}
			if len(r.Modules) > 0 {
				where += ", modules " + strings.Join(r.Modules, ", ")
			}
			rows = append(rows, []string{r.Contract.Name, where})
		}
	}
	if err := table(w, "", rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// heads gives each column's name in lines, cut at its dashes: side by side, whole names would fill the width.
func (t *contractTable) heads() [][]string {
	var heads [][]string
	tallest := 1
	for _, c := range t.columns {
		h := strings.FieldsFunc(c.Name, func(r rune) bool { return r == '-' || r == ' ' })
		heads, tallest = append(heads, h), max(tallest, len(h))
	}
	for i := range heads {
		for len(heads[i]) < tallest {
			heads[i] = append(heads[i], "")
		}
	}
	return heads
}

// cell is a value in few characters.
func cell(v any) string {
	switch v := v.(type) {
	case precision.Round:
		if v == precision.F32 {
			return "."
		}
		return v.String()
	case bool:
		if v {
			return "yes"
		}
		return "."
	case float32:
		// The only number there is, an eps: 1e-6 itself, or held in a narrower type.
		for _, r := range []precision.Round{precision.F16, precision.BF16} {
			if v == r.Value(1e-6) {
				return r.String()
			}
		}
		return strings.Replace(fmt.Sprintf("%.3g", v), "e-0", "e-", 1)
	}
	return fmt.Sprint(v)
}

// narrowTable is table with one blank between columns; a row of one cell is a heading and widens nothing.
func narrowTable(w io.Writer, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i, text := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if len(row) > 1 {
				widths[i] = max(widths[i], len(text))
			}
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, text := range row {
			fmt.Fprintf(&line, "%-*s ", widths[i], text)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
