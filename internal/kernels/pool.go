package kernels

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Pool runs loops on up to Threads goroutines. The zero value runs on one.
type Pool struct{ threads int }

// NewPool makes a pool; threads <= 0 means all cores.
func NewPool(threads int) *Pool {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &Pool{threads: threads}
}

// Threads is how many goroutines a loop may use.
func (p *Pool) Threads() int { return max(1, p.threads) }

// minWork is the number of multiply-adds below which a second goroutine costs more than it saves (a wake-up is
// some 5 us, portable Go does about 2 multiply-adds a nanosecond).
const minWork = 1 << 15

// For calls f on ranges that cover 0..n once. work is the multiply-adds of one index: short loops stay on the
// caller. Which goroutine takes which range changes nothing: no result depends on another index.
func (p *Pool) For(n, work int, f func(lo, hi int)) {
	threads := min(p.Threads(), n)
	if threads <= 1 || n*work < minWork {
		f(0, n)
		return
	}
	// Four ranges a thread even out a busy machine.
	step := max(1, (n+4*threads-1)/(4*threads))
	var next atomic.Int64
	run := func() {
		for {
			lo := int(next.Add(int64(step))) - step
			if lo >= n {
				return
			}
			f(lo, min(n, lo+step))
		}
	}
	var wg sync.WaitGroup
	for range threads - 1 {
		wg.Go(run)
	}
	run()
	wg.Wait()
}
