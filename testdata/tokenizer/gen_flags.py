"""Makes flags.json: what the Rust tokenizers library does with added tokens' flags, with normalized ones, and with odd
decodes, on the demo's vocabulary. Needs: pip install tokenizers==0.23.3. Run in this folder: python3 gen_flags.py"""
import json
import random

import tokenizers
from tokenizers import Tokenizer

base = json.load(open("opticks/tokenizer.json", encoding="utf-8"))
next_id = 2048


def added(content, **kw):
    global next_id
    x = dict(id=next_id, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    x.update(kw)
    next_id += 1
    return x


extra = [
    added("[S]", special=True),
    added("[w]", single_word=True),
    added("[l]", lstrip=True),
    added("[r]", rstrip=True),
    added("[lr]", lstrip=True, rstrip=True, special=True),
    added("caf\u00e9", normalized=True),
    added("na\u00efve", normalized=False),
    added("e\u0301cole", normalized=True),
    added("word", single_word=True, normalized=True),
    added("[S][S]"),
    added("two words"),
    added("\u00e9!\u00e9"),
    added("[n]", normalized=True, lstrip=True, rstrip=True),
]
base["added_tokens"] += extra
json.dump(base, open("flags_tokenizer.json", "w", encoding="utf-8"), ensure_ascii=False, indent=None, separators=(",", ":"))
tok = Tokenizer.from_file("flags_tokenizer.json")

bits = ["[S]", "[w]", "[l]", "[r]", "[lr]", "caf\u00e9", "cafe\u0301", "na\u00efve", "nai\u0308ve", "\u00e9cole", "e\u0301cole", "word",
        "[S][S]", "two words", "\u00e9!\u00e9", "e\u0301!e\u0301", "[n]", " ", "  ", "\n", "\t", "\u3000", "a", "Z", "7", "_", "-", "\u0301", "\u0323", "\u4e2d",
        "<|im_end|>", "<|im_", "\u1112\u1161\u11ab", "\uac00", "\u212b", "\u0958", "\u0f73", "\u0344", "\u2126", "\U0001d15e", "'s", "'\u017f", "\u200d"]
rng = random.Random(3)
texts = bits + ["x[w]", "[w]x", " [w] ", "([w])", "a [l] b", "a  [lr]  [lr]  b", "[r]  [l]", "[r] [n] [l]", "a \u0301[l]", "sword", "word,word", "\u00e9[S]\u0301"]
texts += ["".join(rng.choice(bits) for _ in range(rng.randint(2, 12))) for _ in range(400)]
cases = []
for text in texts:
    tok.encode_special_tokens = False
    e = tok.encode(text, add_special_tokens=False)
    tok.encode_special_tokens = True
    s = tok.encode(text, add_special_tokens=False).ids
    c = dict(text=text, kind="flags", ids=e.ids, offsets=e.offsets, decoded=tok.decode(e.ids, skip_special_tokens=False),
             decoded_skip_special=tok.decode(e.ids, skip_special_tokens=True), ids_split_special=s)
    cases.append(c)
decode = []
for _ in range(200):
    ids = [rng.choice([rng.randrange(256), rng.randrange(2048 + len(extra)), rng.randrange(2045, 2048 + len(extra))]) for _ in range(rng.randint(1, 8))]
    decode.append(dict(ids=ids, decoded=tok.decode(ids, skip_special_tokens=False), decoded_skip_special=tok.decode(ids, skip_special_tokens=True)))
out = dict(about=f"made by gen_flags.py with tokenizers {tokenizers.__version__}", cases=cases, decode=decode)
with open("flags.json", "w", encoding="utf-8") as f:
    json.dump(out, f, ensure_ascii=True, separators=(",", ":"))
    f.write("\n")
