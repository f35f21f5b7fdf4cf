package oracle

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"sibyl/trace"
)

// DiffView says how a diff is shown.
type DiffView struct {
	// All lists every tensor and layer; without it each kind of tap is shown once, at its worst layer, and the layers
	// that add most.
	All bool
	// Unicode draws the heat strip with block characters instead of digits: see UnicodeTerminal.
	Unicode bool
	// Width is the terminal's, in columns; 0 means 80. Only the heat strip is fitted to it.
	Width int
}

// UnicodeTerminal says from the environment whether block characters will be read as such: the locale is UTF-8, the
// terminal is not dumb, and nobody asked for plain output with NO_COLOR.
func UnicodeTerminal(getenv func(string) string) bool {
	if getenv("NO_COLOR") != "" || getenv("TERM") == "dumb" {
		return false
	}
	locale := cmp.Or(getenv("LC_ALL"), getenv("LC_CTYPE"), getenv("LANG"))
	locale = strings.ToLower(strings.ReplaceAll(locale, "-", ""))
	return strings.Contains(locale, "utf8")
}

// shownLayers is how many layers the table of contributions has without All.
const shownLayers = 8

// Render writes the diff for people; the first line says it all.
func (r *DiffResult) Render(w io.Writer, v DiffView) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", ascii(r.Headline()))
	columns(&b, "llllll", [][]string{sideRow("REF", r.Ref), sideRow("TEST", r.Test)})
	fmt.Fprintf(&b, "%s, %s compared, %d only in REF, %d only in TEST\n", plural(r.Tokens, "token"), plural(len(r.Tensors), "tensor"), len(r.OnlyRef), len(r.OnlyTest))
	if v.All {
		listNames(&b, "only in REF: ", r.OnlyRef)
		listNames(&b, "only in TEST: ", r.OnlyTest)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", ascii(n))
	}
	b.WriteByte('\n')
	if !r.Identical || r.NonFinite != nil {
		r.renderFirst(&b)
		r.renderHeat(&b, v)
		r.renderLayers(&b, v)
		r.renderTensors(&b, v)
	}
	r.renderLogits(&b)
	r.renderTol(&b)
	_, err := io.WriteString(w, strings.TrimRight(b.String(), "\n")+"\n")
	return err
}

// Headline is the result in one line.
func (r *DiffResult) Headline() string {
	differ := 0
	for i := range r.Tensors {
		if !r.Tensors[i].Identical() {
			differ++
		}
	}
	head := ""
	switch p := r.First.Unexplained; {
	case r.Identical && len(r.Tensors) == 0:
		head = "SAME IDS at all " + plural(r.Tokens, "position")
	case len(r.Tensors) == 0:
		head = fmt.Sprintf("DIFFERENT ids at %d of %s", r.Logits.Positions-r.Logits.Top1Agree, plural(r.Logits.Positions, "position"))
	case r.Identical:
		return "IDENTICAL: the same bits in all " + plural(len(r.Tensors), "tensor") + r.NonFinite.clause()
	case p == nil && r.NonFinite != nil:
		head = fmt.Sprintf("DIFFERENT bits in %d of %s, nowhere more than rounding explains where both are numbers", differ, plural(len(r.Tensors), "tensor"))
	case p == nil:
		head = fmt.Sprintf("DIFFERENT bits in %d of %s, nowhere more than rounding explains", differ, plural(len(r.Tensors), "tensor"))
	default:
		head = fmt.Sprintf("DIFFERENT bits in %d of %s; rounding does not explain %s", differ, plural(len(r.Tensors), "tensor"), p.where())
	}
	head += r.NonFinite.clause()
	if r.Tol != nil {
		head += fmt.Sprintf("; %d of %d judged tensors exceed the tolerances", r.Tol.tensors(), r.Tol.Judged)
	}
	return head
}

// tensors counts those that exceed a bound.
func (t *TolResult) tensors() int {
	names := map[string]bool{}
	for _, e := range t.Exceeded {
		names[e.Name] = true
	}
	return len(names)
}

func (p *Place) where() string { return where(p.Name, p.Token) }

func where(name string, token int) string {
	if token < 0 {
		return name
	}
	return fmt.Sprintf("%s at token %d", name, token)
}

// clause is the headline's part about NaN and infinities, "" without any.
func (p *NonFinitePlace) clause() string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("; NaN or Inf in %s, first %s", plural(p.Tensors, "tensor"), where(p.Name, p.Token))
}

func sideRow(role string, s DiffSide) []string {
	row := []string{role, ascii(s.Label), ascii(s.Contract), ascii(s.Mode), ascii(s.Path), ""}
	if s.Scheme != "" {
		row[5] = "weights " + ascii(s.Scheme)
	}
	return row
}

func listNames(b *strings.Builder, what string, names []string) {
	if len(names) > 0 {
		fmt.Fprintf(b, "%s%s\n", what, ascii(strings.Join(names, ", ")))
	}
}

func (r *DiffResult) renderFirst(b *strings.Builder) {
	var rows [][]string
	for _, f := range []struct {
		what string
		p    *Place
	}{{"first bit that differs", r.First.Bit}, {"error not explained", r.First.Unexplained}} {
		if f.p == nil {
			rows = append(rows, []string{f.what, "none", "", "", ""})
			continue
		}
		rows = append(rows, []string{f.what, f.p.where(), plural(f.p.Tokens, "row") + " of it",
			"relative error " + orNaN(f.p.RelError), "of its inputs " + orNaN(f.p.InputError)})
	}
	if p := r.NonFinite; p != nil {
		rows = append(rows, []string{"first NaN or Inf", where(p.Name, p.Token), plural(p.Tensors, "tensor"), "", ""})
	}
	columns(b, "lllll", rows)
	r.renderMakers(b)
	fmt.Fprintf(b, "explained is up to %d x (the inputs' error + 2^%d a step)", unexplainedFactor, int(math.Log2(float64(r.First.Unit))))
	if r.First.LargestAt != "" {
		fmt.Fprintf(b, "; the most here is %.3g x, at %s", float64(r.First.Largest), r.First.LargestAt)
	}
	b.WriteString("\n\n")
}

// shownMakers is how many operations are listed of a tap.
const shownMakers = 8

// renderMakers lists which operations of TEST make the tap where the runs part, where TEST can say so.
func (r *DiffResult) renderMakers(b *strings.Builder) {
	p := r.First.Unexplained
	if p == nil {
		p = r.First.Bit
	}
	if p == nil || len(p.MadeBy) == 0 {
		return
	}
	fmt.Fprintf(b, "%s is made in TEST by\n", p.Name)
	for _, op := range p.MadeBy[:min(len(p.MadeBy), shownMakers)] {
		fmt.Fprintf(b, "  %s\n", ascii(op))
	}
	if more := len(p.MadeBy) - shownMakers; more > 0 {
		fmt.Fprintf(b, "  and %s before them (--json lists all)\n", plural(more, "operation"))
	}
}

func (r *DiffResult) renderLayers(b *strings.Builder, v DiffView) {
	list := slices.Clone(r.Layers)
	if !v.All && len(list) > shownLayers {
		slices.SortStableFunc(list, func(a, c LayerError) int { return cmp.Compare(c.Contribution, a.Contribution) })
		list = list[:shownLayers]
		slices.SortFunc(list, func(a, c LayerError) int { return cmp.Compare(a.Layer, c.Layer) })
	}
	if len(list) == 0 {
		return
	}
	rows := [][]string{{"layer", "total", "inherited", "added", "by mixer", "by MLP", "alignment"}}
	for _, l := range list {
		rows = append(rows, []string{strconv.Itoa(l.Layer), sci(l.Total), sci(l.Inherited), sci(l.Contribution), sci(l.Mixer), sci(l.MLP), fix(l.Alignment, 2)})
	}
	b.WriteString("error of the residual stream, relative to the layer's output")
	if len(list) < len(r.Layers) {
		fmt.Fprintf(b, " (the %d layers of %d that add most)", len(list), len(r.Layers))
	}
	b.WriteByte('\n')
	columns(b, "rrrrrrr", rows)
}

// renderTensors lists the tensors, or for each tap the layer where its relative error is largest.
func (r *DiffResult) renderTensors(b *strings.Builder, v DiffView) {
	rows := [][]string{{"tap", "max abs", "at", "rms", "rel error", "cosine", "SNR dB", "max ULP", "median ULP", "least tol"}}
	worst := map[string]int{}
	var order []string
	for i := range r.Tensors {
		s := &r.Tensors[i]
		key := s.Name
		if !v.All && s.Tap < trace.NumTaps {
			key = s.Tap.Short()
		}
		w, ok := worst[key]
		if !ok {
			order = append(order, key)
		}
		if !ok || s.worse(&r.Tensors[w]) {
			worst[key] = i
		}
	}
	if !v.All { // taps of the two kinds of layer come in turn otherwise
		slices.SortStableFunc(order, func(a, c string) int { return cmp.Compare(r.Tensors[worst[a]].Tap, r.Tensors[worst[c]].Tap) })
	}
	var same []string
	for _, key := range order {
		s := &r.Tensors[worst[key]]
		if s.Identical() && !s.NonFinite.any() && !v.All {
			same = append(same, key)
			continue
		}
		rows = append(rows, s.row())
	}
	if v.All {
		b.WriteString("every tensor, in the order of the math\n")
	} else {
		b.WriteString("every tap at its worst layer, in the order of the math\n")
	}
	columns(b, "lrlrrrrrrr", rows)
	if len(same) > 0 {
		fmt.Fprintf(b, "the same bits wherever they are: %s\n\n", strings.Join(same, ", "))
	}
}

// worse orders tensors of one tap: non-finite mismatches, then those on both sides, then relative error, then elements that differ.
func (s *TensorStats) worse(than *TensorStats) bool {
	e := func(t *TensorStats) float64 {
		if math.IsNaN(float64(t.RelError)) {
			return 0
		}
		return float64(t.RelError)
	}
	return cmp.Or(cmp.Compare(s.NonFinite.Mismatched, than.NonFinite.Mismatched),
		cmp.Compare(s.NonFinite.Ref, than.NonFinite.Ref), cmp.Compare(e(s), e(than)), cmp.Compare(s.Differ, than.Differ)) > 0
}

func (s *TensorStats) row() []string {
	switch {
	case s.Identical() && !s.NonFinite.any():
		return []string{s.Name, "same bits", "", "", "", "", "", "", "", ""}
	case s.NonFinite.Mismatched > 0:
		return []string{s.Name, "NaN/Inf", fmt.Sprint(s.NonFinite.FirstAt), "", "", "", "", "", "", "none"}
	case s.NonFinite.any(): // on both sides: the figures are of the others, if there are any
		if !s.numbers() {
			return []string{s.Name, "NaN/Inf", fmt.Sprint(s.NonFinite.EitherAt), "", "", "", "", "", "", "none"}
		}
		return []string{s.Name, "NaN/Inf", fmt.Sprint(s.NonFinite.EitherAt), sci(s.RMSDiff), sci(s.RelError), fix(s.Cosine, 8), fix(s.SNR, 1),
			strconv.FormatInt(s.MaxULP, 10), strconv.FormatInt(s.MedianULP, 10), sci(s.LeastTolerance)}
	case s.DType == trace.I32:
		return []string{s.Name, fmt.Sprintf("%d differ", s.Differ), fmt.Sprint(s.MaxAbsAt), "", "", "", "", "", "", ""}
	}
	return []string{s.Name, sci(s.MaxAbs), fmt.Sprint(s.MaxAbsAt), sci(s.RMSDiff), sci(s.RelError), fix(s.Cosine, 8), fix(s.SNR, 1),
		strconv.FormatInt(s.MaxULP, 10), strconv.FormatInt(s.MedianULP, 10), sci(s.LeastTolerance)}
}

func (r *DiffResult) renderLogits(b *strings.Builder) {
	l := r.Logits
	if l == nil {
		return
	}
	n := l.Positions - l.Skipped
	fmt.Fprintf(b, "next token: top-1 agrees at %d of %d positions", l.Top1Agree, n)
	if l.Top1Ties > 0 {
		fmt.Fprintf(b, ", %s", plural(l.Top1Ties, "tie"))
	}
	if l.FirstFlip >= 0 {
		fmt.Fprintf(b, ", first flip at %d (%d -> %d)", l.FirstFlip, l.FirstFlipIDs[0], l.FirstFlipIDs[1])
	}
	if finite(float64(l.KLMean)) {
		fmt.Fprintf(b, "\n            KL(REF||TEST) mean %s nats, worst %s at position %d; top-%d overlap %s %%", sci(l.KLMean), sci(l.KLWorst),
			l.KLWorstAt, l.TopK, fix(100*l.TopKOverlap, 1))
	}
	if l.Skipped > 0 {
		fmt.Fprintf(b, "\n            %s left out: NaN or Inf among the logits", plural(l.Skipped, "position"))
	}
	b.WriteString("\n\n")
}

func (r *DiffResult) renderTol(b *strings.Builder) {
	if r.Tol == nil {
		return
	}
	fmt.Fprintf(b, "tolerances %s: %s judged, %d not, %d exceed\n", ascii(r.Tol.File), plural(r.Tol.Judged, "tensor"), len(r.Tol.Unjudged), r.Tol.tensors())
	rows := [][]string{{"tensor", "bound", "value", "limit", "rule"}}
	for _, e := range r.Tol.Exceeded {
		value := sci(e.Value)
		if !finite(float64(e.Value)) {
			value = "none"
		}
		rows = append(rows, []string{e.Name, e.Bound, value, sci(e.Limit), strconv.Itoa(e.Rule)})
	}
	if len(rows) > 1 {
		columns(b, "llrrr", rows)
	}
}

// sci prints two digits, "-" for no value; integers below 1e6 as they are.
func sci(n Number) string {
	switch x := float64(n); {
	case !finite(x):
		return "-"
	case x == math.Trunc(x) && math.Abs(x) < 1e6:
		return strconv.FormatFloat(x, 'f', 0, 64)
	default:
		return strconv.FormatFloat(x, 'e', 1, 64)
	}
}

// orNaN prints an error that is infinite where only one side is finite.
func orNaN(n Number) string {
	if !finite(float64(n)) {
		return "NaN or Inf"
	}
	return sci(n)
}

// fix prints a fixed number of decimals, "-" for no value.
func fix(n Number, decimals int) string {
	if !finite(float64(n)) {
		return "-"
	}
	return strconv.FormatFloat(float64(n), 'f', decimals, 64)
}
