package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sibyl/engine"
	"sibyl/tokenizer"
)

// generate runs the engine and, unless --json, prints the text as it becomes certain.
func (v *Run) generate(ctx context.Context, a *App, e engine.Engine, opt engine.Options, text *texts, r *runResult) error {
	var all strings.Builder
	say := func(s string) error {
		all.WriteString(s)
		if v.JSON.JSON || s == "" {
			return nil
		}
		if _, err := io.WriteString(a.Stdout, s); err != nil {
			return err
		}
		return a.Stdout.Flush()
	}
	decoder := &idPrinter{}
	if text != nil {
		decoder.StreamDecoder = text.NewStreamDecoder(true)
	}
	start := time.Now()
	opt.Progress = a.Progress("reading the prompt")
	var first time.Time
	err := e.Generate(ctx, engine.Prompt{IDs: r.PromptIDs}, opt, func(t *engine.Token) error {
		if t.Index == 0 {
			first = time.Now()
			a.Stderr.finish()
		}
		r.IDs = append(r.IDs, t.ID)
		if slices.Contains(opt.Stop, t.ID) {
			r.FinishReason = "stop"
		}
		return say(decoder.add(t.ID))
	})
	// An interrupted run still shows what it had.
	if tailErr := cmp.Or(say(decoder.flush()), v.endLine(a, &all)); err == nil {
		err = tailErr
	}
	r.Text = all.String()
	if !first.IsZero() {
		r.Timing.FirstToken, r.Timing.Decode = first.Sub(start).Seconds(), time.Since(first).Seconds()
		if n := len(r.IDs) - 1; n > 0 && r.Timing.Decode > 0 {
			r.Timing.DecodeRate = float64(n) / r.Timing.Decode
		}
	}
	if err == nil && a.Stderr.width > 0 {
		a.Note("%s, %.1f tokens/s after the first", countText(int64(len(r.IDs)))+" tokens", r.Timing.DecodeRate)
	}
	return err
}

// endLine ends the printed text with a line end.
func (v *Run) endLine(a *App, all *strings.Builder) error {
	if v.JSON.JSON || all.Len() == 0 || strings.HasSuffix(all.String(), "\n") {
		return nil
	}
	if _, err := io.WriteString(a.Stdout, "\n"); err != nil {
		return err
	}
	return a.Stdout.Flush()
}

// idPrinter prints ids as text, or, for a model without a tokenizer, as numbers, one a line.
type idPrinter struct{ *tokenizer.StreamDecoder }

func (p *idPrinter) add(id int32) string {
	if p.StreamDecoder == nil {
		return fmt.Sprintln(id)
	}
	return p.Add(id)
}

func (p *idPrinter) flush() string {
	if p.StreamDecoder == nil {
		return ""
	}
	return p.Flush()
}
