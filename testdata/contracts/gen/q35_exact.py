"""Bit goldens of contract coreai-bf16, testdata/contracts/q35-exact.json, made by its executable specification.

    python q35_exact.py SPECIFICATION SOURCE

SPECIFICATION is the folder of np_q35.py (its mode "exact" is the contract), SOURCE holds goldens/ and opticks-2m/.
Needs numpy 2.4.6, ml_dtypes 0.6.0 and gcc, as the specification does. The contract promises every
bit, so a sha256 of each tensor says as much as its bytes. Each prompt is run in three ways: decode (a call a token), whole
(one call), chunk16 (calls of 16); logits are fp16, the four states bf16 in the port's layouts. Running it again changes
nothing.

In one place the specification's code does not do what its table and the graph say: m = R32(mean) is one op
(coreai.reduce_mean), and the code rounds the sum before it divides. It shows where the width is no power of two, which no
recorded bundle's is. `norm` below is the specification's with the mean rounded once.
"""
import hashlib, json, os, struct, sys, tempfile

sys.path.insert(0, sys.argv[1])
import np_q35 as q35  # noqa: E402
import numpy as np  # noqa: E402

SETS = [("tiny-dense-gva", "u4"), ("tiny-dense-gva", "bf16"), ("tiny-moe", "u4"), ("tiny-moe", "bf16"),
        ("tiny-dense-tied", "u4"), ("tiny-realdims", "u4"), ("tiny-asym", "bf16"), ("opticks-2m", "u4")]
CALLS = {"decode": 1, "whole": 1 << 30, "chunk16": 16}
LONGEST = 70


def norm(m, x, w, plain=False):
    x = q35.F(x)
    v = ((x * x).astype(np.float64).sum(-1) / x.shape[-1]).astype(np.float32)[..., None]
    t = x * m.rsqrt(v + np.float32(1e-6))
    return q35.B(q35.F(q35.B(t)) * q35.F(w)) if plain else q35.B(t * (q35.F(w) + np.float32(1)))


q35.Model.norm = norm


def nested(path):
    """A text-only checkpoint (flat config, names without language_model) in the form that the specification reads."""
    config = json.load(open(f"{path}/config.json"))
    if "text_config" in config:
        return path
    out = tempfile.mkdtemp()
    json.dump({"text_config": config}, open(f"{out}/config.json", "w"))
    b = open(f"{path}/model.safetensors", "rb").read()
    n = struct.unpack("<Q", b[:8])[0]
    head = json.loads(b[8:8 + n])
    head = {k.replace("model.", "model.language_model.", 1) if k.startswith("model.") else k: v for k, v in head.items()}
    text = json.dumps(head).encode()
    open(f"{out}/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + b[8 + n:])
    return out


def digest(x):
    x = np.ascontiguousarray(x)
    name = {"float16": "F16", "bfloat16": "BF16"}[x.dtype.name]
    return {"dtype": name, "shape": list(x.shape), "sha256": hashlib.sha256(x.view(np.uint16).astype("<u2").tobytes()).hexdigest()}


def run(config, weights, ids, call):
    m = q35.Model(config, weights, "exact")
    logits = np.concatenate([m.step(ids[i:i + call]) for i in range(0, len(ids), call)])
    out = {"logits": digest(logits)}
    out.update({k: digest(v) for k, v in m.state().items()})
    greedy = [int(logits[-1].argmax())]
    while len(greedy) < 8:
        greedy.append(int(m.step([greedy[-1]])[0].argmax()))
    out["greedy.ids"] = {"dtype": "I32", "shape": [len(greedy)], "ids": greedy}
    return out


def prompts(path):
    """The shortest, the middle and the longest of the set's own prompts, cut to LONGEST: calls of 16 leave a rest."""
    ids = json.load(open(f"{path}/graph.json"))["prompts"]
    names = sorted(ids, key=lambda n: (len(ids[n]), n))
    return {n: [int(i) for i in ids[n][:LONGEST]] for n in (names[0], names[len(names) // 2], names[-1])}


def main(source):
    spec = hashlib.sha256(open(f"{sys.argv[1]}/np_q35.py", "rb").read()).hexdigest()
    sets = []
    for name, scheme in SETS:
        base = f"{source}/opticks-2m" if name == "opticks-2m" else f"{source}/goldens/{name}"
        config, weights, _ = q35.weights(nested(base), scheme)
        entry = {"set": name, "scheme": scheme, "prompts": prompts(base), "tensors": {}}
        for p, ids in entry["prompts"].items():
            for way, call in CALLS.items():
                for k, v in run(config, weights, ids, call).items():
                    entry["tensors"][f"{p}.{way}.{k}"] = v
            print(name, scheme, p, len(ids), flush=True)
        sets.append(entry)
    at = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "q35-exact.json")
    with open(at, "w") as f:
        json.dump({"specification": "np_q35.py, mode exact", "specification_sha256": spec, "sets": sets}, f, indent=1, sort_keys=True)
        f.write("\n")


main(sys.argv[2])
