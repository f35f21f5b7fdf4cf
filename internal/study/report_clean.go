package main

import (
	"fmt"
	"slices"
	"strings"

	"sibyl/oracle"
)

func (s *study) cleanByEngine(b *strings.Builder) {
	b.WriteString("\n## Clean runs by engine\n\nFlips are those where REF is sure; positions count each part. An engine that shares all its bits with a control proves\nnothing: there must be none. The fast arithmetic's results do not depend on threads, so its three lines are one engine thrice.\n\n")
	b.WriteString(cleanTable(s.clean))
}

func cleanTable(list []*cleaned) string {
	type line struct {
		runs, positions, flips, wrong, shares int
		verdicts                              map[oracle.Verdict]int
	}
	lines, names := map[string]*line{}, []string(nil)
	for _, c := range list {
		kind := "dense"
		if c.bench.cfg.MoE != nil {
			kind = "MoE"
		}
		name := c.engine + "|" + kind
		l := lines[name]
		if l == nil {
			l = &line{verdicts: map[oracle.Verdict]int{}}
			lines[name], names = l, append(names, name)
		}
		l.runs++
		l.positions += c.positions
		l.flips += c.flips
		for v, n := range c.verdicts {
			l.verdicts[v] += n
		}
		if len(c.defects) > 0 {
			l.wrong++
		}
		if c.shares {
			l.shares++
		}
	}
	slices.Sort(names)
	var rows [][]string
	for _, name := range names {
		l := lines[name]
		engine, kind, _ := strings.Cut(name, "|")
		rows = append(rows, []string{engine, kind, fmt.Sprint(l.runs), fmt.Sprint(l.shares), fmt.Sprint(l.positions), fmt.Sprint(l.flips),
			verdicts(l.verdicts), fmt.Sprint(l.wrong)})
	}
	return table([]string{"engine", "models", ">runs", ">share all bits", ">positions", ">flips", "verdicts", ">runs with a DEFECT"}, rows)
}

func (s *study) falseOnes(b *strings.Builder) {
	b.WriteString("\n## False DEFECTs\n\n")
	var rows [][]string
	for _, c := range s.clean {
		for _, e := range c.defects {
			rows = append(rows, []string{c.bench.model, schemeName(c.bench.scheme), fmt.Sprint(c.bench.seed), c.engine,
				fmt.Sprintf("%s, prompt %d, position %d", e.Part, e.Prompt+1, e.Pos), number(e.LogitGap), number(e.TestOverRef)})
		}
	}
	if len(rows) == 0 {
		b.WriteString("None.\n")
	} else {
		b.WriteString("The margin is REF's logit gap; TEST's is its logit of its own id less that of REF's id.\n\n")
		b.WriteString(table([]string{"model", "scheme", ">prompts", "engine", "where", ">margin", ">TEST's"}, rows))
	}
	s.why(b)
}

// why says where a right engine's flips come from that the recorded realisations do not explain, with the figures behind it.
func (s *study) why(b *strings.Builder) {
	sum, names := map[string]routed{}, []string(nil)
	for _, r := range s.routed {
		t, ok := sum[r.engine]
		if !ok {
			names = append(names, r.engine)
		}
		sum[r.engine] = routed{r.engine, t.of + r.of, t.other + r.other}
	}
	b.WriteString(`
## Where a right engine surprises the recorded realisations

Without the noisy ones, what a right engine may say is judged by one exact arithmetic with a few roundings more or less, and one
fast one. Where the model is smooth they mostly span what rounding can do. Where it is not, they do not: a router picks experts by
rank, and a change in the last place puts another expert in where two are close; from there on the token's logits differ by far more
than rounding. How often, in layers times tokens:

`)
	var rows [][]string
	for _, n := range names {
		rows = append(rows, []string{n, share(sum[n].other, sum[n].of)})
	}
	b.WriteString(table([]string{"engine, mixtures of experts", "another set of experts than the exact engine's"}, rows))
	b.WriteString(`
A noisy realisation says NEAR in two ways: it gives TEST's id, or it takes at least half of the gap by which E prefers REF's id to
TEST's. Only that gap counts: if noise were let into the distance of any two logits, as the recorded realisations are, four of them
would explain 4 of the 24 injections into the mixture of experts away that are found without noise (measured once, not by this
program); so measured it costs what the first table shows.

It does not cover every place. An expert that few noisy engines choose is not among eight of them: of 24 further noisy engines on
tiny-moe (prompts 1052 to 1094), 11 had a DEFECT without the noisy realisations and one (prompts 1070) keeps it, with eight as with
sixteen (again measured once). And noise in two of three results of every operation is more than an engine with float32 sums has,
whose rounded results are mostly those of the exact one.
`)
}

func number(x *float64) string {
	if x == nil {
		return "not shown"
	}
	return fmt.Sprintf("%.3f", *x)
}

func (s *study) wrongContract(b *strings.Builder) {
	if len(s.apple) == 0 {
		return
	}
	b.WriteString("\n## An engine that names the wrong contract\n\ncoreai-cpu, which rounds inside of its sums, gated as if it were coreai-fp16. It is right by its own contract (`@coreai-cpu`);\nnone of the runs above counts it.\n\n")
	b.WriteString(cleanTable(s.apple))
}
