// Package bench times an engine at the work people wait for, and says each speed as a share of what the machine did in
// the same run. It prints nothing while it measures.
package bench

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"time"

	"sibyl/engine"
	"sibyl/internal/meter"
)

// Kind is a kind of work.
type Kind string

// The kinds. All start from an empty context.
const (
	Prefill Kind = "prefill"        // N tokens in one pass, logits of the last: its time is the time to first token
	Decode  Kind = "decode"         // N steps of one token, logits of each
	Forced  Kind = "teacher-forced" // N tokens in one pass, logits of each, reduced to argmax, top-k and log-sum-exp
)

// Op is a kind of work of a size.
type Op struct {
	Kind Kind `json:"op"`
	N    int  `json:"n"`
}

// Work is what one token costs at least, by the weights alone.
type Work struct {
	Bytes int64   `json:"bytes_per_token"` // weights read to decode one token, as stored
	Body  float64 `json:"body_flop"`       // of the layers' matrices for one token, a multiply-add counts as two
	Head  float64 `json:"head_flop"`       // of the head for one position
}

// Plan is what Run measures.
type Plan struct {
	Ops         []Op
	Repetitions int
	WarmUp      bool // every op once, not counted: pages are mapped, caches and clocks are warm
	Vocab       int  // ids are (i*7919+13) mod Vocab
	Work        Work
	Spare       int64 // memory that the measurement of the machine may take
	Threads     int
}

// Row is one op measured.
type Row struct {
	Op
	Threads int       `json:"threads"`
	Seconds []float64 `json:"seconds"`     // by the clock, a repetition each
	CPU     []float64 `json:"cpu_seconds"` // of all threads; empty where the system does not tell

	TokensPerSecond float64 `json:"tok_s"` // the median; least and most beside it
	Least           float64 `json:"tok_s_least"`
	Most            float64 `json:"tok_s_most"`
	FirstToken      float64 `json:"first_token_s,omitempty"` // median, of prefill
	Bandwidth       float64 `json:"read_bytes_per_s,omitempty"`
	ShareRead       float64 `json:"share_of_read,omitempty"` // of decode: of the machine's read bandwidth
	ShareReadCPU    float64 `json:"share_of_read_by_cpu_time,omitempty"`
	Flops           float64 `json:"flop_per_s,omitempty"`
	ShareFMA        float64 `json:"share_of_fma,omitempty"` // of the others: of the machine's float32 peak
	ShareFMACPU     float64 `json:"share_of_fma_by_cpu_time,omitempty"`
	PeakResident    int64   `json:"peak_resident_bytes,omitempty"` // mapped weights included
	PeakAnonymous   int64   `json:"peak_anonymous_bytes,omitempty"`
}

// IDs are the ids of every op, the same that the peers of docs/benchmarks.md are given.
func IDs(n, vocab int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32((i*7919 + 13) % vocab)
	}
	return ids
}

// Once does op once and gives its seconds.
func Once(ctx context.Context, e engine.Engine, op Op, vocab int) (float64, error) {
	want := engine.Want{TopK: 2}
	switch op.Kind {
	case Prefill:
		want.From = op.N - 1
	case Decode:
		want.Path = engine.Path{Chunk: 1}
	}
	shown, start := 0, time.Now()
	err := e.Score(ctx, []engine.Prompt{{IDs: IDs(op.N, vocab)}}, want, func(*engine.Position) error { shown++; return nil })
	seconds := time.Since(start).Seconds()
	if wanted := op.N - want.From; err == nil && shown != wanted {
		err = fmt.Errorf("%s of %d tokens: the engine showed %d positions of %d", op.Kind, op.N, shown, wanted)
	}
	return seconds, err
}

// freeMemory gives back what earlier ops left, so that an op's peak is its own: twice, since what is kept for reuse outlives
// one collection.
func freeMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}

// Run measures the ops in turn, repetition by repetition, so that a machine that slows down does so for all of them;
// report hears how much is done. Memory is watched in the first round, which the warm-up is if there is one. The machine's limits are measured before and after.
func Run(ctx context.Context, e engine.Engine, p Plan, report func(done, total int64)) ([]Row, meter.Limits, error) {
	limits := meter.Measure(ctx, p.Threads, p.Spare)
	if err := ctx.Err(); err != nil {
		return nil, limits, err
	}
	rows := make([]Row, len(p.Ops))
	rounds, total := p.Repetitions, 0
	if p.WarmUp {
		rounds++
	}
	for _, op := range p.Ops {
		total += rounds * op.N
	}
	done := 0
	for r := range rounds {
		for i, op := range p.Ops {
			row := &rows[i]
			row.Op, row.Threads = op, p.Threads
			watch := func() (resident, anonymous int64) { return 0, 0 }
			if r == 0 {
				freeMemory()
				watch = watchMemory()
			}
			cpu := cpuSeconds()
			seconds, err := Once(ctx, e, op, p.Vocab)
			cpu = cpuSeconds() - cpu
			resident, anonymous := watch()
			if err != nil {
				return nil, limits, err
			}
			if r == 0 {
				row.PeakResident, row.PeakAnonymous = resident, anonymous
			}
			done += op.N
			report(int64(done), int64(total))
			if p.WarmUp && r == 0 {
				continue
			}
			row.Seconds = append(row.Seconds, seconds)
			if cpu > 0 {
				row.CPU = append(row.CPU, cpu)
			}
		}
	}
	limits = meter.Mean(limits, meter.Measure(ctx, p.Threads, p.Spare))
	if err := ctx.Err(); err != nil {
		return nil, limits, err
	}
	for i := range rows {
		rows[i].derive(p.Work, limits)
	}
	return rows, limits, nil
}

// derive fills what follows from the seconds.
func (r *Row) derive(w Work, l meter.Limits) {
	n := float64(r.N)
	seconds, cpu := Median(r.Seconds), math.NaN()
	if len(r.CPU) > 0 {
		cpu = Median(r.CPU) / float64(r.Threads)
	}
	least, most := spread(r.Seconds)
	r.TokensPerSecond, r.Least, r.Most = n/seconds, n/most, n/least
	if r.Kind == Decode {
		bytes := n * float64(w.Bytes)
		r.Bandwidth, r.ShareRead = bytes/seconds, bytes/seconds/l.Read
		if !math.IsNaN(cpu) {
			r.ShareReadCPU = bytes / cpu / l.Read
		}
		return
	}
	flops := n*w.Body + w.Head
	if r.Kind == Prefill {
		r.FirstToken = seconds
	} else {
		flops = n * (w.Body + w.Head)
	}
	if r.Flops = flops / seconds; l.FMA > 0 {
		r.ShareFMA = r.Flops / l.FMA
		if !math.IsNaN(cpu) {
			r.ShareFMACPU = flops / cpu / l.FMA
		}
	}
}
