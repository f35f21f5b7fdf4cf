// Command witness makes the table of docs/metal.md that asks of one shipped bundle what four engines say of it: the oracle, the
// bundle's own graph, sibyl's Metal kernels on the CPU device, and Core AI's own runtime. Each is held to the oracle on the same
// bytes by the gate, along its own decode path and re-anchored, on 12 prompts of the demo model.
//
//	SIBYL_COREAI_PYTHON=PYTHON go run ./internal/witness
//
// metal-cpu needs clang 19, coreai a Python with coreai-core (docs/coreai.md); an engine that this machine lacks is an error, not a
// missing row. -engines names some of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	_ "sibyl/coreai"
	"sibyl/engine"
	_ "sibyl/graph"
	"sibyl/internal/goldens"
	_ "sibyl/metal"
	_ "sibyl/model"
	"sibyl/oracle"
)

func main() {
	engines := flag.String("engines", "cpu,graph,metal-cpu,coreai", "which engines answer")
	prompts := flag.Int("prompts", 12, "how many of the prompts")
	tokens := flag.Int("tokens", 64, "tokens after each")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	rows, err := witness(ctx, strings.Split(*engines, ","), *prompts, *tokens)
	if err == nil {
		err = render(os.Stdout, rows)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "witness:", err)
		os.Exit(2)
	}
}

// row is one engine's answer. IDs, Same and Flips count the tokens of the decode path; Verdicts every position of the gate, prompts
// and the step from the oracle's state too.
type row struct {
	Engine   string
	Result   *oracle.GateResult
	IDs      int
	Same     int
	Flips    []oracle.Evidence // where another id was chosen, ties too
	Verdicts map[oracle.Verdict]int
}

// bundlePath is the shipped demo model: int8hu-sym, profile zoo-s1.
func bundlePath() string {
	return filepath.Join(goldens.Root(), "..", "bundles", "opticks-2m-int8hu-sym")
}

// witness gates each engine on the bundle against the oracle on the same bundle; the oracle itself, to see what the conversion costs,
// against hf-fp32 on the checkpoint.
func witness(ctx context.Context, engines []string, prompts, tokens int) ([]row, error) {
	set, err := goldens.Read("opticks-2m", "golden")
	if err != nil {
		return nil, err
	}
	asked, _ := set.Rollouts()
	p := oracle.DefaultProtocol()
	p.MaxTokens = tokens
	var rows []row
	for _, name := range engines {
		refSpec, testSpec := engine.Spec{Model: bundlePath()}, engine.Spec{Model: bundlePath()}
		if name == "cpu" {
			refSpec = engine.Spec{Contract: "hf-fp32"}
		}
		setup := oracle.Setup{}
		for i, ids := range asked[:min(prompts, len(asked))] {
			setup.Prompts = append(setup.Prompts, oracle.Prompt{Name: fmt.Sprint(i + 1), IDs: ids})
		}
		r, err := gate(ctx, name, refSpec, testSpec, setup, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, count(name, r))
	}
	return rows, nil
}

// gate opens both sides and runs the gate with every control that applies.
func gate(ctx context.Context, name string, refSpec, testSpec engine.Spec, s oracle.Setup, p oracle.Protocol) (r *oracle.GateResult, err error) {
	for _, side := range []struct {
		name string
		spec engine.Spec
		to   *engine.Engine
	}{{"cpu", refSpec, &s.Ref}, {name, testSpec, &s.Test}} {
		e, err := engine.Open(ctx, side.name, side.spec)
		if err != nil {
			return nil, err
		}
		defer e.Close()
		*side.to = e
	}
	if s.Controls, err = controls(refSpec, s.Ref.Info(), s.Test.Info()); err != nil {
		return nil, err
	}
	return oracle.Gate(ctx, s, p)
}

// controls are those of `sibyl gate`: CPU engines that share weights or contract with each side.
func controls(ref engine.Spec, refInfo, testInfo engine.Info) (out []oracle.Control, err error) {
	from := oracle.Side{Engine: "cpu", Model: ref.Model, Contract: refInfo.Contract}
	to := oracle.Side{Engine: testInfo.Engine, Model: bundlePath(), Contract: testInfo.Contract}
	if n := testInfo.Realises; len(n) > 0 {
		to.Contract, to.Also = n[0], strings.Join(n[1:], ",")
	}
	specs, err := oracle.Controls(from, to)
	for _, s := range specs {
		c := s.Control
		if c.Same == "" {
			c.Open = func(ctx context.Context) (engine.Engine, error) { return engine.Open(ctx, "cpu", s.Spec) }
		}
		out = append(out, c)
	}
	return out, err
}

func count(name string, r *oracle.GateResult) row {
	out := row{Engine: name, Result: r, Verdicts: r.Verdicts}
	for _, e := range r.Positions {
		if e.Part != oracle.Rollout {
			continue
		}
		out.IDs++
		if e.Verdict == oracle.Identical {
			out.Same++
		} else {
			out.Flips = append(out.Flips, e)
		}
	}
	return out
}

// render prints the table and every position of a decode path where an engine chose another id.
func render(w io.Writer, rows []row) error {
	fmt.Fprintln(w, "| engine | contract | held to | ids | identical | others, by verdict | all positions of the gate | decision |")
	fmt.Fprintln(w, "| --- | --- | --- | ---: | ---: | --- | --- | --- |")
	for _, r := range rows {
		others := map[oracle.Verdict]int{}
		for _, e := range r.Flips {
			others[e.Verdict]++
		}
		g := r.Result
		fmt.Fprintf(w, "| %s | %s | %s | %d | %d | %s | %s | %s |\n", r.Engine, g.Test.Contract, heldTo(r), r.IDs, r.Same, verdicts(others), verdicts(r.Verdicts), g.Decision)
	}
	fmt.Fprintln(w)
	for _, r := range rows {
		for _, e := range r.Flips {
			fmt.Fprintf(w, "- %s: prompt %d, position %d: %d where %d was held to, margin %s, %s: %s, %s\n", r.Engine, e.Prompt+1, e.Pos, e.TestID, e.RefID, gap(e.LogitGap), floor(e),
				e.Verdict, e.Why)
		}
	}
	for _, r := range rows {
		for _, why := range r.Result.Reasons {
			fmt.Fprintf(w, "- %s: %s: %s\n", r.Engine, r.Result.Decision, why)
		}
	}
	return nil
}

func heldTo(r row) string {
	if r.Engine == "cpu" {
		return "hf-fp32 on the checkpoint"
	}
	return "cpu, " + r.Result.Ref.Contract
}

func gap(x *float64) string {
	if x == nil {
		return "not shown"
	}
	return fmt.Sprintf("%.4f", *x)
}

// floor says whether the reference was sure of the position: where it was not, NEAR's row holds too, whichever came before it.
func floor(e oracle.Evidence) string {
	if e.Qualified {
		return "above the floor"
	}
	return "below the floor"
}

// verdicts lists counts in the order of the verdict table.
func verdicts(n map[oracle.Verdict]int) string {
	var out []string
	for _, v := range oracle.Verdicts {
		if n[v] > 0 {
			out = append(out, fmt.Sprintf("%d %s", n[v], v))
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}
