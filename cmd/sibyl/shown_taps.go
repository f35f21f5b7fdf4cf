package main

import (
	"context"

	"sibyl/config"
	"sibyl/internal/inputerr"
	"sibyl/trace"
)

// graphTaps is an engine that executes a graph: it shows what its graph has, and operations' results by number.
type graphTaps interface {
	OpTaps() []trace.Entry
	ShownTaps(entries []trace.Entry) []trace.Entry
}

// selectTaps chooses the taps that globs name of what s shows. Engine graph is asked what its graph has.
func (a *App) selectTaps(ctx context.Context, s Subject, c *config.Config, globs []string) (entries []trace.Entry, err error) {
	if s.Engine != "graph" {
		return trace.Select(c, globs)
	}
	e, err := a.open(ctx, s, "", "")
	if err != nil {
		return nil, err
	}
	defer closing(e, &err)
	g, ok := e.(graphTaps)
	if !ok {
		return trace.Select(c, globs)
	}
	if entries, err = trace.Select(c, globs, g.OpTaps()...); err != nil {
		return nil, err
	}
	if entries = g.ShownTaps(entries); len(entries) == 0 {
		return nil, &inputerr.Error{File: "--taps", Found: "taps that this graph has not", Want: "at least one that it has", Do: "leave --taps out: all that it has are shown"}
	}
	return entries, nil
}
