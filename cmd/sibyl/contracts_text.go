package main

import (
	"fmt"
	"io"
	"strings"

	"sibyl/precision"
)

// write prints what each contract is, then the settings in groups: a row each, a column a contract.
func (t *contractTable) write(w io.Writer) error {
	if err := t.writeMeanings(w); err != nil {
		return err
	}
	heads := t.heads()
	rows := make([][]string, 0, len(t.rows)+len(heads[0]))
	for line := range heads[0] {
		row := []string{""}
		for _, h := range heads {
			row = append(row, h[line])
		}
		rows = append(rows, row)
	}
	group := ""
	for _, s := range t.rows {
		if s.Group != group {
			group = s.Group
			rows = append(rows, []string{""}, []string{group})
		}
		row := []string{"  " + s.Name}
		for _, c := range t.columns {
			row = append(row, cell(s.Value(c)))
		}
		rows = append(rows, append(row, s.Meaning))
	}
	if len(t.rows) == 0 {
		_, err := fmt.Fprintln(w, "No setting differs.")
		return err
	}
	if err := narrowTable(w, rows); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, "\n.  F32, not rounded further; of a form: no\n")
	return err
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
