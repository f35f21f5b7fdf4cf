package kernels

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Pool runs loops on up to Threads goroutines. The zero value runs on one.
type Pool struct {
	threads int
	done    <-chan struct{} // closed when loops are to stop; nil: never
}

// NewPool makes a pool; threads <= 0 means all cores.
func NewPool(threads int) *Pool {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &Pool{threads: threads}
}

// Threads is how many goroutines a loop may use.
func (p *Pool) Threads() int { return max(1, p.threads) }

// Stopped is what a loop panics with when the context of its pool is done: whatever the loop computes is not whole, and no
// caller goes on with it. Who gave the pool its context recovers it.
type Stopped struct{}

// Until is p for one computation: its loops stop when ctx is done, also inside a product, by a panic with Stopped.
func (p *Pool) Until(ctx context.Context) *Pool { return &Pool{threads: p.threads, done: ctx.Done()} }

// check panics if the pool's context is done.
func (p *Pool) check() {
	select {
	case <-p.done:
		panic(Stopped{})
	default:
	}
}

// rangeWork is the most multiply-adds of a range, which is not broken off: about 8 ms, of the 200 that a user who
// interrupts waits. A range costs less than a microsecond, so no product is felt to be cut.
const rangeWork = 1 << 24

// minWork is the number of multiply-adds below which a second goroutine costs more than it saves (portable Go does about
// two a nanosecond, a worker that still spins takes a loop up in less than one microsecond, one that sleeps in five).
const minWork = 1 << 13

// For calls f on ranges that cover 0..n once. work is the multiply-adds of one index: short loops stay on the
// caller. Which goroutine takes which range changes nothing: no result depends on another index. A panic of f, a fault in
// memory that a file no longer backs among them, is the caller's, wherever it happened.
func (p *Pool) For(n, work int, f func(lo, hi int)) {
	p.check()
	threads := min(p.Threads(), n)
	whole := max(1, rangeWork/max(1, work))
	if threads <= 1 || n*work < minWork {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		for lo := 0; lo < n; lo += whole {
			if lo > 0 {
				p.check()
			}
			f(lo, min(n, lo+whole))
		}
		return
	}
	l := &loop{p: p, f: f, n: n, share: 4 * threads, least: min(whole, minWork/max(1, work)+1), most: whole, idle: make(chan struct{}, 1)}
	crew.offer(l, threads-1)
	l.run()
	l.finish()
}

// loop is one call of For: ranges are handed out by next until there are none.
type loop struct {
	p       *Pool
	f       func(lo, hi int)
	n       int
	next    atomic.Int64
	helpers atomic.Int64 // those inside run, and closed once the caller takes no more
	idle    chan struct{}
	failed  atomic.Pointer[any] // the first panic

	// A range is a share'th of what is left, at least and at most so much: ranges get shorter, so that a busy machine is evened out
	// and threads end together.
	share, least, most int
}

const closed = 1 << 32

// run takes ranges until there are none. It ends in no panic: the caller meets it in finish.
func (l *loop) run() {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if e := recover(); e != nil {
			l.failed.CompareAndSwap(nil, &e)
			l.next.Store(int64(l.n)) // the others stop at their next range
		}
	}()
	for {
		lo, hi := l.take()
		if lo >= l.n {
			return
		}
		l.p.check()
		l.f(lo, hi)
	}
}

// take gives the next range; lo is n when there is none.
func (l *loop) take() (lo, hi int) {
	for {
		lo := int(l.next.Load())
		if lo >= l.n {
			return l.n, l.n
		}
		step := min(max((l.n-lo+l.share-1)/l.share, l.least), l.most)
		if hi = min(l.n, lo+step); l.next.CompareAndSwap(int64(lo), int64(hi)) {
			return lo, hi
		}
	}
}

// help is run for a worker, unless the caller is done. Whoever leaves last, late comers included, wakes the caller.
func (l *loop) help() {
	if l.helpers.Add(1) < closed {
		l.run()
	}
	if l.helpers.Add(-1) == closed {
		select {
		case l.idle <- struct{}{}:
		default:
		}
	}
}

// finish waits for the workers inside, each of which has at most a range to go, and passes their panic on.
func (l *loop) finish() {
	if l.helpers.Add(closed) != closed {
		spin(func() bool { return l.helpers.Load() == closed })
		for l.helpers.Load() != closed {
			<-l.idle
		}
	}
	if e := l.failed.Load(); e != nil {
		panic(*e)
	}
}

// spinTime is how long a worker looks for the next loop, and a caller for the last range, before it sleeps: about as long
// as the work between two loops of a decoder takes. Beside a busy neighbour it is lost; much more would be felt.
const spinTime = 20 * time.Microsecond

// spin waits for ok for spinTime and gives what it is then. It lets other goroutines run.
func spin(ok func() bool) bool {
	if runtime.GOMAXPROCS(0) == 1 {
		return ok()
	}
	for start := time.Now(); ; runtime.Gosched() {
		for range 64 {
			if ok() {
				return true
			}
		}
		if time.Since(start) > spinTime {
			return ok()
		}
	}
}

// crew is the process's workers, shared by all pools: as many as any of them asked for at once. They never end.
var crew = workers{queue: make(chan *loop, 1024)}

type workers struct {
	queue chan *loop
	mu    sync.Mutex
	count int
}

// offer asks so many workers to take part in l. A full queue means that all are busy: then they are not missed.
func (w *workers) offer(l *loop, helpers int) {
	w.mu.Lock()
	for ; w.count < helpers; w.count++ {
		go w.work()
	}
	w.mu.Unlock()
	for range helpers {
		select {
		case w.queue <- l:
		default:
			return
		}
	}
}

func (w *workers) work() {
	waiting := func() bool { return len(w.queue) > 0 }
	for {
		spin(waiting)
		(<-w.queue).help()
	}
}
