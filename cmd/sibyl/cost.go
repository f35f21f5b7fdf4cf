package main

import (
	"fmt"
	"math"
	"runtime"
	"time"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/bench"
	"sibyl/internal/kernels"
	"sibyl/oracle"
	"sibyl/precision"
)

// costShown: a job that is estimated to take longer is announced.
const costShown = 10 * time.Second

// pass is texts going through one CPU engine, or a reading of the weights for something else.
type pass struct {
	mode     string // "exact", "fast", "" for a contract's own arithmetic
	tokens   int    // through the layers, all readings together
	heads    int    // positions whose logits are asked for
	readings int    // how often the weights are read; 0: together with the pass before
	perToken bool   // a reading is what one token needs: of experts the chosen ones, of the embedding a row
}

// cost is what a job asks for, by its matrices: attention over the context and the delta rule are left out.
type cost struct {
	Readings int
	Bytes    int64
	Flops    float64
	Time     time.Duration
}

func (c cost) String() string {
	return fmt.Sprintf("about %s: %s of the weights, %s in all, and %.3g TFLOP", timeText(c.Time), plural(c.Readings, "reading", "readings"), bytesText(c.Bytes), c.Flops/1e12)
}

func timeText(d time.Duration) string {
	switch s := d.Seconds(); {
	case s < 90:
		return fmt.Sprintf("%.0f s", s)
	case s < 5400:
		return fmt.Sprintf("%.0f min", s/60)
	default:
		return fmt.Sprintf("%.1f h", s/3600)
	}
}

// announce tells, before a job that takes long, what it costs at the speed this machine multiplies and reads now. It
// describes the job as it goes if no position flips.
// more is what may come on top.
func (a *App) announce(c bundle.Source, more string, passes ...pass) {
	total := estimate(c, a.Threads, passes, func(mode string, threads int) float64 { return multiplyRate(c.Config(), mode, threads) },
		func() (first, again float64) { return readRates(c, a.spareMemory) })
	if total.Time > costShown {
		a.Note("%s%s", total, more)
	}
}

// estimate adds up the passes. Reading and multiplying overlap when a model is streamed or mapped, so the longer of the two
// counts in each pass. The rates, in operations and bytes a second, are measured only where a job may be long; read gives the
// first reading's and the later ones'.
func estimate(c bundle.Source, threads int, passes []pass, multiply func(mode string, threads int) float64, read func() (first, again float64)) (total cost) {
	w := bench.WorkOf(c.Config(), c.Sizes().TotalPerToken())
	size := func(p pass) int64 {
		if p.perToken {
			return int64(p.readings) * w.Bytes
		}
		return int64(p.readings) * c.Sizes().Total()
	}
	for _, p := range passes {
		total.Flops += float64(p.tokens)*w.Body + float64(p.heads)*w.Head
		total.Readings += p.readings
		total.Bytes += size(p)
	}
	first, again := math.Inf(1), math.Inf(1)
	if total.Bytes > 1e9 {
		first, again = read()
	}
	rates := map[string]float64{}
	unread := float64(c.Sizes().Total()) // comes from the disk, whatever asks for it
	var sum, compute, reading float64
	for i, p := range passes {
		if flops := float64(p.tokens)*w.Body + float64(p.heads)*w.Head; flops >= 1e10 { // else seconds at most, whatever the machine
			if _, ok := rates[p.mode]; !ok {
				rates[p.mode] = multiply(p.mode, threads)
			}
			compute += flops / rates[p.mode]
		}
		bytes := float64(size(p))
		fresh := min(bytes, unread)
		unread -= fresh
		reading += fresh/first + (bytes-fresh)/again
		if i+1 < len(passes) && passes[i+1].readings == 0 {
			continue // goes through the layers with this one
		}
		sum += max(compute, reading)
		compute, reading = 0, 0
	}
	total.Time = time.Duration(sum * float64(time.Second))
	return total
}

// multiplyRate measures the float32 operations a second of an arithmetic's matrix product, over a matrix of bf16 values as wide
// as the model: first with few tokens, then, where that was quick, with as many as a pass has.
func multiplyRate(c *config.Config, mode string, threads int) float64 {
	arith := kernels.Fast
	if mode != "fast" {
		arith = kernels.Exact
	}
	rows, n := 1024, min(max(64, c.HiddenSize), 8192)
	data := make([]byte, 2*rows*n)
	for i := range data {
		data[i] = byte(i*7 + i>>9)
		if i%2 == 1 {
			data[i] = 0x3e | data[i]&0x81 // exponents near one, both signs
		}
	}
	m, err := kernels.NewMatrix(kernels.BF16, rows, n, data, precision.F32)
	if err != nil {
		panic(err) // the sizes above agree
	}
	const most = 256
	x, out := make([]float32, most*n), make([]float32, most*rows)
	for i := range x {
		x[i] = float32(i%17) - 8
	}
	pool, rate := kernels.NewPool(threads), 0.0
	for _, tokens := range []int{16, most} {
		start := time.Now()
		arith.Linear(pool, out, x[:tokens*n], tokens, m)
		rate = 2 * float64(tokens*rows*n) / time.Since(start).Seconds()
		if rate < 1e10 {
			break
		}
	}
	return rate
}

// readRates asks for pieces of weights all over the model, 64 MB in all, touches them and does so again. It gives the bytes a
// second of both: of a disk and of the memory, unless all was in memory, or the model does not stay there.
func readRates(c bundle.Source, spare func() (int64, error)) (first, again float64) {
	const pieces, each = 8, 8 << 20
	cfg, all := c.Config(), int64(0)
	var took [2]float64
	for turn := range took {
		start := time.Now()
		for i := range pieces {
			role := config.GateProj
			if cfg.MoE != nil {
				role = config.ExpertsGateUp
			}
			t, err := c.Tensor(role, i*cfg.NumLayers/pieces)
			if err != nil || len(t.Data) == 0 {
				return 1e9, 1e9 // single experts: many small files; a plain disk
			}
			data := t.Data[:min(len(t.Data), each)]
			c.WillNeed(t, 0, len(data))
			var sum byte
			for i := 0; i < len(data); i += 512 {
				sum += data[i]
			}
			runtime.KeepAlive(sum) // or the loop would be dropped
			c.Drop(t, 0, len(data))
			if turn == 0 {
				all += int64(len(data))
			}
		}
		took[turn] = max(time.Since(start).Seconds(), 1e-9)
	}
	first, again = float64(all)/took[0], float64(all)/took[1]
	if left, err := spare(); err != nil || c.Sizes().Total() > left {
		again = min(first, again)
	}
	return first, again
}

// onCPU says whether the CPU engine runs s.
func (s Subject) onCPU() bool { return s.Trace == "" && (s.Engine == "" || s.Engine == "cpu") }

// modeOr is the arithmetic that s names, or the verb's own.
func (s Subject) modeOr(mode string) string {
	if s.Mode != "" {
		return s.Mode
	}
	return mode
}

// gatePasses are what a gate asks of its CPU engines, if no position flips: a look at all weights; the reference's own
// continuation of every prompt; both sides over prompts and continuations, and over the text; the step from a state; TEST
// along its own path; and the hash of what is written about.
func gatePasses(a *App, ref, test Subject, s *oracle.Setup, p oracle.Protocol, hashed bool) (out []pass) {
	prompts, text, first := 0, 0, 0
	for i, q := range s.Prompts {
		prompts += len(q.IDs)
		if i == 0 {
			first = len(q.IDs)
		}
	}
	if s.Text != nil {
		text = len(s.Text.IDs)
	}
	n, made := len(s.Prompts), p.MaxTokens
	whole := prompts + n*max(0, made-1) // nothing follows the last token
	scan := pass{readings: 1}
	out = append(out, scan)
	add := func(s Subject, q pass) {
		if q.mode = s.modeOr("exact"); s.onCPU() && q.tokens > 0 {
			out = append(out, q)
		}
	}
	decoded := func(s Subject) { // along a decode path: a prefill of each prompt, then a reading a token of those that go together
		groups := (n + callSeqs - 1) / callSeqs
		if a.stream {
			groups = n
		}
		if made > 0 {
			add(s, pass{tokens: prompts, heads: n, readings: n})
			add(s, pass{tokens: n * (made - 1), heads: n * (made - 1), readings: groups * (made - 1), perToken: !a.stream})
		}
	}
	streams := func(s Subject) bool { return a.stream && s.onCPU() }
	switch {
	case !streams(ref) || callsMatter(ref):
		decoded(ref)
	case made == 0:
	case streams(test): // a token of every prompt a pass, with what is guessed beyond it
		for k := range made {
			add(ref, pass{tokens: prompts + n*k, heads: prompts + n*k, readings: 1})
		}
	default:
		add(ref, pass{tokens: whole, heads: whole, readings: 1})
	}
	both := 1
	if streams(ref) && streams(test) {
		both = 0
	}
	add(ref, pass{tokens: whole, heads: whole, readings: 1})
	add(test, pass{tokens: whole, heads: whole, readings: both})
	if made > 1 {
		states := pass{tokens: prompts, readings: n}
		if streams(ref) {
			states = pass{tokens: first, readings: 1}
		}
		add(ref, states)
		add(test, pass{tokens: states.readings, heads: states.readings, readings: states.readings, perToken: !streams(test)})
	}
	if !streams(test) {
		decoded(test)
	}
	windows := 1
	if s.Text != nil && a.stream {
		windows = (text + oracle.MaxStreamed - 1) / oracle.MaxStreamed
	}
	add(ref, pass{tokens: text, heads: text, readings: windows})
	add(test, pass{tokens: text, heads: text, readings: both * windows})
	if hashed {
		out = append(out, scan)
	}
	if !ref.onCPU() && !test.onCPU() {
		return nil
	}
	return out
}

// tracePasses are what a trace asks: the hash of the weights, the pass over the ids, and for greedy ids the prompt once more and
// a reading a token.
func tracePasses(a *App, s Subject, n, greedy int) []pass {
	mode := s.modeOr("exact")
	out := []pass{{readings: 1}, {mode: mode, tokens: n, heads: n, readings: 1}}
	if greedy > 0 {
		out = append(out, pass{mode: mode, tokens: n, heads: 1, readings: 1},
			pass{mode: mode, tokens: greedy - 1, heads: greedy - 1, readings: greedy - 1, perToken: !a.stream})
	}
	return out
}

// callsMatter says whether s rounds its recurrent state where a call ends: what it decodes is then not what it scores.
func callsMatter(s Subject) bool {
	c, err := precision.Choose(s.Contract)
	return err == nil && c.Contract.StatePerCall && c.Contract.State != precision.F32
}
