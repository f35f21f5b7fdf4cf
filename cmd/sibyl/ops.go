package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"sibyl/internal/inputerr"
	"sibyl/metal/gpu"
	"sibyl/metal/ops"
	"sibyl/metal/suite"
)

// Ops runs the op suite of package metal: kernels x formats x shapes. Exit 1 when a case fails.
type Ops struct {
	Filter string `placeholder:"WORDS" help:"Only cases whose name contains each of these words."`
	Engine string `enum:",metal,metal-cpu" default:"" placeholder:"metal|metal-cpu" help:"The device: an Apple GPU, or the CPU (default: the GPU on a Mac)."`
	Seed   uint64 `default:"1" help:"Of the random inputs."`
	Speed  bool   `help:"Then measure the kernels that decoding waits for, as shares of what adding two vectors moves."`
	List   bool   `help:"Print the cases' names and run nothing."`
	Output
	JSON
}

// Help is the part of the help below the flags.
func (*Ops) Help() string {
	return `One line a case: the largest difference from float64 as a share of its bound, which a running error analysis
gives, and in units in the last place. On the CPU device every case runs with three orders of threads, whose bits must
agree. A failed case prints the command that runs it again.

Examples:

  sibyl ops --filter 'embed_i8 cols=32' || echo "needs clang 19, or a Mac: exit $?"
  sibyl ops --list --filter attention`
}

// Run runs the suite.
func (v *Ops) Run(ctx context.Context, a *App) error {
	if err := v.Output.check(); err != nil {
		return err
	}
	cases := suite.Cases(v.Filter)
	if len(cases) == 0 {
		return &inputerr.Error{File: "ops", Field: "--filter", Found: inputerr.Clip(v.Filter, 80) + ", which no case's name contains", Want: "words of a case's name",
			Do: "sibyl ops --list prints the names"}
	}
	if v.List {
		return v.list(a, cases)
	}
	r, err := suite.Run(ctx, cases, v.Seed, func() (*ops.Set, error) { return kernelsOn(v.Engine, a.Threads) }, func(x suite.Result) {
		if v.JSON.JSON {
			return
		}
		fmt.Fprintln(a.Stdout, x)
		if x.Err != nil {
			fmt.Fprintf(a.Stdout, "     again: sibyl ops --seed %d --filter '%s'\n", x.Seed, x.Case)
		}
	})
	if err != nil {
		return err
	}
	if v.Speed {
		if r.Speeds, err = v.speeds(ctx, a); err != nil {
			return err
		}
	}
	if err := v.Output.write(r); err != nil {
		return err
	}
	if err := a.Emit(v.JSON.JSON, r, func(w io.Writer) error { return renderKernels(w, r) }); err != nil {
		return err
	}
	if r.Failed > 0 {
		return statusError(exitMismatch)
	}
	return nil
}

func (v *Ops) speeds(ctx context.Context, a *App) ([]suite.Speed, error) {
	set, err := kernelsOn(v.Engine, a.Threads)
	if err != nil {
		return nil, err
	}
	defer set.Device.Close()
	return suite.Speeds(ctx, set, 5)
}

func (v *Ops) list(a *App, cases []suite.Case) error {
	var names []string
	for _, c := range cases {
		names = append(names, c.Name())
	}
	return a.Emit(v.JSON.JSON, names, func(w io.Writer) error {
		for _, n := range names {
			fmt.Fprintln(w, n)
		}
		return nil
	})
}

// kernelsOn compiles the kernels on a device by its engine's name; "" is the GPU on a Mac, the CPU elsewhere.
func kernelsOn(engineName string, threads int) (*ops.Set, error) {
	device := gpu.CPU
	if engineName == "metal" || engineName == "" && runtime.GOOS == "darwin" {
		device = gpu.GPU
	}
	d, err := device(threads)
	if err != nil {
		return nil, err
	}
	return ops.Load(d)
}

// renderKernels prints a line a kernel and the count of all.
func renderKernels(w io.Writer, r *suite.Report) error {
	rows := [][]string{{"kernel", "cases", "failed", "of the bound", "max ulp", "NMSE", "same bits"}}
	for _, k := range r.Kernels {
		same := "-"
		if k.Outputs > 0 {
			same = fmt.Sprintf("%.1f %%", 100*float64(k.SameBits)/float64(k.Outputs))
		}
		rows = append(rows, []string{k.Op, fmt.Sprint(k.Cases), fmt.Sprint(k.Failed), fmt.Sprintf("%.2f", k.Worst), fmt.Sprintf("%.3g", k.MaxULP),
			fmt.Sprintf("%.2g", k.NMSE), same})
	}
	fmt.Fprintln(w)
	if err := table(w, "lrrrrrr", rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d cases, %d failed, on %s (%s), seed %d; %d orders of threads gave the same bits\n", r.Cases, r.Failed, r.Device.Name, r.Device.CompilerVersion, r.Seed,
		max(1, r.Device.Orders))
	if err != nil || len(r.Speeds) == 0 {
		return err
	}
	rows = [][]string{{"speed", "GB/s", "of adding"}}
	for _, s := range r.Speeds {
		rows = append(rows, []string{s.Case, fmt.Sprintf("%.2f", s.GBs), fmt.Sprintf("%.0f %%", 100*s.Share)})
	}
	fmt.Fprintln(w)
	if err := table(w, "lrr", rows); err != nil || r.Device.Kind == "gpu" {
		return err
	}
	_, err = fmt.Fprintln(w, "measured on the CPU device, whose times say nothing of a GPU")
	return err
}
