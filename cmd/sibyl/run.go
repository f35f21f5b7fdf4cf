package main

import (
	"context"
	"fmt"
	"time"

	"sibyl/engine"
	"sibyl/internal/inputerr"
)

// Run generates text: raw by default, as a turn of a conversation with --chat.
type Run struct {
	Args     []string `arg:"" optional:"" name:"[SUBJECT] PROMPT" help:"What to continue; - reads it from standard input. One argument is the PROMPT, unless it is a path, an id in the hub cache, or starts with @."`
	IDs      string   `name:"ids" placeholder:"IDS" help:"Token ids instead of a PROMPT: 1,2,3 or @FILE."`
	Engine   string   `placeholder:"NAME" help:"The engine, where SUBJECT names none: the same as @NAME."`
	Path     string   `default:"prefill" placeholder:"PATH" help:"How the prompt reaches the model: prefill, step, or chunk=N tokens a call; with +1 the last token in a call of its own."`
	Chat     bool     `help:"The PROMPT is a user's message; the model's chat template goes around it."`
	System   string   `placeholder:"TEXT" help:"The system message before it (with --chat)."`
	NoThink  bool     `help:"Ask the model not to think first (with --chat)."`
	Template string   `placeholder:"NAME" help:"Chat template where the model's own is not recognised: ${templates} (with --chat)."`
	Sampling

	MaxTokens *int `placeholder:"N" help:"Most tokens to generate (default: 128, or what max_position_embeddings leaves)."`
	JSON
}

// Help is the part of the help below the flags.
func (*Run) Help() string {
	return `The generated text goes to standard output as it comes, followed by a line end if it has none.
Special tokens are left out of the text; --json shows every id. Default parts: @cpu,fast.

Examples:

  sibyl run "The rays of light"
  sibyl run --temperature 0.8 --seed 7 "My dear Watson,"
  echo "Tom and Huck" | sibyl run -
  sibyl run --chat "What is the cause of colours?"
  sibyl run --json --max-tokens 4 --ids 1,2,3 @exact`
}

// defaultMaxTokens is what run generates if it is not told otherwise.
const defaultMaxTokens = 128

// runResult is what --json prints.
type runResult struct {
	PromptIDs    []int32   `json:"prompt_ids"`
	IDs          []int32   `json:"ids"`
	Text         string    `json:"text"`
	FinishReason string    `json:"finish_reason"` // "stop" or "length"
	Timing       runTiming `json:"timing"`
}

// runTiming is in seconds; rates are tokens a second.
type runTiming struct {
	Load       float64 `json:"load_s"`
	FirstToken float64 `json:"first_token_s"`
	Decode     float64 `json:"decode_s"`
	DecodeRate float64 `json:"decode_tokens_per_s"` // of the tokens after the first
}

// Run is the verb.
func (v *Run) Run(ctx context.Context, a *App) (err error) {
	start := time.Now()
	s, prompt, err := v.arguments(ctx, a)
	if err != nil {
		return err
	}
	if v.Engine != "" {
		if err := s.addEngine(v.Engine); err != nil {
			return err
		}
	}
	opt := engine.Options{}
	if opt.Path, err = parsePath(v.Path); err != nil {
		return err
	}
	if opt.Choose, err = v.Sampling.chooser(); err != nil {
		return err
	}
	v.Sampling.note(a)
	ckpt, err := a.source(ctx, s)
	if err != nil {
		return err
	}
	defer closing(ckpt, &err)
	ids, text, err := v.prompt(ctx, a, ckpt, prompt)
	if err != nil {
		return err
	}
	opt.MaxTokens = max(1, min(defaultMaxTokens, ckpt.Config().MaxPositions-len(ids)))
	if v.MaxTokens != nil {
		if opt.MaxTokens = *v.MaxTokens; opt.MaxTokens < 1 {
			return &inputerr.Error{File: "--max-tokens", Found: fmt.Sprint(opt.MaxTokens), Want: "1 or more"}
		}
	}
	if text != nil {
		opt.Stop = text.stop
	}
	if err := a.checkJob(ckpt, s, ids, job{tokens: len(ids), generated: opt.MaxTokens, path: opt.Path}); err != nil {
		return err
	}
	e, err := a.open(ctx, s, "fast", "")
	if err != nil {
		return err
	}
	defer closing(e, &err)
	r := runResult{PromptIDs: ids, IDs: []int32{}, FinishReason: "length"}
	r.Timing.Load = time.Since(start).Seconds()
	if err := v.generate(ctx, a, e, opt, text, &r); err != nil || !v.JSON.JSON {
		return err
	}
	return a.Emit(true, r, nil)
}
