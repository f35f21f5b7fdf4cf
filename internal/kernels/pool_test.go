package kernels

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestPoolCovers: every index once, for loops shorter and longer than the threads, from many goroutines at once.
func TestPoolCovers(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for _, threads := range []int{1, 2, 3, 8} {
		wg.Go(func() {
			p := NewPool(threads)
			for n := range 70 {
				seen := make([]atomic.Int32, n)
				p.For(n, minWork, func(lo, hi int) {
					for i := lo; i < hi; i++ {
						seen[i].Add(1)
					}
				})
				for i := range seen {
					if got := seen[i].Load(); got != 1 {
						t.Errorf("%d threads, %d indices: index %d ran %d times", threads, n, i, got)
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestPoolNested: a loop inside a loop must not wait for workers that wait for it.
func TestPoolNested(t *testing.T) {
	t.Parallel()
	p := NewPool(4)
	var sum atomic.Int64
	p.For(8, minWork, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			p.For(8, minWork, func(lo, hi int) { sum.Add(int64(hi - lo)) })
		}
	})
	if sum.Load() != 64 {
		t.Errorf("%d inner indices, want 64", sum.Load())
	}
}

// TestPoolPanics: a panic in any range is the caller's, and the workers serve on.
func TestPoolPanics(t *testing.T) {
	t.Parallel()
	p := NewPool(4)
	for i := range 64 {
		got := func() (e any) {
			defer func() { e = recover() }()
			p.For(64, minWork, func(lo, hi int) {
				if lo <= i && i < hi {
					panic("range of index")
				}
			})
			return nil
		}()
		if got != "range of index" {
			t.Fatalf("index %d: recovered %v", i, got)
		}
	}
	n := atomic.Int64{}
	p.For(64, minWork, func(lo, hi int) { n.Add(int64(hi - lo)) })
	if n.Load() != 64 {
		t.Errorf("%d indices after the panics, want 64", n.Load())
	}
}

// TestPoolSleeps: workers without work use no processor.
func TestPoolSleeps(t *testing.T) {
	p := NewPool(3)
	p.For(64, minWork, func(lo, hi int) {})
	deadline := time.Now().Add(10 * time.Second)
	for { // other tests' workers may still be spinning
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		awake := 0
		for _, g := range strings.Split(string(stacks), "\n\n") {
			if strings.Contains(g, "kernels.(*workers).work") && !strings.Contains(g, "[chan receive") {
				awake++
			}
		}
		if awake == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d workers are awake without work", awake)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestPoolStops: a loop ends with its context, at the next range of every thread, and no later loop begins.
func TestPoolStops(t *testing.T) {
	t.Parallel()
	for _, threads := range []int{1, 4} {
		ctx, cancel := context.WithCancel(t.Context())
		p := NewPool(threads).Until(ctx)
		if p.Threads() != threads {
			t.Errorf("%d threads, want %d", p.Threads(), threads)
		}
		stopped := func(what string, n, work int, f func(lo, hi int)) {
			defer func() {
				if e := recover(); e != any(Stopped{}) {
					t.Errorf("%d threads, %s: recovered %v, want Stopped", threads, what, e)
				}
			}()
			p.For(n, work, f)
			t.Errorf("%d threads, %s: the loop ran to its end", threads, what)
		}
		var ranges, after atomic.Int64
		const long = 1000
		stopped("in a loop", long, rangeWork/2, func(lo, hi int) {
			if hi-lo > 2 {
				t.Errorf("a range of %d indices of %d multiply-adds, want at most %d together", hi-lo, rangeWork/2, rangeWork)
			}
			if ctx.Err() != nil {
				after.Add(1)
			}
			if ranges.Add(1) == 10 {
				cancel()
			}
		})
		// Who had looked at the context before it ended runs one range more.
		if n := after.Load(); n >= int64(threads) {
			t.Errorf("%d threads: %d ranges began after the end of the context", threads, n)
		}
		stopped("in a short loop", 1, 1, func(lo, hi int) { t.Error("a loop began after the end of the context") })
		stopped("in a loop of a loop", 1, 1, func(lo, hi int) { p.For(8, minWork, func(lo, hi int) {}) })
	}
}

// TestPoolStopsNested: the end of the context inside an inner loop ends the outer one.
func TestPoolStopsNested(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	p := NewPool(3).Until(ctx)
	defer func() {
		if e := recover(); e != any(Stopped{}) {
			t.Errorf("recovered %v, want Stopped", e)
		}
	}()
	p.For(100, rangeWork, func(lo, hi int) {
		p.For(100, rangeWork, func(lo, hi int) { cancel() })
		t.Error("an outer range went on after the inner loop's end")
	})
	t.Error("the outer loop ran to its end")
}
