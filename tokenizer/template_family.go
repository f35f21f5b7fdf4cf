package tokenizer

import (
	"encoding/json"
	"strings"
)

const familyTools = `

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell the user about function calls
</IMPORTANT>`

// family is Qwen3.5's template. Every text is stripped; thoughts are shown only after the last user's query, there always
// with a <think> block, or with thinkOnlyIfAny (the 4B variant) only where there are thoughts.
func (w *renderer) family(thinkOnlyIfAny bool) error {
	text := func(i int) string { return pyStrip(w.messages[i].Content.Text) }

	system := w.messages[0].Role == "system"
	if len(w.opt.Tools) > 0 {
		w.put("<|im_start|>system\n# Tools\n\nYou have access to the following functions:\n\n<tools>")
		if err := w.tools("\n"); err != nil {
			return err
		}
		w.put("\n</tools>", familyTools)
		if system && text(0) != "" {
			w.put("\n\n", text(0))
		}
		w.put("<|im_end|>\n")
	} else if system {
		w.put("<|im_start|>system\n", text(0), "<|im_end|>\n")
	}

	lastQuery := w.lastQuery(text)
	if lastQuery < 0 {
		return w.bad("", "no message of a user", "at least one that is not a <tool_response>")
	}
	for i, m := range w.messages {
		switch m.Role {
		case "system":
			if i > 0 {
				return w.bad(field(i, "role"), `"system"`, "the system message first")
			}
		case "user":
			w.put("<|im_start|>user\n", text(i), "<|im_end|>\n")
		case "assistant":
			content, reasoning := text(i), ""
			if m.Reasoning != nil {
				reasoning = *m.Reasoning
			} else if strings.Contains(content, "</think>") {
				reasoning, content = thoughts(content)
			}
			reasoning = pyStrip(reasoning)
			w.put("<|im_start|>assistant\n")
			if i > lastQuery && (reasoning != "" || !thinkOnlyIfAny) {
				w.put("<think>\n", reasoning, "\n</think>\n\n")
			}
			w.put(content)
			for k, call := range m.ToolCalls {
				switch {
				case k > 0:
					w.put("\n")
				case pyStrip(content) != "":
					w.put("\n\n")
				}
				if err := w.familyCall(i, call); err != nil {
					return err
				}
			}
			w.put("<|im_end|>\n")
		case "tool":
			if i > 0 && w.messages[i-1].Role != "tool" {
				w.put("<|im_start|>user")
			}
			w.put("\n<tool_response>\n", text(i), "\n</tool_response>")
			if i == len(w.messages)-1 || w.messages[i+1].Role != "tool" {
				w.put("<|im_end|>\n")
			}
		default:
			return w.bad(field(i, "role"), clipRole(m.Role), "system, user, assistant or tool")
		}
	}
	if w.opt.AddGenerationPrompt {
		w.put("<|im_start|>assistant\n<think>\n")
		if w.opt.EnableThinking != nil && !*w.opt.EnableThinking {
			w.put("\n</think>\n\n")
		}
	}
	return nil
}

func (w *renderer) familyCall(i int, call ToolCall) error {
	w.put("<tool_call>\n<function=", call.Name, ">\n")
	if call.Arguments != nil {
		args, err := parsePython(call.Arguments)
		object, ok := args.(pyObject)
		if err != nil || !ok {
			return w.bad(field(i, "tool_calls"), "arguments "+clip(call.Arguments), "an object")
		}
		for _, kv := range object {
			w.put("<parameter=", kv.key, ">\n", pyDisplay(kv.value), "\n</parameter>\n")
		}
	}
	w.put("</function>\n</tool_call>")
	return nil
}

// pyDisplay is "x | tojson if x is a mapping or a list else x | string": a string without quotes, True, None.
func pyDisplay(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		if v {
			return "True"
		}
		return "False"
	case nil:
		return "None"
	case json.Number:
		return pyNumber(v, true)
	}
	return string(appendPython(nil, v))
}
