package tokenizer

import (
	"strings"

	"sibyl/internal/inputerr"
)

// qwen3 is Qwen3's template: texts as they are, tool calls as JSON.
func (w *renderer) qwen3() error {
	for i, m := range w.messages {
		if m.Content.None || m.Content.Parts != nil {
			return w.bad(field(i, "content"), "no string", "a string")
		}
	}
	text := func(i int) string { return w.messages[i].Content.Text }

	system := w.messages[0].Role == "system"
	if len(w.opt.Tools) > 0 {
		w.put("<|im_start|>system\n")
		if system {
			w.put(text(0), "\n\n")
		}
		w.put("# Tools\n\nYou may call one or more functions to assist with the user query.\n\n",
			"You are provided with function signatures within <tools></tools> XML tags:\n<tools>")
		if err := w.tools("\n"); err != nil {
			return err
		}
		w.put("\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n",
			"<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n")
	} else if system {
		w.put("<|im_start|>system\n", text(0), "<|im_end|>\n")
	}

	last := len(w.messages) - 1
	lastQuery := w.lastQuery(text)
	if lastQuery < 0 {
		lastQuery = last
	}
	for i, m := range w.messages {
		switch m.Role {
		case "system", "user":
			if m.Role == "user" || i > 0 {
				w.put("<|im_start|>", m.Role, "\n", text(i), "<|im_end|>\n")
			}
		case "assistant":
			content, reasoning := text(i), ""
			if m.Reasoning != nil {
				reasoning = *m.Reasoning
			} else if strings.Contains(content, "</think>") {
				reasoning, content = thoughts(content)
			}
			w.put("<|im_start|>assistant\n")
			if i > lastQuery && (i == last || reasoning != "") {
				w.put("<think>\n", strings.Trim(reasoning, "\n"), "\n</think>\n\n", strings.TrimLeft(content, "\n"))
			} else {
				w.put(content)
			}
			for k, call := range m.ToolCalls {
				if k > 0 || content != "" {
					w.put("\n")
				}
				if err := w.qwen3Call(i, call); err != nil {
					return err
				}
			}
			w.put("<|im_end|>\n")
		case "tool":
			if i == 0 || w.messages[i-1].Role != "tool" {
				w.put("<|im_start|>user")
			}
			w.put("\n<tool_response>\n", text(i), "\n</tool_response>")
			if i == last || w.messages[i+1].Role != "tool" {
				w.put("<|im_end|>\n")
			}
		default: // the Jinja text drops such a message without a word
			return w.bad(field(i, "role"), clipRole(m.Role), "system, user, assistant or tool")
		}
	}
	if w.opt.AddGenerationPrompt {
		w.put("<|im_start|>assistant\n")
		if w.opt.EnableThinking != nil && !*w.opt.EnableThinking {
			w.put("<think>\n\n</think>\n\n")
		}
	}
	return nil
}

func (w *renderer) qwen3Call(i int, call ToolCall) error {
	w.put("<tool_call>\n{\"name\": \"", call.Name, "\", \"arguments\": ")
	args, err := parsePython(call.Arguments)
	if err != nil {
		return w.bad(field(i, "tool_calls"), "arguments "+clip(call.Arguments), "JSON")
	}
	if s, ok := args.(string); ok { // already JSON, as the OpenAI API has it
		w.put(s)
	} else {
		w.put(string(appendPython(nil, args)))
	}
	w.put("}\n</tool_call>")
	return nil
}

func clipRole(role string) string { return inputerr.Clip(role, 40) }
