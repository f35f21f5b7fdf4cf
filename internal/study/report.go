package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sibyl/internal/faults"
	"sibyl/oracle"
)

// The aims of the study.
const (
	aimRecall = 0.95
	aimFalse  = 0
)

const preface = `# How far the verdicts can be trusted

Measured by ` + "`go run ./internal/study > docs/verdicts.md`" + `; no figure is typed by hand, every seed is fixed. The gate of DESIGN
section 6 (REF hf-fp32, exact; controls Q, C and E as ` + "`sibyl gate`" + ` runs them; floor 0.1 of the logit gap; all four parts)
is shown two kinds of TEST, on the demo model with passages of its book and on the tiny models with random ids (%d prompts of %d to
%d ids and %d generated tokens each):

- **Injections**: the fast CPU engine under coreai-fp16 with one known mistake of DESIGN section 10 put into it (internal/faults),
  in all layers that can have it, the first of them, or the last, whole or in part. An injection counts where it changes an id that
  REF is sure of and that the same engine without the mistake gets right; the others are below the threshold and listed apart. It
  is found if the gate fails with at least one DEFECT. (What does not change a confident id is no business of a gate of tokens; taps
  and ` + "`sibyl diff`" + ` show it.)
- **Clean runs**: right engines that share no bits with any control: the fast arithmetic on 1, 2 and 3 threads and each recorded
  variant of the contract, every time with the control that is this very engine taken away, and an engine whose every operation is
  off by -1, 0 or +1 unit in the last place at random, of the grid the contract rounds to. Any DEFECT there is a false one.

Intervals are Wilson's, 95 %%. Where nothing else explains a flip, the gate asks up to eight noisy realisations of E (` + "`@noise:1`" + ` and so on);
the further columns are of a gate that had none, two or four. Their noise is a function of seed, operation and value, that of TEST is
drawn from a generator: no seed of one is one of the other. Figures of the fast arithmetic may differ in single runs on a processor
that fuses multiply and add (arm64); all others are the same everywhere.

`

// document is the whole of docs/verdicts.md.
func (s *study) document() string {
	var b strings.Builder
	fmt.Fprintf(&b, preface, promptsEach, shortest, longest, generated)
	s.summary(&b)
	s.byFault(&b)
	s.missed(&b)
	s.cleanByEngine(&b)
	s.falseOnes(&b)
	s.wrongContract(&b)
	s.cannot(&b)
	return b.String()
}

// recall counts effective injections, and how many are found with each of extras.
func recall(list []*injected) (n int, found []int) {
	found = make([]int, len(extras))
	for _, i := range list {
		if i.changed == 0 {
			continue
		}
		n++
		for k := range extras {
			if i.found(k) {
				found[k]++
			}
		}
	}
	return n, found
}

// falseRuns counts clean runs, and those with a DEFECT with each of extras.
func falseRuns(list []*cleaned) (n int, wrong []int) {
	wrong = make([]int, len(extras))
	for _, c := range list {
		n++
		for k := range extras {
			if c.counts[k] > 0 {
				wrong[k]++
			}
		}
	}
	return n, wrong
}

// real are the injections of mistakes that are held to be able to change a confident id.
func (s *study) real() []*injected {
	return slices.DeleteFunc(slices.Clone(s.injected), func(i *injected) bool { return i.fault.Why != "" })
}

// good says whether both aims are met.
func (s *study) good() bool {
	n, found := recall(s.real())
	_, wrong := falseRuns(s.clean)
	return n > 0 && float64(found[0]) >= aimRecall*float64(n) && wrong[0] <= aimFalse
}

func (s *study) summary(b *strings.Builder) {
	var rows [][]string
	add := func(what, aim string, n int, k []int) {
		row := []string{what, aim, share(k[0], n)}
		for _, x := range k[1:] {
			row = append(row, fmt.Sprintf("%d", x))
		}
		rows = append(rows, row)
	}
	n, k := recall(s.real())
	add("injections found", "at least 95 %", n, k)
	n, k = recall(slices.DeleteFunc(s.real(), func(i *injected) bool { return i.changed > 3 }))
	add("of all, injections that change 1 to 3 confident ids", "", n, k)
	for _, kind := range []struct {
		what string
		moe  bool
	}{{"of all, injections into dense models", false}, {"of all, injections into mixtures of experts", true}} {
		n, k = recall(slices.DeleteFunc(s.real(), func(i *injected) bool { return (i.bench.cfg.MoE != nil) != kind.moe }))
		add(kind.what, "", n, k)
	}
	n, k = falseRuns(s.clean)
	add("clean runs with a false DEFECT", "0", n, k)
	for _, kind := range []struct {
		what string
		in   func(c *cleaned) bool
	}{
		{"of those, fast arithmetic and recorded variants", func(c *cleaned) bool { return c.engine != noise(0).name }},
		{"of those, noise at every operation, dense models", func(c *cleaned) bool { return c.engine == noise(0).name && c.bench.cfg.MoE == nil }},
		{"of those, noise at every operation, mixtures of experts", func(c *cleaned) bool { return c.engine == noise(0).name && c.bench.cfg.MoE != nil }},
	} {
		n, k := falseRuns(slices.DeleteFunc(slices.Clone(s.clean), func(c *cleaned) bool { return !kind.in(c) }))
		add(kind.what, "0", n, k)
	}
	head := []string{"", "aim", "measured"}
	for _, n := range extras[1:] {
		head = append(head, fmt.Sprintf(">with %d noisy", n))
	}
	b.WriteString(table(head, rows))
}

func (s *study) byFault(b *strings.Builder) {
	b.WriteString("\n## Injections by mistake\n\nChanged ids: the fewest, the median and the most of an injection that changes any, over all parts.\n\n")
	var rows [][]string
	for _, f := range faults.Table() {
		list := s.of(f)
		if f.Why != "" || len(list) == 0 {
			continue
		}
		n, found := recall(list)
		var ids []int
		models := map[string]bool{}
		for _, i := range list {
			models[i.bench.model] = true
			if i.changed > 0 {
				ids = append(ids, i.changed)
			}
		}
		slices.Sort(ids)
		span := "none"
		if len(ids) > 0 {
			span = fmt.Sprintf("%d, %d, %d", ids[0], ids[len(ids)/2], ids[len(ids)-1])
		}
		rows = append(rows, []string{f.Name, f.Mistake, strings.Join(slices.Sorted(maps.Keys(models)), ", "),
			fmt.Sprint(len(list) - n), span, fmt.Sprintf("%d of %d", found[0], n)})
	}
	b.WriteString(table([]string{"fault", "mistake", "models", ">below threshold", ">changed ids", ">found"}, rows))
}

func (s *study) of(f *faults.Fault) (out []*injected) {
	for _, i := range s.injected {
		if i.fault == f || i.fault.Name == f.Name {
			out = append(out, i)
		}
	}
	return out
}

func (s *study) missed(b *strings.Builder) {
	b.WriteString("\n## Injections not found\n\n")
	var rows [][]string
	for _, i := range s.real() {
		if i.changed > 0 && !i.found(0) {
			rows = append(rows, []string{i.bench.model, schemeName(i.bench.scheme), i.in.String(), verdicts(i.verdicts)})
		}
	}
	if len(rows) == 0 {
		b.WriteString("None.\n")
		return
	}
	b.WriteString("The verdicts are those of the confident ids that the mistake changed.\n\n")
	b.WriteString(table([]string{"model", "scheme", "injection", "verdicts"}, rows))
}

// verdicts prints a count in the order of the table.
func verdicts(m map[oracle.Verdict]int) string {
	var out []string
	for _, v := range oracle.Verdicts {
		if m[v] > 0 {
			out = append(out, fmt.Sprintf("%d %s", m[v], v))
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

func (s *study) cannot(b *strings.Builder) {
	b.WriteString("\n## Mistakes that cannot change a confident id\n\nThese were injected whole, in part, in all layers and in one, like the others; the figure is how many injections changed a\nconfident id of how many.\n\n")
	var rows [][]string
	for _, f := range faults.Table() {
		if list := s.of(f); f.Why != "" && len(list) > 0 {
			n, found := recall(list)
			rows = append(rows, []string{f.Name, f.Mistake, f.Why, fmt.Sprintf("%d of %d", n, len(list)), fmt.Sprint(found[0])})
		}
	}
	b.WriteString(table([]string{"fault", "mistake", "why", ">change an id", ">DEFECT"}, rows))
	b.WriteString("\nNot injected:\n\n")
	for _, m := range faults.SparedMistakes() {
		fmt.Fprintf(b, "- %s: %s.\n", m.Mistake, m.Why)
	}
}

// table writes a table of markdown; columns named with a leading ">" are aligned to the right.
func table(head []string, rows [][]string) string {
	var b strings.Builder
	rule := make([]string, len(head))
	names := make([]string, len(head))
	for i, h := range head {
		name, right := strings.CutPrefix(h, ">")
		names[i], rule[i] = name, "---"
		if right {
			rule[i] = "--:"
		}
	}
	for i, row := range append([][]string{names, rule}, rows...) {
		cells := slices.Clone(row)
		for j := range cells {
			if i > 1 {
				cells[j] = strings.ReplaceAll(cells[j], "|", "\\|")
			}
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	return b.String()
}
