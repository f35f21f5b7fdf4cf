// Package meter measures what this machine can do at most, so that a speed can be told as a share of it: bytes read a
// second, and float32 multiply-adds a second. Both are measured in the run that uses them: machines are noisy.
package meter

import (
	"context"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Limits are one measurement.
type Limits struct {
	Threads int     `json:"threads"`
	Read    float64 `json:"read_bytes_per_s"`           // reading a buffer larger than any cache, best of the passes
	FMA     float64 `json:"fma_flop_per_s,omitempty"`   // float32, a multiply-add counts as two; 0 where no loop is known
	How     string  `json:"fma_instructions,omitempty"` // "avx2", "avx512", "neon"
}

// bufferBytes exceeds every last-level cache this was written for (the largest has 512 MiB, of which one core fills 32).
const bufferBytes = 512 << 20

const passes = 5

// Measure takes about a second. It needs half a gigabyte while it runs, or less if spare says so. When ctx is done it ends
// after the pass at work; what it gives then is of no use.
func Measure(ctx context.Context, threads int, spare int64) Limits {
	l := Limits{Threads: threads, Read: readBandwidth(ctx, threads, min(bufferBytes, max(spare/2, 64<<20)))}
	if loop, how, flops := fmaLoop(); loop != nil {
		l.FMA, l.How = peak(ctx, threads, loop, flops), how
	}
	return l
}

// Mean is the mean of two measurements, made before and after what they are to judge.
func Mean(a, b Limits) Limits {
	a.Read, a.FMA = (a.Read+b.Read)/2, (a.FMA+b.FMA)/2
	return a
}

// readBandwidth reads a buffer on so many threads, with every loop there is, since none is the fastest on every machine, and
// gives the best pass in bytes a second.
func readBandwidth(ctx context.Context, threads int, size int64) float64 {
	x, free := buffer(int(size))
	defer free()
	for i := 0; i < len(x) && (i&(1<<24-1) != 0 || ctx.Err() == nil); i += 4096 {
		x[i] = 1 // a page that was never written is one shared page of zeros
	}
	var sum atomic.Uint64 // kept, so that the loops are
	best := 0.0
	for range passes {
		for _, loop := range readLoops() {
			if ctx.Err() != nil {
				return best
			}
			seconds := together(threads, func(t int) {
				sum.Add(loop(x[len(x)/threads*t : len(x)/threads*(t+1)]))
			})
			best = max(best, float64(len(x))/seconds)
		}
	}
	runtime.KeepAlive(sum.Load())
	return best
}

// xorWords is the xor of the 64-bit words of x but for its last len%64 bytes, 64 bytes a round in four chains: enough to
// hide the latency, and all that portable code can do.
func xorWords(x []byte) uint64 {
	var a, b, c, d uint64
	for ; len(x) >= 64; x = x[64:] {
		a ^= binary.LittleEndian.Uint64(x) ^ binary.LittleEndian.Uint64(x[8:])
		b ^= binary.LittleEndian.Uint64(x[16:]) ^ binary.LittleEndian.Uint64(x[24:])
		c ^= binary.LittleEndian.Uint64(x[32:]) ^ binary.LittleEndian.Uint64(x[40:])
		d ^= binary.LittleEndian.Uint64(x[48:]) ^ binary.LittleEndian.Uint64(x[56:])
	}
	return a ^ b ^ c ^ d
}

// peak runs loop on so many threads, each for some 50 ms a pass; flops is what one round of it does.
func peak(ctx context.Context, threads int, loop func(rounds int), flops float64) float64 {
	rounds, best := 1<<16, 0.0
	for together(1, func(int) { loop(rounds) }) < 0.05 && rounds < 1<<30 && ctx.Err() == nil {
		rounds *= 2
	}
	for range passes {
		if ctx.Err() != nil {
			return best
		}
		seconds := together(threads, func(int) { loop(rounds) })
		best = max(best, float64(threads)*float64(rounds)*flops/seconds)
	}
	return best
}

// together runs f on each thread and gives the seconds until the last has ended.
func together(threads int, f func(t int)) float64 {
	var wg sync.WaitGroup
	start := time.Now()
	for t := range threads {
		wg.Go(func() { f(t) })
	}
	wg.Wait()
	return time.Since(start).Seconds()
}

// FMALoop gives the loop that Measure times and the floating-point operations of one round of it, for whoever interleaves
// it with work of his own; nil where none is known.
func FMALoop() (loop func(rounds int), flops float64) {
	loop, _, flops = fmaLoop()
	return loop, flops
}

// ReadLoop reads x with the best loop for this machine, as Measure does; what it gives is to be kept, so that the call is.
func ReadLoop(x []byte) uint64 {
	loops := readLoops()
	return loops[len(loops)-1](x)
}
