//go:build unix

package model

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"sibyl/engine"
	"sibyl/internal/meter"
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
			perToken := e.(*Engine).src.Sizes().TotalPerToken()
			b.SetBytes(perToken)
			before := meter.Measure(context.Background(), threads, 1<<30).Read
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
			read := (before + meter.Measure(context.Background(), threads, 1<<30).Read) / 2
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
