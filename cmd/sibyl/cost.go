package main

import (
	"fmt"
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

// pass is texts going through one CPU engine.
type pass struct {
	mode     string // "exact", "fast", "" for a contract's own arithmetic
	tokens   int    // through the layers, all passes together
	heads    int    // positions whose logits are asked for
	readings int    // how often the weights are read
	perToken bool   // a reading is what one token needs: of experts the chosen ones, of the embedding a row
}

// cost is what a job asks for at least, by its matrices: attention over the context and the delta rule are left out.
type cost struct {
	Readings int
	Bytes    int64
	Flops    float64
	Time     time.Duration
}

func (c cost) String() string {
	return fmt.Sprintf("at least %s: %s of the weights, %s in all, and %.3g TFLOP", timeText(c.Time), plural(c.Readings, "reading", "readings"), bytesText(c.Bytes), c.Flops/1e12)
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

// announce tells, before a job that takes long, what it costs at the speed this machine multiplies and reads now.
func (a *App) announce(c bundle.Source, passes ...pass) {
	total := estimate(c, a.Threads, passes, multiplyRate, func() float64 { return readRate(c) })
	if total.Time > costShown {
		a.Note("%s", total)
	}
}

// estimate adds up the passes. Reading and multiplying overlap when a model is streamed or mapped, so the longer counts.
// The rates, in operations and bytes a second, are measured only where a job may be long.
func estimate(c bundle.Source, threads int, passes []pass, multiply func(mode string, threads int) float64, read func() float64) (total cost) {
	w := bench.WorkOf(c.Config(), c.Sizes().TotalPerToken())
	var compute float64
	rates := map[string]float64{}
	for _, p := range passes {
		flops := float64(p.tokens)*w.Body + float64(p.heads)*w.Head
		total.Flops += flops
		total.Readings += p.readings
		size := c.Sizes().Total()
		if p.perToken {
			size = w.Bytes
		}
		total.Bytes += int64(p.readings) * size
		if flops < 1e10 {
			continue // seconds at most, whatever the machine
		}
		if _, ok := rates[p.mode]; !ok {
			rates[p.mode] = multiply(p.mode, threads)
		}
		compute += flops / rates[p.mode]
	}
	if reading := float64(total.Bytes); reading > 1e9 {
		compute = max(compute, reading/read())
	}
	total.Time = time.Duration(compute * float64(time.Second))
	return total
}

// multiplyRate measures the float32 operations a second of an arithmetic's matrix product, over a matrix of bf16 values.
func multiplyRate(mode string, threads int) float64 {
	arith := kernels.Fast
	if mode != "fast" {
		arith = kernels.Exact
	}
	const rows, n = 64, 1024
	data := make([]byte, 2*n*n)
	for i := range data {
		data[i] = byte(i*7 + i>>9)
		if i%2 == 1 {
			data[i] = 0x3e | data[i]&0x81 // exponents near one, both signs
		}
	}
	m, err := kernels.NewMatrix(kernels.BF16, n, n, data, precision.F32)
	if err != nil {
		panic(err) // the sizes above agree
	}
	x, out := make([]float32, rows*n), make([]float32, rows*n)
	for i := range x {
		x[i] = float32(i%17) - 8
	}
	start := time.Now()
	arith.Linear(kernels.NewPool(threads), out, x, rows, m)
	return 2 * rows * n * n / time.Since(start).Seconds()
}

// readRate touches up to 64 MB of a layer's weights and gives the bytes a second: of a disk if they are not in memory.
func readRate(c bundle.Source) float64 {
	l := c.Config().NumLayers / 2
	role := config.GateProj
	if c.Config().MoE != nil {
		role = config.ExpertsGateUp
	}
	t, err := c.Tensor(role, l)
	if err != nil || len(t.Data) == 0 {
		return 1e9 // single experts: many small files; a plain disk
	}
	data := t.Data[:min(len(t.Data), 64<<20)]
	var sum byte
	start := time.Now()
	for i := 0; i < len(data); i += 512 {
		sum += data[i]
	}
	seconds := time.Since(start).Seconds()
	runtime.KeepAlive(sum) // or the loop would be dropped
	return float64(len(data)) / max(seconds, 1e-9)
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

// gatePasses are the least a gate asks of its CPU engines, if no position flips: the reference's own continuation of every
// prompt, both sides over prompts and continuations, the step from a state, and TEST along its own path.
func gatePasses(a *App, ref, test Subject, s *oracle.Setup, p oracle.Protocol) (out []pass) {
	prompts, text := 0, 0
	for _, q := range s.Prompts {
		prompts += len(q.IDs)
	}
	if s.Text != nil {
		text = len(s.Text.IDs)
	}
	n := len(s.Prompts)
	steps := n * p.MaxTokens
	whole := prompts + max(0, steps-n)
	for _, side := range []Subject{ref, test} {
		if !side.onCPU() {
			continue
		}
		forced := pass{mode: side.modeOr("exact"), tokens: whole + text, heads: whole + text, readings: 1}
		decoded := pass{mode: forced.mode, tokens: prompts + steps, heads: steps, readings: steps, perToken: true}
		switch {
		case !a.stream:
		case side == test:
			decoded = pass{mode: forced.mode}
		default:
			decoded = pass{mode: forced.mode, tokens: whole, heads: whole, readings: 2} // the proposals, and one state
		}
		out = append(out, forced, decoded)
	}
	return out
}
