"""Worker of sibyl's engine "coreai": drives Apple's coreai.runtime over JSON lines (protocol.go has the messages).

stdin: requests; fd 1 as it was: answers; stderr: whatever the runtime prints. One main loop runs requests, one thread
reads: it notes cancellations, and ends the process when sibyl is gone. Tensors go through files in the scratch folder.
"""
import asyncio, hashlib, json, os, platform, queue, signal, sys, threading, time

out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
os.dup2(2, 1)  # what the runtime prints must not stand between the answers
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's ^C is sibyl's to handle


def say(**message):
    out.write(json.dumps(message, allow_nan=False) + "\n")
    out.flush()


class Refusal(Exception):
    def __init__(self, code, msg, underlying="", fatal=False):
        super().__init__(msg)
        self.err = {"code": code, "msg": msg, "underlying": underlying, "fatal": fatal}


class Cancelled(Exception):
    pass


requests, cancelled = queue.Queue(), set()


def reader():
    for line in sys.stdin:
        r = json.loads(line)
        if r.get("op") == "cancel":
            cancelled.add(r["id"])
        else:
            requests.put(r)
    if threading.main_thread().is_alive():
        time.sleep(0.5)  # a close that came before the end of stdin
        os._exit(0)


def imports():
    """The runtime's modules and version; a Refusal says what is missing."""
    import importlib.metadata as meta
    try:
        version = meta.version("coreai-core")
        import ml_dtypes
        import numpy
        from coreai.authoring import AIModelAsset
        from coreai.runtime import NDArray
    except meta.PackageNotFoundError:
        raise Refusal("missing_runtime", "the package coreai-core is not installed for " + sys.executable, fatal=True)
    except Exception as e:  # a broken installation may raise anything
        raise Refusal("missing_runtime", "coreai-core does not load in " + sys.executable, f"{type(e).__name__}: {e}", True)
    return version, numpy, ml_dtypes, AIModelAsset, NDArray


class Worker:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.model = self.context = None
        self.states, self.len = {}, 0

    def wait(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    # hello: who answers. Nothing of a bundle is touched.
    def hello(self, r):
        if r.get("v") != 1:
            raise Refusal("protocol", f"this worker speaks version 1, not {r.get('v')}", fatal=True)
        version, self.np, self.ml, self.Asset, self.NDArray = imports()
        f16, bf16 = self.np.dtype("float16"), self.np.dtype(self.ml.bfloat16)
        self.dtypes = {"float16": ("F16", f16), "bfloat16": ("BF16", bf16), "float32": ("F32", self.np.dtype("float32")), "int32": ("I32", self.np.dtype("int32"))}
        self.named = dict(self.dtypes.values())
        return {"v": 1, "runtime": "coreai-core", "version": version, "engine": "coreai-cpu", "device": "CPU " + platform.machine(),
                "host": f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})", "os": platform.system()}

    def tensor(self, name, d):
        kind, _ = self.dtypes.get(str(d.dtype), (str(d.dtype), None))
        return {"name": name, "shape": [-1 if n is None or n < 0 else int(n) for n in d.shape], "dtype": kind}

    # open: loads the asset, finds main and prefill, and describes main.
    def open(self, r):
        start = time.monotonic()
        self.scratch = r["scratch"]
        try:
            from pathlib import Path
            self.context = self.Asset.load(Path(r["bundle"])).executable()
            self.model = self.wait(self.context.__aenter__())
        except Exception as e:
            raise Refusal("bad_bundle", "the runtime does not load this bundle", f"{type(e).__name__}: {e}")
        names = list(self.model.function_names)
        if "main" not in names:
            raise Refusal("unsupported_graph", f"functions {names}, and no main")
        self.main = self.model.load_function("main")
        self.prefill = self.model.load_function("prefill") if "prefill" in names else None
        d = self.main.desc
        self.inputs = {n: self.tensor(n, d.input_descriptor(n)) for n in d.input_names}
        outputs = {n: self.tensor(n, d.output_descriptor(n)) for n in d.output_names}
        self.described = {n: self.tensor(n, d.state_descriptor(n)) for n in d.state_names}
        if set(self.inputs) != {"input_ids", "position_ids"} or "logits" not in outputs:
            raise Refusal("unsupported_graph", f"inputs {sorted(self.inputs)} and outputs {sorted(outputs)}; known are input_ids and position_ids, and logits")
        if self.prefill and set(self.prefill.desc.state_names) != set(self.described):
            raise Refusal("unsupported_graph", "prefill has other states than main")
        call = self.inputs["input_ids"]["shape"][-1]
        self.empty()
        return {"functions": names, "inputs": list(self.inputs.values()), "outputs": list(outputs.values()), "states": list(self.described.values()),
                "vocab": outputs["logits"]["shape"][-1], "max_ctx": 0, "call": max(call, 0), "forcing": "stepwise", "load_ms": 1e3 * (time.monotonic() - start)}

    # The states: zero, from files, grown. A dynamic dimension is the cache's capacity; it changes no result.
    def empty(self, capacity=256):
        self.len, self.capacity = 0, capacity
        self.states = {n: self.NDArray(self.np.zeros([capacity if x < 0 else x for x in t["shape"]], self.named[t["dtype"]])) for n, t in self.described.items()}

    def grows(self, name, axis):
        return axis == 3 and name in ("keyCache", "valueCache")

    def grow(self, length):
        if length <= self.capacity:
            return
        old, size, n = {k: self.array(k) for k in self.states}, self.capacity, self.len
        while size < length:
            size *= 2
        self.empty(size)
        for k, a in old.items():
            self.put(k, a)
        self.len = n

    def array(self, name):
        return self.np.array(self.states[name].numpy())

    def put(self, name, a):
        whole = self.np.zeros(self.array(name).shape, a.dtype)
        whole[tuple(slice(0, n) for n in a.shape)] = a
        self.states[name] = self.NDArray(whole)

    def reset(self, r):
        given = {t["name"]: t for t in r.get("states") or []}
        if r["len"] and set(given) != set(self.described):
            raise Refusal("shape", f"states {sorted(given)}, the model has {sorted(self.described)}")
        self.empty()
        self.grow(r["len"])
        for name, t in given.items():
            want = self.described[name]
            same = len(t["shape"]) == len(want["shape"]) and all(n == w or self.grows(name, axis) for axis, (n, w) in enumerate(zip(t["shape"], want["shape"])))
            if not same or t["dtype"] != want["dtype"]:
                raise Refusal("shape", f"state {name} is {t['dtype']} {t['shape']}, the model's {want['dtype']} {want['shape']}")
            with open(os.path.join(self.scratch, t["file"]), "rb") as f:
                raw = f.read()
            if hashlib.sha256(raw).hexdigest() != t["sha256"]:
                raise Refusal("shape", f"the file of state {name} is not the one announced")
            self.put(name, self.np.frombuffer(raw, self.named[t["dtype"]]).reshape(t["shape"]))
        self.len = r["len"]
        return {"len": self.len}

    def save(self, rid):
        out = []
        for name, t in self.described.items():
            a = self.array(name)
            for axis, n in enumerate(t["shape"]):
                if self.grows(name, axis):  # of the capacity, what is filled
                    a = a.take(range(self.len), axis)
            raw, file = a.tobytes(), f"state-{rid}-{len(out)}"
            with open(os.path.join(self.scratch, file), "wb") as f:
                f.write(raw)
            out.append({"name": name, "shape": list(a.shape), "dtype": t["dtype"], "file": file, "sha256": hashlib.sha256(raw).hexdigest()})
        return out

    # call runs tokens through main, and gives the rows of logits; through prefill, which has no head, if none are wanted.
    def call(self, tokens, wanted):
        takes, n = self.inputs["input_ids"]["shape"][-1], self.len + len(tokens)
        if takes > 0 and len(tokens) != takes:
            raise Refusal("shape", f"{len(tokens)} tokens in a call, this graph takes {takes}")
        self.grow(n)
        fixed = [t["shape"][3] for name, t in self.described.items() if self.grows(name, 3) and t["shape"][3] > 0]
        if n > min(fixed, default=n):
            raise Refusal("context_full", f"no room for {n} tokens: the graph's caches hold {min(fixed)}")
        inputs = {"input_ids": self.NDArray(self.np.array([tokens], self.np.int32)), "position_ids": self.NDArray(self.np.arange(n, dtype=self.np.int32)[None])}
        f = self.main if wanted or not self.prefill else self.prefill
        try:
            result = self.wait(f(inputs, self.states))
        except Exception as e:
            raise Refusal("engine", "the runtime failed in a call", f"{type(e).__name__}: {e}")
        self.len = n
        return self.np.array(result["logits"].numpy()).reshape(len(tokens), -1) if wanted else None

    # feed consumes tokens in calls; rows(i, row) is told each position from on.
    def feed(self, r, start, rows):
        if r["pos"] != self.len:
            raise Refusal("protocol", f"asked to go on after {r['pos']} tokens, {self.len} were consumed", fatal=True)
        at, tokens, calls = 0, r.get("tokens") or [], r.get("calls") or []
        if sum(calls) != len(tokens) or min(calls, default=1) < 1:
            raise Refusal("protocol", f"calls {calls} for {len(tokens)} tokens", fatal=True)
        for n in calls:
            if r["id"] in cancelled:
                raise Cancelled
            got = self.call(tokens[at:at + n], at + n > start)
            for i in range(max(at, start), at + n):
                rows(i, got[i - at])
            at += n

    def force(self, r):
        first, file = r["pos"], f"rows-{r['id']}"
        with open(os.path.join(self.scratch, file), "wb", buffering=0) as f:
            def row(i, x):
                raw = x.tobytes()
                f.write(raw)
                say(id=r["id"], ev="step", pos=first + i, tok=int(x.argmax()), file=file, sha256=hashlib.sha256(raw).hexdigest())
            self.feed(r, r["from"], row)
        return {"states": self.save(r["id"])} if r.get("states") else {}

    def generate(self, r):
        last, start, prefilled = [], time.monotonic(), 0
        self.feed(r, len(r["tokens"]) - 1, lambda i, x: last.append(x))
        prefilled = time.monotonic() - start
        for i in range(r["max_new"]):
            x = last.pop()
            tok = int(x.argmax())
            top = float(x[tok])
            nan = top != top
            ties = [tok] if nan else self.np.flatnonzero(x == x[tok]).tolist()
            say(id=r["id"], ev="token", i=i, tok=tok, ties=ties, max=top if abs(top) < float("inf") else None, nan=nan, t_us=int(1e6 * (time.monotonic() - start)))
            if i + 1 == r["max_new"]:
                break
            if r["id"] in cancelled:
                raise Cancelled
            last.append(self.call([tok], True)[0])
        return {"prefill_us": int(1e6 * prefilled), "decode_us": int(1e6 * (time.monotonic() - start - prefilled))}

    def serve(self, r):
        op, rid = r["op"], r["id"]
        if op not in ("hello", "open", "reset", "force", "generate"):
            raise Refusal("protocol", f"no operation {op}", fatal=True)
        try:
            answer = getattr(self, op)(r)
        except Cancelled:
            return {"ev": "done", "reason": "cancelled", "len": self.len}
        if op in ("force", "generate"):
            return {"ev": "done", "reason": "max", "len": self.len, **answer}
        return {"ok": True, **answer}


def main():
    worker = Worker()
    threading.Thread(target=reader, daemon=True).start()
    while True:
        r = requests.get()
        if r["op"] == "close":
            if worker.model is not None:
                worker.wait(worker.context.__aexit__(None, None, None))
            os._exit(0)  # the runtime's threads have nothing to finish
        try:
            say(id=r["id"], **worker.serve(r))
        except Refusal as e:
            say(id=r["id"], ok=False, err=e.err)
        except Exception as e:
            import traceback
            traceback.print_exc()
            say(id=r["id"], ok=False, err={"code": "engine", "msg": f"{r['op']} failed in the worker", "underlying": f"{type(e).__name__}: {e}", "fatal": False})


main()
