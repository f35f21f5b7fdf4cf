package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"sibyl/internal/inputerr"
)

// refusals are renderings that Jinja gives and sibyl does not, each with its cause: part of what was asked would vanish.
var refusals = map[string]string{
	"qwen3/unknown_role":      "the text drops a message of an unknown role without a word",
	"chatml/null_content/":    "tool calls would vanish",
	"chatml/odd_arguments":    "tool calls would vanish",
	"chatml/string_arguments": "tool calls would vanish",
	"chatml/multi_step":       "tool calls would vanish",
	"chatml/none/":            "Jinja renders nothing of no messages but the prompt",
	"/odd/think":              "chatml: tools would vanish",
}

func isRefused(name string) bool {
	for prefix := range refusals {
		if strings.HasPrefix(name, prefix) || prefix[0] == '/' && strings.HasPrefix(name, "chatml") && strings.Contains(name, prefix) {
			return true
		}
	}
	return false
}

// TestGoldenChat holds what the real vocabularies' goldens do not: lists of parts, null, odd JSON, errors, the 4B variant
// (testdata/tokenizer/gen_chat.py).
func TestGoldenChat(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(testdata, "chat.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Chat []struct {
			chatCase
			Template string
			Rendered *string
			Error    string
		}
	}
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Chat) != 4*19*4 {
		t.Fatalf("%d cases", len(g.Chat))
	}
	for _, c := range g.Chat {
		tpl, err := TemplateByName(c.Template)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tpl.Render(c.Messages, RenderOptions{AddGenerationPrompt: c.AddGenerationPrompt, EnableThinking: c.EnableThinking, Tools: c.Tools})
		var bad *inputerr.Error
		switch {
		case err != nil && !errors.As(err, &bad):
			t.Errorf("%s: %v is no error of bad input", c.Name, err)
		case c.Rendered == nil || isRefused(c.Name):
			if err == nil {
				t.Errorf("%s: rendered %q, want an error (Jinja: %s)", c.Name, got, c.Error)
			}
		case err != nil || got != *c.Rendered:
			t.Errorf("%s: %v\n got %q\nwant %q", c.Name, err, got, *c.Rendered)
		}
	}
}

// TestRenderErrors holds the whole text of each refusal.
func TestRenderErrors(t *testing.T) {
	t.Parallel()
	call := Message{Role: "assistant", ToolCalls: []ToolCall{{Name: "f", Arguments: json.RawMessage(`"{}"`)}}}
	for _, tt := range []struct {
		template, why string
		messages      []Message
		opt           RenderOptions
		want          string
	}{
		{"family", "no messages", nil, RenderOptions{}, "messages: found none, want at least one message; this is what the chat template family takes"},
		{"family", "late system", []Message{Text("user", "x"), Text("system", "y")}, RenderOptions{},
			`messages: [1].role: found "system", want the system message first; this is what the chat template family takes`},
		{"family", "no query", []Message{Text("system", "y")}, RenderOptions{},
			"messages: found no message of a user, want at least one that is not a <tool_response>; this is what the chat template family takes"},
		{"family", "role", []Message{Text("user", "x"), Text("critic", "y")}, RenderOptions{},
			`messages: [1].role: found "critic", want system, user, assistant or tool; this is what the chat template family takes`},
		{"family", "arguments as text", []Message{Text("user", "x"), call}, RenderOptions{},
			`messages: [1].tool_calls: found arguments "{}", want an object; this is what the chat template family takes`},
		{"qwen3", "no content", []Message{{Role: "user", Content: Content{None: true}}}, RenderOptions{},
			"messages: [0].content: found no string, want a string; this is what the chat template qwen3 takes"},
		{"chatml", "tools", []Message{Text("user", "x")}, RenderOptions{Tools: []json.RawMessage{[]byte("{}")}},
			"messages: tools: found 1 tools, want none: they would not be shown to the model; this is what the chat template chatml takes"},
		{"family", "broken tools", []Message{Text("user", "x")}, RenderOptions{Tools: []json.RawMessage{[]byte("{")}}, "tools: [0]: want JSON: it is not valid"},
	} {
		tpl, err := TemplateByName(tt.template)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tpl.Render(tt.messages, tt.opt); fmt.Sprint(err) != tt.want {
			t.Errorf("%s, %s:\n got %v\nwant %s", tt.template, tt.why, err, tt.want)
		}
	}
}

func TestMessageErrors(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"content": "x"}`:               "message: role: found nothing, want system, user, assistant or tool",
		`{"role": "user", "content": 7}`: "message: content: found 7, want a string or a list of text parts",
		`{"role": "user", "content": [{"type":"image","image":"x"}]}`: "message: content[0]: found an image part, want a text part: sibyl runs the text model only",
		`{"role": "user", "content": [{"type":"text"}]}`:              `message: content[0]: found a part without text, want {"type": "text", "text": "..."}`,
		`{"role": "user", "content": [{"type":"text","text":null}]}`:  `message: content[0]: found a part without text, want {"type": "text", "text": "..."}`,
	} {
		var m Message
		if err := json.Unmarshal([]byte(in), &m); fmt.Sprint(err) != want {
			t.Errorf("%s:\n got %v\nwant %s", in, err, want)
		}
	}
}

// TestChatInfo: which template and eos a folder names.
func TestChatInfo(t *testing.T) {
	t.Parallel()
	tok, info := loadDemo(t)
	tpl, err := info.Template()
	if err != nil || tpl.Name() != "chatml" || info.EOS != "<|im_end|>" || info.EOSID != 2047 || tpl.Thinking() {
		t.Errorf("demo: %v, %v, eos %q %d", tpl, err, info.EOS, info.EOSID)
	}
	if tok.VocabSize() != 2048 || !tok.IsSpecial(2047) || tok.IsSpecial(0) || len(tok.Added()) != 3 {
		t.Errorf("demo: %d tokens", tok.VocabSize())
	}

	jinja, err := fs.ReadFile(os.DirFS(testdata), "opticks/tokenizer_config.json")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Template string `json:"chat_template"`
	}
	if err := json.Unmarshal(jinja, &config); err != nil {
		t.Fatal(err)
	}
	small := &fstest.MapFile{Data: []byte(smallJSON())}
	const choose = "; choose one with --template family|chatml"
	for _, tt := range []struct {
		name string
		fsys fstest.MapFS
		want string // the template's name, or the error
	}{
		{"none", fstest.MapFS{"tokenizer.json": small}, "chat template: found none, want one sibyl knows" + choose},
		{"jinja-file", fstest.MapFS{"tokenizer.json": small, "chat_template.jinja": {Data: []byte(config.Template + "\n")}}, "chatml"},
		{"jinja-file-wins", fstest.MapFS{"tokenizer.json": small, "chat_template.jinja": {Data: []byte(config.Template)},
			"tokenizer_config.json": {Data: []byte(`{"chat_template": "x", "eos_token": {"content": "<|im_end|>"}}`)}}, "chatml"},
		{"list", fstest.MapFS{"tokenizer.json": small, "tokenizer_config.json": {Data: []byte(`{"chat_template": [{"name": "rag", "template": "y"}, {"name": "default", "template": "x"}]}`)}},
			"tokenizer_config.json: chat template: found one with sha256 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881, want one sibyl knows" + choose},
	} {
		_, info, err := LoadFS(tt.fsys, ".")
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		tpl, err := info.Template()
		var unknown *UnknownTemplateError
		var bad *inputerr.Error
		switch {
		case err == nil && tpl.Name() != tt.want:
			t.Errorf("%s: %s, want %s", tt.name, tpl.Name(), tt.want)
		case err != nil && (!errors.As(err, &unknown) || !errors.As(err, &bad) || err.Error() != tt.want):
			t.Errorf("%s:\n got %v\nwant %s", tt.name, err, tt.want)
		}
	}
	if _, err := TemplateByName("llama"); fmt.Sprint(err) != `--template: found "llama", want one of family, family-4b, qwen3, chatml` {
		t.Error(err)
	}
}

// FuzzTemplate: any conversation renders or is refused, in every template.
func FuzzTemplate(f *testing.F) {
	f.Add([]byte(`[{"role":"user","content":"q"},{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{"a":[1,2.5,null]}}}]}]`), []byte(`{"a":1e5}`))
	f.Add([]byte(`[{"role":"system","content":[{"text":"x"}]},{"role":"user","content":"</think>"},{"role":"tool"}]`), []byte(`[]`))
	f.Add([]byte(`[{"role":"user","content":""},{"role":"assistant","content":"<think></think>"}]`), []byte(`"`))
	f.Fuzz(func(t *testing.T, conversation, tool []byte) {
		var messages []Message
		if json.Unmarshal(conversation, &messages) != nil {
			return
		}
		for _, name := range TemplateNames() {
			tpl, err := TemplateByName(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, opt := range []RenderOptions{{}, {AddGenerationPrompt: true, Tools: []json.RawMessage{tool}}} {
				var bad *inputerr.Error
				if text, err := tpl.Render(messages, opt); err != nil && !errors.As(err, &bad) || err == nil && len(messages) > 0 && text == "" && len(opt.Tools) > 0 {
					t.Errorf("%s: %q, %v", name, text, err)
				}
			}
		}
	})
}
