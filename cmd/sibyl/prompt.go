package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sibyl/bundle"
	"sibyl/internal/inputerr"
	"sibyl/model"
	"sibyl/tokenizer"
)

// Sampling is how run draws tokens.
type Sampling struct {
	Temperature float64 `default:"0" placeholder:"T" help:"0 (the default) is greedy: always the likeliest token."`
	TopK        int     `default:"0" placeholder:"N" help:"Only the N likeliest; 0 means all."`
	TopP        float64 `default:"1" placeholder:"P" help:"Only the smallest set of tokens whose probability reaches P."`
	MinP        float64 `default:"0" placeholder:"P" help:"Only tokens at least P times as likely as the likeliest."`
	Seed        uint64  `default:"0" placeholder:"N" help:"Seed of the draws: the same seed draws the same tokens."`
}

// chooser is nil for greedy.
func (s *Sampling) chooser() (func([]float32) int32, error) {
	sampler, err := model.NewSampler(model.SamplerOptions{
		Temperature: s.Temperature, TopK: s.TopK, TopP: s.TopP, MinP: s.MinP, Seed: s.Seed,
	})
	if err != nil {
		return nil, &inputerr.Error{File: "sampling", Err: err}
	}
	if s.Temperature == 0 {
		return nil, nil
	}
	return sampler.Choose, nil
}

// note says which flags greedy decoding does not ask.
func (s *Sampling) note(a *App) {
	var idle []string
	for _, flag := range []string{"top-k", "top-p", "min-p", "seed"} {
		if slices.Contains(a.given, flag) {
			idle = append(idle, "--"+flag)
		}
	}
	if s.Temperature == 0 && len(idle) > 0 {
		a.Note("greedy decoding ignores %s; --temperature above 0 makes it sample", strings.Join(idle, ", "))
	}
}

// looksLikeHubID matches what was more likely meant as a model than as a prompt.
var looksLikeHubID = regexp.MustCompile(`^[\w.-]+/[\w.-]+(@[\w,:.-]*)?$`)

// arguments tells SUBJECT and PROMPT apart and reads standard input if the PROMPT is "-".
func (v *Run) arguments(ctx context.Context, a *App) (s Subject, prompt *string, err error) {
	var subject string
	switch {
	case len(v.Args) > 2:
		return s, nil, &usageError{fmt.Errorf("run: %d arguments, want at most SUBJECT and PROMPT; a PROMPT of several words needs quotes", len(v.Args))}
	case len(v.Args) == 2:
		subject, prompt = v.Args[0], &v.Args[1]
	case len(v.Args) == 1 && v.Args[0] != "-" && (v.IDs != "" || namesModel(v.Args[0])):
		subject = v.Args[0] // with --ids there is no PROMPT
	case len(v.Args) == 1:
		prompt = &v.Args[0]
		if looksLikeHubID.MatchString(*prompt) {
			a.Note("%q is neither a path nor in the local hub cache, so it is the prompt", *prompt)
		}
	}
	switch {
	case prompt == nil && v.IDs == "":
		e := &inputerr.Error{File: "run", Found: "no PROMPT", Want: `a text, "-" for standard input, or --ids`}
		if subject != "" && !strings.HasPrefix(subject, "@") {
			e.Do = fmt.Sprintf("%q was taken as the model, since it exists; to continue it as a text, write sibyl run @cpu %q", subject, subject)
		}
		return s, nil, e
	case prompt != nil && v.IDs != "":
		return s, nil, &inputerr.Error{File: "run", Found: "a PROMPT and --ids", Want: "one of them"}
	case v.IDs != "" && v.Chat:
		return s, nil, &inputerr.Error{File: "run", Found: "--ids and --chat", Want: "a PROMPT with --chat"}
	case !v.Chat && (v.System != "" || v.NoThink || v.Template != ""):
		return s, nil, &inputerr.Error{File: "run", Found: "--system, --no-think or --template without --chat", Want: "--chat with them"}
	}
	if s, err = a.subject(subject); err != nil {
		return s, nil, err
	}
	if prompt != nil && *prompt == "-" {
		text, err := a.stdinText(ctx)
		if err != nil {
			return s, nil, err
		}
		text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r") // the line end of echo is no part of a prompt
		prompt = &text
	}
	return s, prompt, nil
}

// prompt turns the PROMPT or --ids into ids. texts is nil for a model without a tokenizer, which only --ids can run.
func (v *Run) prompt(ctx context.Context, a *App, c bundle.Source, prompt *string) ([]int32, *texts, error) {
	t, tokErr := a.tokenizer(c)
	if v.IDs != "" {
		ids, err := a.ParseIDs(ctx, "--ids", v.IDs)
		if err == nil && tokErr != nil {
			a.Note("the model has no usable tokenizer, so ids are printed: %v", tokErr)
		}
		return ids, t, err
	}
	if tokErr != nil {
		return nil, nil, fmt.Errorf("%w (--ids needs no tokenizer)", tokErr)
	}
	text := *prompt
	if v.Chat {
		messages := []tokenizer.Message{tokenizer.Text("user", text)}
		if v.System != "" {
			messages = append([]tokenizer.Message{tokenizer.Text("system", v.System)}, messages...)
		}
		var err error
		if text, err = renderChat(t.chat, v.Template, messages, v.NoThink, true, nil); err != nil {
			return nil, nil, err
		}
	}
	enc, err := t.Encode(text, tokenizer.EncodeOptions{IDsOnly: true})
	if err != nil {
		return nil, nil, err
	}
	if len(enc.IDs) == 0 {
		return nil, nil, &inputerr.Error{File: "PROMPT", Found: "no token in it", Want: "at least one", Do: "give it some text"}
	}
	return enc.IDs, t, nil
}
