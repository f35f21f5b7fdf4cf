package tokenizer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"sibyl/internal/inputerr"
)

// ChatInfo is what a checkpoint folder says about chats. The zero value is a folder that says nothing.
type ChatInfo struct {
	// File and Text are the chat template as it is in the folder: chat_template.jinja, else chat_template of
	// tokenizer_config.json, as in transformers. Both are empty when there is none.
	File, Text string
	// EOS is eos_token of tokenizer_config.json and EOSID its id, -1 when there is none. Generation may stop at more ids:
	// those are in generation_config.json.
	EOS   string
	EOSID int32
}

// SHA256 of the template's text, the hexadecimal digits by which Template recognises it. One final line end is not counted:
// Jinja drops it.
func (c *ChatInfo) SHA256() string { return templateSum(c.Text) }

func templateSum(text string) string {
	sum := sha256.Sum256([]byte(strings.TrimSuffix(text, "\n")))
	return hex.EncodeToString(sum[:])
}

// Template is the Go form of the folder's template. The error is an *UnknownTemplateError when there is none or it is not
// one that sibyl knows.
func (c *ChatInfo) Template() (*Template, error) {
	if c.Text != "" {
		sum := c.SHA256()
		for _, t := range templates {
			if slices.Contains(t.sums, sum) {
				return t, nil
			}
		}
	}
	return nil, &UnknownTemplateError{Info: *c}
}

// UnknownTemplateError asks the user to choose a template by name. errors.As also finds an *inputerr.Error in it.
type UnknownTemplateError struct{ Info ChatInfo }

func (e *UnknownTemplateError) Error() string { return e.Unwrap().Error() }

// Unwrap is the same as an error of bad input.
func (e *UnknownTemplateError) Unwrap() error {
	x := &inputerr.Error{File: e.Info.File, Field: "chat template", Want: "one sibyl knows", Do: "choose one with --template family|chatml"}
	if e.Info.Text == "" {
		x.Found = "none"
	} else {
		x.Found = "one with sha256 " + e.Info.SHA256()
	}
	return x
}

// loadChatInfo reads tokenizer_config.json and chat_template.jinja, both optional, and holds the first against t.
func loadChatInfo(fsys fs.FS, dir string, t *Tokenizer) (*ChatInfo, error) {
	info := &ChatInfo{EOSID: -1}
	name := path.Join(dir, "tokenizer_config.json")
	data, err := readFS(fsys, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := info.readConfig(name, data, t); err != nil {
			return nil, err
		}
	}
	name = path.Join(dir, "chat_template.jinja")
	data, err = readFS(fsys, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		info.File, info.Text = name, string(data)
	}
	return info, nil
}

func (c *ChatInfo) readConfig(name string, data []byte, t *Tokenizer) error {
	if err := notJSON(name, data); err != nil {
		return err
	}
	s := scanner{data: data}
	s.skip(0) // encoding/json accepts invalid UTF-8 and does not say where it fails
	s.end()
	if s.err != nil {
		s.err.File = name
		return s.err
	}
	var j struct {
		EOS      json.RawMessage `json:"eos_token"`
		Template json.RawMessage `json:"chat_template"`
		Added    map[string]struct {
			Content *string
		} `json:"added_tokens_decoder"`
	}
	bad := func(field, found, want, do string) error {
		return &inputerr.Error{File: name, Field: field, Found: found, Want: want, Do: do}
	}
	if err := json.Unmarshal(data, &j); err != nil {
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) {
			return bad(te.Field, "a JSON "+te.Value, "what transformers writes there", repairConfig)
		}
		return bad("", err.Error(), "an object", repairConfig)
	}
	// transformers lets this table overrule tokenizer.json; where they disagree the ids would not be Hugging Face's.
	for _, key := range sortedKeys(j.Added) {
		id, err := strconv.ParseInt(key, 10, 32)
		content := j.Added[key].Content
		if err != nil || content == nil {
			return bad("added_tokens_decoder", inputerr.Clip(key, 20), "an id and its content", repairConfig)
		}
		if got, ok := t.Piece(int32(id)); !ok || got != *content {
			found := "no such id"
			if ok {
				found = inputerr.Clip(got, 40)
			}
			return bad("added_tokens_decoder."+key, inputerr.Clip(*content, 40), "what tokenizer.json has: "+found, "take both files from the same checkpoint")
		}
	}
	eos, err := tokenText(j.EOS)
	if err != nil {
		return bad("eos_token", clip(j.EOS), "a token's text, or null", repairConfig)
	}
	if eos != "" {
		id, ok := t.ID(eos)
		if !ok {
			return bad("eos_token", inputerr.Clip(eos, 40), "a token of tokenizer.json", "take both files from the same checkpoint")
		}
		c.EOS, c.EOSID = eos, id
	}
	text, ok := templateText(j.Template)
	if !ok {
		return bad("chat_template", clip(j.Template), `a template's text, or a list with one named "default"`, repairConfig)
	}
	if text != "" {
		c.File, c.Text = name, text
	}
	return nil
}

const repairConfig = "take tokenizer_config.json from the base model again"

// tokenText reads "x", {"content": "x"} or null.
func tokenText(raw json.RawMessage) (string, error) {
	var text string
	if err := json.Unmarshal(orNull(raw), &text); err == nil {
		return text, nil
	}
	var token struct{ Content string }
	err := json.Unmarshal(raw, &token)
	return token.Content, err
}

// templateText reads a template, or the one named default of a list.
func templateText(raw json.RawMessage) (string, bool) {
	var text string
	if err := json.Unmarshal(orNull(raw), &text); err == nil {
		return text, true
	}
	var list []struct{ Name, Template string }
	if err := json.Unmarshal(raw, &list); err != nil {
		return "", false
	}
	for _, x := range list {
		if x.Name == "default" {
			return x.Template, true
		}
	}
	return "", false
}

func orNull(raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return json.RawMessage("null")
	}
	return raw
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Message is one turn, in the form of the OpenAI and Hugging Face APIs.
type Message struct {
	Role    string // system, user, assistant, tool
	Content Content
	// Reasoning is reasoning_content: what an assistant thought. nil when the message has none, which is not the same as "".
	Reasoning *string
	ToolCalls []ToolCall
}

// Text is a message of plain text.
func Text(role, text string) Message { return Message{Role: role, Content: Content{Text: text}} }

// Content is a string, or a list of text parts, or nothing (JSON null, or no content at all).
type Content struct {
	Text  string   // the string, or the parts joined
	Parts []string // the list; nil for a string
	None  bool
}

// ToolCall is a function an assistant called.
type ToolCall struct {
	Name string
	// Arguments is JSON, an object whose keys keep their order; nil when there are none.
	Arguments json.RawMessage
}

// UnmarshalJSON reads a message and refuses what sibyl cannot render: images, and fields nobody knows.
func (m *Message) UnmarshalJSON(data []byte) error {
	var j struct {
		Role      *string
		Content   json.RawMessage
		Reasoning *string `json:"reasoning_content"`
		ToolCalls []struct {
			Function  *jsonCall
			Name      string
			Arguments json.RawMessage
		} `json:"tool_calls"`
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return messageError("", clip(data), "an object with role and content", err)
	}
	if j.Role == nil {
		return messageError("role", "nothing", "system, user, assistant or tool", nil)
	}
	*m = Message{Role: *j.Role, Reasoning: j.Reasoning}
	if err := m.Content.UnmarshalJSON(orNull(j.Content)); err != nil {
		return err
	}
	for _, c := range j.ToolCalls {
		call := jsonCall{c.Name, c.Arguments}
		if c.Function != nil {
			call = *c.Function
		}
		m.ToolCalls = append(m.ToolCalls, ToolCall(call))
	}
	return nil
}

type jsonCall struct {
	Name      string
	Arguments json.RawMessage
}

// UnmarshalJSON reads a string, null, or a list of {"type": "text", "text": ...}.
func (c *Content) UnmarshalJSON(data []byte) error {
	*c = Content{}
	switch {
	case string(data) == "null":
		c.None = true
		return nil
	case json.Unmarshal(data, &c.Text) == nil:
		return nil
	}
	var parts []map[string]json.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil {
		return messageError("content", clip(data), "a string or a list of text parts", nil)
	}
	c.Parts = []string{}
	for i, p := range parts {
		var text string
		for _, key := range []string{"image", "image_url", "video"} {
			if _, ok := p[key]; ok {
				return messageError(fmt.Sprintf("content[%d]", i), "an "+key+" part", "a text part: sibyl runs the text model only", nil)
			}
		}
		if raw, ok := p["text"]; !ok || json.Unmarshal(raw, &text) != nil || string(raw) == "null" {
			return messageError(fmt.Sprintf("content[%d]", i), "a part without text", `{"type": "text", "text": "..."}`, nil)
		}
		c.Parts = append(c.Parts, text)
		c.Text += text
	}
	return nil
}

func messageError(field, found, want string, err error) error {
	return &inputerr.Error{File: "message", Field: field, Found: found, Want: want, Err: err}
}
