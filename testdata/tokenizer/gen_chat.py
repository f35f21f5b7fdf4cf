"""Makes chat.json: conversations beyond those of qwen35.json and qwen3.json, rendered by Jinja from the templates' own texts
in the environment of transformers 5.23 (utils/chat_template_utils.py: trim_blocks, lstrip_blocks, tojson without ascii).

python3 gen_chat.py FAMILY.jinja QWEN3_tokenizer_config.json (needs jinja2). The texts are not in this repository: FAMILY.jinja
must have the sha256 that qwen35.json names; family-4b is made from it by the clause described there."""
import hashlib
import json
import sys

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception

family = open(sys.argv[1], encoding="utf-8").read().removesuffix("\n")
assert hashlib.sha256(family.encode()).hexdigest() == json.load(open("qwen35.json"))["about"]["chat_template_sha256"]
clause = "{%- if loop.index0 > ns.last_query_index %}"
assert family.count(clause) == 1
qwen3 = json.load(open(sys.argv[2], encoding="utf-8"))["chat_template"]
assert hashlib.sha256(qwen3.encode()).hexdigest() == json.load(open("qwen3.json"))["about"]["chat_template_sha256"]
texts = {
    "family": family,
    "family-4b": family.replace(clause, clause.replace(" %}", " and reasoning_content %}")),
    "qwen3": qwen3,
    "chatml": json.load(open("opticks/tokenizer_config.json", encoding="utf-8"))["chat_template"],
}


def call(name, args, wrap=True):
    c = {"name": name, "arguments": args}
    return {"type": "function", "function": c} if wrap else c


U = {"role": "user", "content": "q"}
odd = {"b": True, "n": None, "i": -0, "f": 2.0, "e": 1e-5, "E": 1e16, "big": 123456789012345678901234567890, "s": "a\"b\\\n\t\u0001\u007f/<>&'", "l": [], "o": {},
       "nested": [[1, [2, {"z": 0.1, "a": -1.5e300}]]], "float": 123456.789, "small": 0.0001, "": ""}
conversations = {
    "parts": [{"role": "system", "content": [{"type": "text", "text": " a "}, {"type": "text", "text": "b "}]}, {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "\u00e9"}]}],
    "no_parts": [{"role": "user", "content": []}],
    "null_content": [U, {"role": "assistant", "content": None, "tool_calls": [call("f", {"x": 1})]}, {"role": "tool", "content": "1"}],
    "odd_arguments": [U, {"role": "assistant", "content": "text", "tool_calls": [call("f", odd), call("g", {}, wrap=False)]}, {"role": "tool", "content": " 1 "}, {"role": "tool", "content": "2"}],
    "string_arguments": [U, {"role": "assistant", "content": "", "tool_calls": [call("f", "{\"x\":1}")]}],
    "reasoning": [U, {"role": "assistant", "content": "a", "reasoning_content": "\n r \n"}, U, {"role": "assistant", "content": "b", "reasoning_content": " s "}],
    "empty_reasoning": [U, {"role": "assistant", "content": "<think>t</think>a", "reasoning_content": ""}],
    "multi_step": [U, {"role": "assistant", "content": "", "reasoning_content": "r1", "tool_calls": [call("f", {})]}, {"role": "tool", "content": "x"},
                   {"role": "assistant", "content": "mid", "tool_calls": [call("f", {"a": "b"})]}, {"role": "tool", "content": "y"}, {"role": "assistant", "content": "end"}],
    "two_thinks": [U, {"role": "assistant", "content": "<think>\n\na<think>b\n\n</think>\nc</think>\n\n\nd"}],
    "think_no_open": [U, {"role": "assistant", "content": "a\n</think>\n\nb"}],
    "tool_first": [{"role": "tool", "content": "x"}, U],
    "tool_last": [U, {"role": "tool", "content": "x"}, {"role": "tool", "content": "y"}],
    "late_system": [U, {"role": "system", "content": "s"}],
    "no_user": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}],
    "only_tool_response": [{"role": "user", "content": "<tool_response>x</tool_response>"}],
    "unknown_role": [U, {"role": "critic", "content": "c"}],
    "empty_system": [{"role": "system", "content": " \n"}, U],
    "space": [{"role": "user", "content": "\u00a0\u3000\u001c\u200b x \u001f\u0085"}, {"role": "assistant", "content": "\n\n a \n"}],
    "none": [],
}
tools = {"none": None, "odd": [{"type": "function", "function": {"name": "f", "description": "\u00e9 <b> \"q\" \u2028", "parameters": odd}}, {"z": 1, "a": 2}]}
out = []
for template, text in texts.items():
    compiled = env.from_string(text)
    for name, messages in conversations.items():
        for tname, tool in tools.items():
            for think in (None, False):
                kw = {} if think is None else {"enable_thinking": think}
                c = dict(name=f"{template}/{name}/{tname}/think={think}", template=template, messages=messages, tools=tool, add_generation_prompt=True, enable_thinking=think)
                try:
                    c["rendered"] = compiled.render(messages=messages, tools=tool, add_generation_prompt=True, **kw)
                except Exception as e:
                    c["error"] = f"{type(e).__name__}: {e}"
                out.append(c)
with open("chat.json", "w", encoding="utf-8") as f:
    json.dump(dict(about=f"made by gen_chat.py with jinja2 {jinja2.__version__}", chat=out), f, separators=(",", ":"))
    f.write("\n")
