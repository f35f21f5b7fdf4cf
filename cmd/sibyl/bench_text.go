package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sibyl/internal/bench"
)

// renderBench writes r as text for people, Markdown, CSV, or a line of JSON a row.
func renderBench(w io.Writer, r *bench.Result, format string) error {
	switch format {
	case "csv":
		return benchCSV(w, r)
	case "jsonl":
		return benchLines(w, r)
	}
	fmt.Fprintf(w, "%s\n%s, %s; reads %.1f GB/s%s\n", r.Subject, r.Machine, plural(r.Threads, "thread", "threads"), r.Limits.Read/1e9, fmaText(r))
	fmt.Fprintf(w, "opened in %s (%s to %s); decoding reads %s a token\n\n", secondsText(bench.Median(r.Load)), secondsText(slices.Min(r.Load)), secondsText(slices.Max(r.Load)), bytesText(r.Work.Bytes))
	rows := append([][]string{benchColumns}, benchCells(r)...)
	write := func(rows [][]string, right string) error { return table(w, right, rows) }
	if format == "md" {
		write = func(rows [][]string, _ string) error { return markdown(w, rows) }
	}
	if err := write(rows, "lrrrrrrrrrr"); err != nil {
		return err
	}
	if r.Work.Bytes < cacheBytes {
		fmt.Fprintf(w, "\nThese weights fit into a processor's cache: their share of the read bandwidth says little.\n")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Fallback)) {
		fmt.Fprintf(w, "\nfallbacks: %s %d times\n", name, r.Fallback[name])
	}
	if len(r.Compared) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return write(compareCells(r), "lrrrrl")
}

// cacheBytes: weights below this may never leave a large last-level cache.
const cacheBytes = 64 << 20

func fmaText(r *bench.Result) string {
	if r.Limits.FMA == 0 {
		return ", its multiply-add peak is not known"
	}
	return fmt.Sprintf(", %.0f GFLOP/s of float32 (%s)", r.Limits.FMA/1e9, r.Limits.How)
}

var benchColumns = []string{"op", "tokens", "tok/s", "least", "most", "first token", "GB/s", "GFLOP/s", "share", "by CPU", "resident", "anonymous"}

// benchCells is a row of text for each row of r; what does not apply is empty.
func benchCells(r *bench.Result) [][]string {
	var out [][]string
	for _, row := range r.Rows {
		share, byCPU := row.ShareRead, row.ShareReadCPU
		if row.Kind != bench.Decode {
			share, byCPU = row.ShareFMA, row.ShareFMACPU
		}
		out = append(out, []string{string(row.Kind), fmt.Sprint(row.N), rateText(row.TokensPerSecond), rateText(row.Least), rateText(row.Most),
			optional(row.FirstToken, secondsText), optional(row.Bandwidth/1e9, rateText), optional(row.Flops/1e9, rateText),
			optional(share, percentText), optional(byCPU, percentText), sizeOrNone(row.PeakResident), sizeOrNone(row.PeakAnonymous)})
	}
	return out
}

// benchCSV writes the rows in base units: seconds, bytes, operations, shares of 1.
func benchCSV(w io.Writer, r *bench.Result) error {
	c := csv.NewWriter(w)
	rows := [][]string{{"subject", "op", "n", "threads", "repetitions", "tok_s", "tok_s_least", "tok_s_most", "first_token_s", "read_bytes_per_s",
		"share_of_read", "flop_per_s", "share_of_fma", "peak_resident_bytes", "peak_anonymous_bytes", "load_s", "bytes_per_token"}}
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }
	for _, row := range r.Rows {
		rows = append(rows, []string{r.Subject, string(row.Kind), fmt.Sprint(row.N), fmt.Sprint(row.Threads), fmt.Sprint(len(row.Seconds)),
			number(row.TokensPerSecond), number(row.Least), number(row.Most), optional(row.FirstToken, number), optional(row.Bandwidth, number),
			optional(row.ShareRead, number), optional(row.Flops, number), optional(row.ShareFMA, number),
			fmt.Sprint(row.PeakResident), fmt.Sprint(row.PeakAnonymous), number(bench.Median(r.Load)), fmt.Sprint(r.Work.Bytes)})
	}
	return c.WriteAll(rows)
}

// compareCells is the table against an earlier run.
func compareCells(r *bench.Result) [][]string {
	out := [][]string{{"op", "tokens", "before", "now", "ratio", "of shares", "the spreads"}}
	for _, c := range r.Compared {
		apart := "are apart"
		if c.Overlap {
			apart = "overlap"
		}
		out = append(out, []string{string(c.Kind), fmt.Sprint(c.N), rateText(c.Before), rateText(c.Now), fmt.Sprintf("%.3f", c.Ratio),
			optional(c.ByLimit, func(x float64) string { return fmt.Sprintf("%.3f", x) }), apart})
	}
	return out
}

// benchLines writes each row with what identifies the run, one JSON object a line.
func benchLines(w io.Writer, r *bench.Result) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, row := range r.Rows {
		line := struct {
			Subject string `json:"subject"`
			bench.Row
			Load   float64 `json:"load_s"`
			Read   float64 `json:"machine_read_bytes_per_s"`
			FMA    float64 `json:"machine_fma_flop_per_s,omitempty"`
			Weight int64   `json:"bytes_per_token"`
		}{r.Subject, row, bench.Median(r.Load), r.Limits.Read, r.Limits.FMA, r.Work.Bytes}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// markdown writes rows as a table, numbers to the right.
func markdown(w io.Writer, rows [][]string) error {
	rule := make([]string, len(rows[0]))
	for i := range rule {
		rule[i] = "--:"
	}
	rule[0] = "---"
	var b strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(rule, " | "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func optional(x float64, text func(float64) string) string {
	if x == 0 {
		return ""
	}
	return text(x)
}

func rateText(x float64) string {
	switch {
	case x >= 1000:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.3f", x)
}

func percentText(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

func secondsText(x float64) string {
	switch {
	case x >= 10:
		return fmt.Sprintf("%.1f s", x)
	case x >= 1:
		return fmt.Sprintf("%.2f s", x)
	case x >= 1e-3:
		return fmt.Sprintf("%.1f ms", 1e3*x)
	}
	return fmt.Sprintf("%.0f us", 1e6*x)
}

func sizeOrNone(n int64) string {
	if n == 0 {
		return ""
	}
	return bytesText(n)
}
