package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"sibyl/metal/ops"
	"sibyl/metal/suite"
)

// MetalReport is what `doctor metal` says of a device, and what its JSON file holds: something to attach to an issue.
type MetalReport struct {
	System string        `json:"system"` // "darwin/arm64"
	Note   string        `json:"note,omitempty"`
	Suite  *suite.Report `json:"suite"`
}

// doctorMetal holds every kernel of package metal to float64 on this machine's device, then measures those that decoding waits for. Every seventh case is
// run; sibyl ops runs them all.
func doctorMetal(ctx context.Context, a *App) (*MetalReport, error) {
	r := &MetalReport{System: runtime.GOOS + "/" + runtime.GOARCH}
	name := "metal"
	if runtime.GOOS != "darwin" {
		name, r.Note = "metal-cpu", "this is no Mac: the kernels ran on the CPU device"
	}
	fresh := func() (*ops.Set, error) { return kernelsOn(name, a.Threads) }
	var cases []suite.Case
	for i, c := range suite.Cases("") {
		if i%7 == 0 {
			cases = append(cases, c)
		}
	}
	show, done := a.Progress("kernels"), int64(0)
	var err error
	r.Suite, err = suite.Run(ctx, cases, 1, fresh, func(suite.Result) {
		done++
		show(done, int64(len(cases)))
	})
	if err != nil {
		return nil, err
	}
	set, err := fresh()
	if err != nil {
		return nil, err
	}
	defer set.Device.Close()
	runs := 20
	if name == "metal-cpu" {
		runs = 2
	}
	r.Suite.Speeds, err = suite.Speeds(ctx, set, runs)
	return r, err
}

// renderMetal is the report for people.
func renderMetal(w io.Writer, r *MetalReport) error {
	if err := renderKernels(w, r.Suite); err != nil {
		return err
	}
	if r.Note != "" {
		_, err := fmt.Fprintf(w, "\n%s\n", r.Note)
		return err
	}
	return nil
}

// metal is doctor metal.
func (v *Doctor) metal(ctx context.Context, a *App) error {
	r, err := doctorMetal(ctx, a)
	if err != nil {
		return err
	}
	if err := v.Output.write(r); err != nil {
		return err
	}
	if err := a.Emit(v.JSON.JSON, r, func(w io.Writer) error { return renderMetal(w, r) }); err != nil {
		return err
	}
	if r.Suite.Failed > 0 {
		return statusError(exitMismatch)
	}
	return nil
}
