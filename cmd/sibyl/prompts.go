package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/oracle"
	"sibyl/tokenizer"
)

// prompts gathers what the flags ask for, in the order --prompt, --prompts, --ids; nothing asked for is the
// built-in set. Text needs the model's tokenizer, ids do not.
func (v *Gate) prompts(ctx context.Context, a *App, t *texts, tokErr error) ([]oracle.Prompt, error) {
	var out []oracle.Prompt
	add := func(name, text string) error {
		if tokErr != nil {
			return fmt.Errorf("%w (--ids needs no tokenizer)", tokErr)
		}
		enc, err := t.Encode(text, tokenizer.EncodeOptions{IDsOnly: true})
		out = append(out, oracle.Prompt{Name: name, Text: text, IDs: enc.IDs})
		return err
	}
	for i, text := range v.Prompt {
		if err := add(fmt.Sprintf("prompt %d", i+1), text); err != nil {
			return nil, err
		}
	}
	if v.Prompts != "" {
		data, err := a.readInput(ctx, "--prompts", v.Prompts)
		if err != nil {
			return nil, err
		}
		lines, err := parsePrompts(v.Prompts, data)
		if err != nil {
			return nil, err
		}
		for _, p := range lines {
			if p.IDs != nil {
				out = append(out, p)
			} else if err := add(p.Name, p.Text); err != nil {
				return nil, err
			}
		}
	}
	for i, value := range v.IDs {
		ids, err := a.ParseIDs(ctx, "--ids", value)
		if err != nil {
			return nil, err
		}
		out = append(out, oracle.Prompt{Name: fmt.Sprintf("ids %d", i+1), IDs: ids})
	}
	if len(v.Prompt)+len(v.IDs) == 0 && v.Prompts == "" {
		for _, p := range oracle.DemoPrompts() {
			if err := add(p.Name, p.Text); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// parsePrompts reads a prompt file: JSONL if its first line is an object, else one text a line. Empty lines are
// skipped.
func parsePrompts(file string, data []byte) ([]oracle.Prompt, error) {
	var out []oracle.Prompt
	isJSON := bytes.HasPrefix(bytes.TrimSpace(data), []byte("{"))
	for i, line := range strings.Split(string(data), "\n") {
		name := fmt.Sprintf("%s:%d", file, i+1)
		if strings.TrimSpace(line) == "" {
			continue
		}
		if !isJSON {
			out = append(out, oracle.Prompt{Name: name, Text: strings.TrimSuffix(line, "\r")})
			continue
		}
		var p struct {
			Name string  `json:"name"`
			Text *string `json:"text"`
			IDs  []int32 `json:"ids"`
		}
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&p); err != nil {
			return nil, badJSON(name, "", `{"text":"..."} or {"ids":[...]}, with a "name" if you like`, err)
		}
		if (p.Text == nil) == (p.IDs == nil) {
			return nil, &inputerr.Error{File: name, Found: `both or neither of "text" and "ids"`, Want: "one of them"}
		}
		if p.Name != "" {
			name = p.Name
		}
		q := oracle.Prompt{Name: name, IDs: p.IDs}
		if p.Text != nil {
			q.Text = *p.Text
		}
		out = append(out, q)
	}
	if len(out) == 0 {
		return nil, &inputerr.Error{File: file, Found: "no prompt", Want: "one a line"}
	}
	return out, nil
}

// checkLength refuses a prompt the model has no place for.
func (a *App) checkLength(c bundle.Source, name string, ids []int32, j job) error {
	cfg := c.Config()
	limits := engine.Limits{ConfigFile: cfg.File, VocabSize: cfg.VocabSize, MaxPositions: cfg.MaxPositions}
	return limits.Check(name, engine.Prompt{IDs: ids, PositionIDs: j.position}, j.path, j.have, j.generated)
}

// stages is Progress for a job of several stages, each with a bar of its own; the second before the first is the job's.
func (a *App) stages() func(stage string, done, total int) {
	var mu sync.Mutex
	start, current, report := a.Stderr.now(), "", func(done, total int64) {}
	return func(stage string, done, total int) {
		mu.Lock()
		defer mu.Unlock()
		if stage != current {
			a.Stderr.finish()
			current, report = stage, a.progressSince(start, stage)
		}
		report(int64(done), int64(total))
	}
}
