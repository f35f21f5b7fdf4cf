//go:build unix

package model

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sibyl/engine"
)

// BenchmarkDecode is greedy decoding of one sequence on SIBYL_BENCH_MODEL, as a share of what this machine reads in the
// same run: the mean of the bandwidth just before and just after, each the best of five passes. Written for the 0.8B shape:
//
//	go run ./internal/synth -shape 0.8b -o DIR
//	SIBYL_BENCH_MODEL=DIR go test ./model -run '^$' -bench Decode -benchtime 3s -count 5
//
// Only the ratios are worth comparing between runs: %read by the clock, and %read-cpu by CPU time divided by the threads,
// which other programs on the machine disturb less (waiting for a slower thread does not count in it). B/s counts the weights a token must read (bundle.Sizes), not the states.
func BenchmarkDecode(b *testing.B) {
	dir := os.Getenv("SIBYL_BENCH_MODEL")
	if dir == "" {
		b.Skip("needs a checkpoint: go run ./internal/synth -shape 0.8b -o DIR, then set SIBYL_BENCH_MODEL=DIR")
	}
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			e, err := engine.Open(context.Background(), "cpu", engine.Spec{Model: dir, Mode: "fast", Threads: threads})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			perToken := e.(*Engine).ck.Sizes().TotalPerToken()
			b.SetBytes(perToken)
			before := readBandwidth(threads)
			var cpu float64
			err = e.Generate(context.Background(), engine.Prompt{IDs: []int32{1, 2, 3, 4}}, engine.Options{MaxTokens: b.N + 1},
				func(tok *engine.Token) error {
					if tok.Index == 0 { // before: the prompt and the first touch of the mapped weights are not decoding
						cpu = cpuSeconds(b)
						b.ResetTimer()
					}
					return nil
				})
			b.StopTimer()
			cpu = cpuSeconds(b) - cpu
			if err != nil {
				b.Fatal(err)
			}
			read := (before + readBandwidth(threads)) / 2
			rate := float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(rate, "tok/s")
			b.ReportMetric(read/1e9, "read-GB/s")
			b.ReportMetric(100*rate*float64(perToken)/read, "%read")
			b.ReportMetric(100*float64(b.N)*float64(perToken)/(cpu/float64(threads))/read, "%read-cpu")
		})
	}
}

// cpuSeconds is what this process has used, all threads together.
func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// bandwidthBuffer is larger than any last-level cache.
var bandwidthBuffer = sync.OnceValue(func() []byte {
	x := make([]byte, 1<<30)
	for i := 0; i < len(x); i += 4096 {
		x[i] = 1 // a page that was never written is one shared page of zeros
	}
	return x
})

// readBandwidth sums a gigabyte on so many threads and gives the best of five passes, in bytes a second.
func readBandwidth(threads int) float64 {
	x := bandwidthBuffer()
	best := 0.0
	for range 5 {
		var wg sync.WaitGroup
		var sum atomic.Uint64 // kept, so that the loop is
		start := time.Now()
		for t := range threads {
			part := x[len(x)/threads*t : len(x)/threads*(t+1)]
			wg.Go(func() { sum.Add(sumWords(part)) })
		}
		wg.Wait()
		best = max(best, float64(len(x))/time.Since(start).Seconds())
		if sum.Load() == 0 {
			panic("the buffer is empty")
		}
	}
	return best
}

// sumWords adds 64 bytes a round in four chains: on amd64 as fast as a loop of vector loads in C.
func sumWords(x []byte) uint64 {
	var a, b, c, d uint64
	for ; len(x) >= 64; x = x[64:] {
		a += binary.LittleEndian.Uint64(x) + binary.LittleEndian.Uint64(x[8:])
		b += binary.LittleEndian.Uint64(x[16:]) + binary.LittleEndian.Uint64(x[24:])
		c += binary.LittleEndian.Uint64(x[32:]) + binary.LittleEndian.Uint64(x[40:])
		d += binary.LittleEndian.Uint64(x[48:]) + binary.LittleEndian.Uint64(x[56:])
	}
	return a + b + c + d
}
