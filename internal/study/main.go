// Command study measures the gate's verdicts: of engines with a known mistake put into them, how many does it call DEFECT;
// of sound engines that share no bits with its controls, how many. It writes docs/verdicts.md:
//
//	go run ./internal/study > docs/verdicts.md
//
// Every seed is fixed and no figure depends on threads or time, so running it again changes nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"sibyl/internal/faults"
	_ "sibyl/model" // the CPU engine
	"sibyl/oracle"
)

func main() {
	clean := flag.Int("clean", 50, "sets of prompts for clean runs, each with every sound engine")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s, err := run(ctx, size{clean: *clean, faults: faults.Table()}, func(stage string, done, total int) {
		fmt.Fprintf(os.Stderr, "study: %s: %d of %d\n", stage, done, total)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "study:", err)
		os.Exit(2)
	}
	os.Stdout.WriteString(s.document())
	if !s.good() {
		fmt.Fprintln(os.Stderr, "study: short of its aim")
		os.Exit(1)
	}
}

// size is how much is run.
type size struct {
	clean  int // benches of the clean half
	faults []*faults.Fault
	models []string // nil: all
}

// study is what was found.
type study struct {
	injected []*injected
	clean    []*cleaned
	apple    []*cleaned // of appleCPU
	routed   []routed   // of mixtures of experts
}

// run runs both halves, benches side by side. Results keep the order of the plan.
func run(ctx context.Context, n size, progress func(stage string, done, total int)) (*study, error) {
	s := &study{}
	var jobs []func(context.Context) error
	var mu sync.Mutex
	done := 0
	finished := func(stage string) {
		mu.Lock()
		defer mu.Unlock()
		done++
		progress(stage, done, len(jobs))
	}
	var faulty [][]*injected
	for _, g := range groups(n) {
		at := len(faulty)
		faulty = append(faulty, nil)
		jobs = append(jobs, func(ctx context.Context) (err error) {
			faulty[at], err = g.run(ctx)
			finished("injections into " + g.model)
			return err
		})
	}
	use := n.models
	if use == nil {
		use = models
	}
	runs, routes := make([][]*cleaned, n.clean), make([][]routed, n.clean)
	for i := range n.clean {
		jobs = append(jobs, func(ctx context.Context) (err error) {
			scheme := [2]string{"", "int8hu-sym"}[i/len(use)%2]
			runs[i], routes[i], err = cleanRuns(ctx, use[i%len(use)], scheme, uint64(1000+i))
			finished("clean runs")
			return err
		})
	}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(runtime.GOMAXPROCS(0))
	for _, job := range jobs {
		all.Go(func() error { return job(ctx) })
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	for _, f := range n.faults { // by fault, and not by bench
		for _, list := range faulty {
			for _, i := range list {
				if i.fault == f {
					s.injected = append(s.injected, i)
				}
			}
		}
	}
	s.routed = slices.Concat(routes...)
	for _, list := range runs {
		for _, c := range list {
			if c.engine == appleCPU.name {
				s.apple = append(s.apple, c)
			} else {
				s.clean = append(s.clean, c)
			}
		}
	}
	return s, nil
}

// group is a bench and the faults tried on it.
type group struct {
	model, scheme string
	faults        []*faults.Fault
}

// groups sorts the plan by bench, so that each one's controls are run once.
func groups(n size) (out []*group) {
	at := map[[2]string]*group{}
	for i, f := range n.faults {
		for _, key := range benchesFor(i, f) {
			if at[key] == nil {
				at[key] = &group{model: key[0], scheme: key[1]}
				out = append(out, at[key])
			}
			at[key].faults = append(at[key].faults, f)
		}
	}
	return out
}

func (g *group) run(ctx context.Context) (out []*injected, err error) {
	b, err := newBench(ctx, g.model, g.scheme, 1)
	if err != nil {
		return nil, err
	}
	defer b.close()
	sound, err := soundRun(ctx, b)
	if err != nil {
		return nil, err
	}
	if n := sound.Verdicts[oracle.Defect]; n > 0 {
		return nil, fmt.Errorf("%s: the sound engine shows %d DEFECTs already", b, n) // they would be taken for the mistakes'
	}
	for _, f := range g.faults {
		for _, in := range plan(f, b) {
			i, err := inject(ctx, b, sound, f, in)
			if err != nil {
				return nil, err
			}
			out = append(out, i)
		}
	}
	return out, nil
}

func cleanRuns(ctx context.Context, model, scheme string, seed uint64) (out []*cleaned, routes []routed, err error) {
	b, err := newBench(ctx, model, scheme, seed)
	if err != nil {
		return nil, nil, err
	}
	defer b.close()
	if b.cfg.MoE != nil {
		if routes, err = routing(ctx, b); err != nil {
			return nil, nil, err
		}
	}
	engines := soundEngines
	if seed%appleEvery == 0 {
		engines = append(engines[:len(engines):len(engines)], appleCPU)
	}
	for _, s := range engines {
		c, err := clean(ctx, b, s)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, c)
	}
	return out, routes, nil
}
