package main

import (
	"encoding/json"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/tokenizer"
)

// renderChat puts messages into the model's chat template, or into the one of that name.
func renderChat(chat *tokenizer.ChatInfo, name string, messages []tokenizer.Message, noThink, generation bool, tools []json.RawMessage) (string, error) {
	template, err := chooseTemplate(chat, name)
	if err != nil {
		return "", err
	}
	opt := tokenizer.RenderOptions{AddGenerationPrompt: generation, Tools: tools}
	if noThink {
		if !template.Thinking() {
			return "", &inputerr.Error{File: "--no-think", Found: "the template " + template.Name() + ", which has no thinking",
				Want: "a template that has", Do: "leave --no-think out"}
		}
		think := false
		opt.EnableThinking = &think
	}
	return template.Render(messages, opt)
}

// chooseTemplate is the model's own template where sibyl recognises it, unless one is named.
func chooseTemplate(chat *tokenizer.ChatInfo, name string) (*tokenizer.Template, error) {
	if name != "" {
		t, err := tokenizer.TemplateByName(name)
		if err != nil {
			return nil, &inputerr.Error{File: "--template", Found: inputerr.Clip(name, 40), Want: "a known template",
				Do: didYouMean(name, tokenizer.TemplateNames())}
		}
		return t, nil
	}
	return chat.Template() // its error names --template
}

// chatFile is what tokenize --chat reads: a list of messages, or an object with what the APIs send.
type chatFile struct {
	Messages []tokenizer.Message `json:"messages"`
	Tools    []json.RawMessage   `json:"tools"`
}

// parseChat reads a chat file.
func parseChat(name string, data []byte) (*chatFile, error) {
	var f chatFile
	var target any = &f
	if text := strings.TrimSpace(string(data)); strings.HasPrefix(text, "[") {
		target = &f.Messages
	}
	if err := json.Unmarshal(data, target); err != nil {
		return nil, badJSON(name, "", `a list of {"role":...,"content":...}, or {"messages":[...],"tools":[...]}`, err)
	}
	if len(f.Messages) == 0 {
		return nil, &inputerr.Error{File: name, Found: "no message", Want: "at least one"}
	}
	return &f, nil
}
