package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/bench"
	"sibyl/internal/inputerr"
	"sibyl/internal/userfile"
)

// Bench times an engine.
type Bench struct {
	Subject     string `arg:"" optional:"" name:"SUBJECT" help:"What to time; left out, the demo model."`
	Prompt      string `short:"p" name:"prompt" default:"128" placeholder:"N,..." help:"Tokens of a prefill; 0 for none."`
	Generate    string `short:"g" name:"generate" default:"32" placeholder:"N,..." help:"Tokens decoded one by one; 0 for none."`
	Forced      string `short:"f" name:"forced" default:"0" placeholder:"N,..." help:"Tokens scored in one pass with the logits of every position; 0 for none."`
	Repetitions int    `short:"n" name:"repetitions" default:"5" placeholder:"N" help:"How often each is measured."`
	WarmUp      bool   `name:"warmup" default:"true" negatable:"" help:"Do everything once before it counts (on by default)."`
	Format      string `enum:"md,csv,json,jsonl,text" default:"text" placeholder:"FORM" help:"text, md, csv, json, or jsonl (a line a row)."`
	Compare     string `placeholder:"FILE" help:"An earlier run's JSON, to hold this one against."`
	Worker      bool   `help:"Stay loaded and answer the peer benchmark's commands on standard input."`
	JSON
	Output
}

// Help is the part of the help below the flags.
func (*Bench) Help() string {
	return `Every figure is the median of the repetitions, with the least and the most. "share" is what travels between
machines: of the machine's read bandwidth (decode reads every weight once a token) or of its float32
multiply-add peak (the others), both measured before and after in this run; "by CPU" is the same share of
the CPU time, which other programs disturb less. A prefill's time is the time to first token.
Default parts: @cpu,fast.

Examples:

  sibyl bench
  sibyl bench -p 64 -g 0 -n 3 @exact
  sibyl bench -p 16 -g 8 -n 2 --format md -t 1
  sibyl bench -p 16 -g 8 -n 2 --json -o before.json && sibyl bench -p 16 -g 8 -n 2 --compare before.json`
}

// Limits of what one may ask for.
const (
	maxBenchTokens = 1 << 20
	maxBenchRuns   = 1000
)

// Run is the verb.
func (v *Bench) Run(ctx context.Context, a *App) (err error) {
	before, err := v.check()
	if err != nil {
		return err
	}
	s, err := a.subject(v.Subject)
	if err != nil {
		return err
	}
	if s.Engine == "replay" {
		return &inputerr.Error{File: "subject " + inputerr.Clip(s.Text, 80), Field: "@replay", Found: "an engine that runs nothing", Want: "one that does"}
	}
	ckpt, err := a.source(ctx, s)
	if err != nil {
		return err
	}
	defer closing(ckpt, &err)
	if v.Worker {
		return bench.Worker(ctx, a.Stdin, a.Stdout, func(threads int) (engine.Engine, error) {
			if threads > 0 {
				a.Threads = threads
			}
			return a.open(ctx, s, "fast", "")
		})
	}
	plan, longest, err := v.plan(a, ckpt)
	if err != nil {
		return err
	}
	if err := a.checkJob(ckpt, s, bench.IDs(longest, plan.Vocab), job{tokens: longest}); err != nil {
		return err
	}
	if before != nil {
		if err := comparable(v.Compare, before, plan); err != nil {
			return err
		}
	}
	r, err := v.measure(ctx, a, s, plan)
	if err != nil {
		return err
	}
	if before != nil {
		r.Compare(before)
		if before.Machine != r.Machine || before.Subject != r.Subject {
			a.Note("%s is of %s on %s; this run is of %s on %s", v.Compare, before.Subject, before.Machine, r.Subject, r.Machine)
		}
	}
	if err := v.Output.write(r); err != nil {
		return err
	}
	return a.Emit(v.Format == "json", r, func(w io.Writer) error { return renderBench(w, r, v.Format) })
}

// check refuses flags that contradict each other and reads the run to compare with.
func (v *Bench) check() (before *bench.Result, err error) {
	switch {
	case v.JSON.JSON && v.Format != "text" && v.Format != "json":
		return nil, &inputerr.Error{File: "bench", Field: "--format", Found: v.Format + " beside --json", Want: "one of them", Do: "leave one out"}
	case v.JSON.JSON:
		v.Format = "json"
	case v.Repetitions < 1 || v.Repetitions > maxBenchRuns:
		return nil, &inputerr.Error{File: "--repetitions", Found: strconv.Itoa(v.Repetitions), Want: fmt.Sprintf("1 to %d", maxBenchRuns)}
	}
	if v.Worker && v.Compare+v.Out != "" {
		return nil, &inputerr.Error{File: "bench", Field: "--worker", Found: "--compare or --out beside it", Want: "it alone", Do: "leave them out: a worker answers and keeps nothing"}
	}
	if err := v.Output.check(); err != nil || v.Compare == "" {
		return nil, err
	}
	return readBench(v.Compare)
}

// readBench reads what --json wrote.
func readBench(file string) (*bench.Result, error) {
	const do = "make one with sibyl bench --json -o FILE"
	data, err := userfile.Read(file, maxInputBytes)
	if err != nil {
		return nil, userfile.Fault(file, do, err)
	}
	var r bench.Result
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&r); err != nil {
		return nil, &inputerr.Error{File: file, Found: "no result of sibyl bench", Want: "JSON of format " + bench.Format, Do: do, Err: err}
	}
	if r.Format != bench.Format {
		return nil, &inputerr.Error{File: file, Field: "format", Found: inputerr.Clip(r.Format, 40), Want: bench.Format, Do: do}
	}
	return &r, nil
}

// comparable refuses, before minutes are spent, a run that has nothing in common with the one to be measured.
func comparable(file string, before *bench.Result, p bench.Plan) error {
	name := func(op bench.Op, threads int) string {
		return fmt.Sprintf("%s %d on %s", op.Kind, op.N, plural(threads, "thread", "threads"))
	}
	var has, want []string
	for _, op := range p.Ops {
		want = append(want, name(op, p.Threads))
	}
	for _, r := range before.Rows {
		if has = append(has, name(r.Op, r.Threads)); slices.Contains(p.Ops, r.Op) && r.Threads == p.Threads && r.TokensPerSecond > 0 {
			return nil
		}
	}
	found := "no rows"
	if len(has) > 0 {
		found = inputerr.Clip(strings.Join(has, ", "), 200)
	}
	return &inputerr.Error{File: file, Field: "rows", Found: found, Want: "one with a speed of " + strings.Join(want, ", "), Do: "give the -p, -f, -g and -t of that run"}
}

// plan lists the ops in the order prefill, teacher forcing, decode; longest is the most tokens of one.
func (v *Bench) plan(a *App, c bundle.Source) (p bench.Plan, longest int, err error) {
	p = bench.Plan{Repetitions: v.Repetitions, WarmUp: v.WarmUp, Vocab: c.Config().VocabSize, Threads: a.Threads,
		Work: bench.WorkOf(c.Config(), c.Sizes().TotalPerToken())}
	for _, kind := range []struct {
		kind       bench.Kind
		flag, list string
	}{{bench.Prefill, "--prompt", v.Prompt}, {bench.Forced, "--forced", v.Forced}, {bench.Decode, "--generate", v.Generate}} {
		for _, word := range strings.Split(kind.list, ",") {
			n, err := strconv.Atoi(strings.TrimSpace(word))
			if err != nil || n < 0 || n > maxBenchTokens {
				return p, 0, &inputerr.Error{File: kind.flag, Found: inputerr.Clip(word, 40), Want: fmt.Sprintf("numbers from 0 to %d, as in 128,512", maxBenchTokens)}
			}
			if most := c.Config().MaxPositions; n > most {
				return p, 0, &inputerr.Error{File: kind.flag, Found: strconv.Itoa(n), Want: fmt.Sprintf("at most %d, the model's max_position_embeddings", most), Do: "ask for fewer"}
			}
			if op := (bench.Op{Kind: kind.kind, N: n}); n > 0 && !slices.Contains(p.Ops, op) {
				p.Ops, longest = append(p.Ops, op), max(longest, n)
			}
		}
	}
	if len(p.Ops) == 0 {
		return p, 0, &inputerr.Error{File: "bench", Found: "nothing to measure", Want: "--prompt, --generate or --forced above 0"}
	}
	p.Spare, err = a.spareMemory()
	return p, longest, err
}

// measure opens the model as often as it measures, which is the load time, and runs the plan.
func (v *Bench) measure(ctx context.Context, a *App, s Subject, p bench.Plan) (r *bench.Result, err error) {
	r = &bench.Result{Format: bench.Format, Sibyl: versionText(), Machine: machineText(), Threads: a.Threads, Work: p.Work}
	var e engine.Engine
	for range v.Repetitions {
		if e != nil {
			if err := e.Close(); err != nil {
				return nil, err
			}
		}
		start := time.Now()
		if e, err = a.open(ctx, s, "fast", ""); err != nil {
			return nil, err
		}
		r.Load = append(r.Load, time.Since(start).Seconds())
	}
	defer closing(e, &err)
	r.Rows, r.Limits, err = bench.Run(ctx, e, p, a.Progress("bench"))
	info := e.Info()
	r.Subject, r.Engine, r.Contract, r.Scheme, r.Mode, r.Fallback = info.Subject, info.Engine, info.Contract, info.Scheme, info.Mode, info.Fallbacks
	return r, err
}

// machineText names the processor, with the number of cores this process may use.
func machineText() string {
	name := runtime.GOOS + "/" + runtime.GOARCH
	if data, err := userfile.Read("/proc/cpuinfo", 1<<20); err == nil {
		if _, rest, ok := strings.Cut(string(data), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			name = strings.TrimLeft(line, " \t:")
		}
	}
	return fmt.Sprintf("%s, %s", name, plural(runtime.GOMAXPROCS(0), "core", "cores"))
}
