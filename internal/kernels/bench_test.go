//go:build unix

package kernels

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sibyl/internal/meter"
	"sibyl/precision"
)

// The benchmarks give shares of what this machine did in the same run (meter), by the clock and by CPU time divided by the
// threads: other programs on the machine disturb the second less.
//
//	go test ./internal/kernels -run '^$' -bench . -benchtime 1s

// limits are measured once for each number of threads: 1 and 2.
var limits = sync.OnceValue(func() [3]meter.Limits {
	return [3]meter.Limits{1: meter.Measure(context.Background(), 1, 1<<30), 2: meter.Measure(context.Background(), 2, 1<<30)}
})

// cpuTime is what this process has used, all threads together.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// timed runs f b.N times and reports bytes and flops a second as shares of the machine's.
func timed(b *testing.B, threads int, bytes, flops float64, f func(i int)) {
	lim := limits()[threads]
	f(0)
	start, i := cpuTime(), 0
	for b.Loop() {
		f(i)
		i++
	}
	cpu := (cpuTime() - start).Seconds() / float64(threads) / float64(b.N)
	clock := b.Elapsed().Seconds() / float64(b.N)
	if bytes > 0 {
		b.ReportMetric(bytes/cpu/1e9, "GB/s-cpu")
		b.ReportMetric(100*bytes/clock/lim.Read, "%read")
		b.ReportMetric(100*bytes/cpu/lim.Read, "%read-cpu")
	}
	if flops > 0 {
		b.ReportMetric(flops/cpu/1e9, "GFLOP/s-cpu")
		b.ReportMetric(100*flops/clock/lim.FMA, "%fma")
		b.ReportMetric(100*flops/cpu/lim.FMA, "%fma-cpu")
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(1e6*cpu, "us-cpu/op")
}

// benchMatrices are so many matrices of a format that their sum is beyond the last-level cache.
func benchMatrices(b *testing.B, f Format, round precision.Round, rows, cols int) []*Matrix {
	var out []*Matrix
	for total := int64(0); total < 200<<20; total += out[0].Bytes() {
		bytes := func(n int, high byte) []byte {
			x := make([]byte, n)
			for i := range x {
				x[i] = byte(i)
				if high != 0 && i&1 == 1 {
					x[i] = high + byte(i>>1&3)
				}
			}
			return x
		}
		var m *Matrix
		var err error
		switch f {
		case F32, F16, BF16:
			m, err = NewMatrix(f, rows, cols, bytes(rows*cols*elemSize[f], 0x38), round)
		default:
			blk := Blocks{Size: 32, Axis: 1, Scale: bytes(rows*cols/16, 0x20)}
			if f == U4Minval { // of bf16: about 2^-7, as fp16's 0x20 is
				blk.Scale, blk.Min = bytes(rows*cols/16, 0x3c), bytes(rows*cols/16, 0x3c)
			}
			m, err = NewQuantized(f, rows, cols, bytes(rows*f.rowBytes(cols), 0), blk, round)
		}
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func benchVector(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(i%7) - 3.1
	}
	return x
}

// BenchmarkGEMV is the product with one token: reading the weights.
func BenchmarkGEMV(b *testing.B) {
	for _, f := range []Format{F32, BF16, F16, I8Block, I4Block, U4Minval} {
		for _, s := range [][2]int{{3584, 1024}, {1024, 3584}} {
			ms := benchMatrices(b, f, precision.F32, s[0], s[1])
			x, out := benchVector(s[1]), make([]float32, s[0])
			for _, threads := range []int{1, 2} {
				for _, a := range []*Arith{Fast, Exact} {
					b.Run(fmt.Sprintf("%v/%dx%d/t%d/%s", f, s[0], s[1], threads, a.Name), func(b *testing.B) {
						p := NewPool(threads)
						timed(b, threads, float64(ms[0].Bytes()), 0, func(i int) { a.Linear(p, out, x, 1, ms[i%len(ms)]) })
					})
				}
			}
		}
	}
}

// BenchmarkGEMM is the product with 128 tokens: multiply-adds.
func BenchmarkGEMM(b *testing.B) {
	const tokens = 128
	for _, f := range []Format{BF16, I8Block, U4Minval} {
		for _, s := range [][2]int{{3584, 1024}, {2048, 6144}} {
			m := benchMatrices(b, f, precision.F32, s[0], s[1])[0]
			x, out := benchVector(tokens*s[1]), make([]float32, tokens*s[0])
			for _, threads := range []int{1, 2} {
				for _, a := range []*Arith{Fast, Exact} {
					b.Run(fmt.Sprintf("%v/%dx%d/t%d/%s", f, s[0], s[1], threads, a.Name), func(b *testing.B) {
						p := NewPool(threads)
						timed(b, threads, 0, 2*tokens*float64(s[0]*s[1]), func(int) { a.Linear(p, out, x, tokens, m) })
					})
				}
			}
		}
	}
}

// BenchmarkBest is for a machine that others use too: pieces of work too short to be interrupted in, interleaved with
// pieces of the machine's own loops (meter), and the shortest of each compared. Decode for every stored form at every level
// on one thread and on two, products on one; /F16 reads the weights as coreai-fp16 does.
//
//	go test ./internal/kernels -run '^$' -bench Best -benchtime 1000x
//	go test ./internal/kernels -run '^$' -bench Best/GEMV/avx512/t1 -benchtime 1000x
func BenchmarkBest(b *testing.B) {
	b.Cleanup(func() { _ = Use("") })
	for _, l := range Levels() {
		for _, threads := range []int{1, 2} {
			for _, k := range []kind{{F32, precision.F32}, {BF16, precision.F32}, {BF16, precision.F16}, {F16, precision.F32}, {I8Block, precision.F32},
				{I8Block, precision.F16}, {I4Block, precision.F32}, {I4Block, precision.F16}, {U4Minval, precision.BF16}} {
				b.Run(fmt.Sprintf("GEMV/%v/t%d/%v/%v", l, threads, k.f, k.round), func(b *testing.B) {
					_ = Use(l.String())
					bestGEMV(b, k, threads)
				})
			}
		}
		for _, f := range []Format{F32, BF16, I8Block, U4Minval} {
			b.Run(fmt.Sprintf("GEMM/%v/%v", l, f), func(b *testing.B) {
				_ = Use(l.String())
				bestGEMM(b, f)
			})
		}
	}
}

// shortest times each of fs once a round and gives each one's least.
func shortest(b *testing.B, fs ...func(i int)) []time.Duration {
	least := make([]time.Duration, len(fs))
	for i := 0; b.Loop(); i++ {
		for k, f := range fs {
			start := time.Now()
			f(i)
			if d := time.Since(start); least[k] == 0 || d < least[k] {
				least[k] = d
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	return least
}

// bestGEMV reads pieces of a megabyte a thread of matrices beyond the last-level cache.
func bestGEMV(b *testing.B, k kind, threads int) {
	const rows, cols = 3584, 1024
	ms := benchMatrices(b, k.f, k.round, rows, cols)
	piece := min(rows, max(4, int(int64(threads<<20)*rows/ms[0].Bytes()))&^3)
	x, out, p := benchVector(cols), make([]float32, rows), NewPool(threads)
	// Pieces are taken one after the other, by the three in turn: none is met again before 200 MB of others.
	part := func(i int) *Matrix {
		per := rows / piece
		m := ms[i/per%len(ms)]
		return m.Slice(i%per*piece, (i%per+1)*piece)
	}
	var sum atomic.Uint64
	t := shortest(b,
		func(i int) {
			data := part(3 * i).Data
			p.For(threads, len(data), func(lo, hi int) { // as the product hands its rows out
				sum.Add(meter.ReadLoop(data[len(data)/threads*lo : len(data)/threads*hi]))
			})
		},
		func(i int) { Fast.Linear(p, out, x, 1, part(3*i+1)) },
		func(i int) { Exact.Linear(p, out, x, 1, part(3*i+2)) })
	bytes, flops := float64(part(0).Bytes()), 2*cols*float64(piece)
	read := float64(len(part(0).Data)) / t[0].Seconds()
	b.ReportMetric(read/1e9, "machine-GB/s")
	b.ReportMetric(bytes/t[1].Seconds()/1e9, "fast-GB/s")
	b.ReportMetric(flops/t[1].Seconds()/1e9, "fast-GFLOP/s")
	b.ReportMetric(100*bytes/t[1].Seconds()/read, "fast-%read")
	b.ReportMetric(100*bytes/t[2].Seconds()/read, "exact-%read")
	b.ReportMetric(t[2].Seconds()/t[1].Seconds(), "exact/fast")
	b.Log(sum.Load()) // keeps the loop
}

// bestGEMM multiplies 384 rows of 1024 by 128 tokens: packing counts, as it does in a product of any size.
func bestGEMM(b *testing.B, f Format) {
	const rows, cols, tokens = 384, 1024, 128
	m := benchMatrices(b, f, precision.F32, rows, cols)[0]
	x, out, p := benchVector(tokens*cols), make([]float32, tokens*rows), NewPool(1)
	loop, flops := meter.FMALoop()
	if loop == nil {
		b.Skip("no loop of multiply-adds is known for this machine")
	}
	const rounds = 100000
	t := shortest(b, func(int) { loop(rounds) },
		func(int) { Fast.Linear(p, out, x, tokens, m) }, func(int) { Exact.Linear(p, out, x, tokens, m) })
	peak, work := rounds*flops/t[0].Seconds(), float64(2*rows*cols*tokens)
	b.ReportMetric(peak/1e9, "machine-GFLOP/s")
	b.ReportMetric(work/t[1].Seconds()/1e9, "fast-GFLOP/s")
	b.ReportMetric(100*work/t[1].Seconds()/peak, "fast-%fma")
	b.ReportMetric(100*work/t[2].Seconds()/peak, "exact-%fma")
	b.ReportMetric(t[2].Seconds()/t[1].Seconds(), "exact/fast")
}
