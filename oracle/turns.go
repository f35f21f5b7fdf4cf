package oracle

import "sync"

// turns has engines that stream (engine.Info.Streams) run side by side, one at a time, layer by layer: none begins a layer
// before all have done the one before. A layer then comes from the disk once, for all of them, and of only one engine at a
// time are its pages mapped. A nil *turns lets everybody run.
type turns struct {
	mu    sync.Mutex
	moved sync.Cond
	at    []int  // how many layers each has reached, of all its calls; -1 before the first
	free  []bool // who need not be waited for: it has ended, or waits for another itself
	turn  int    // whose it is, -1 nobody's
}

func newTurns(n int) *turns {
	t := &turns{at: make([]int, n), free: make([]bool, n), turn: -1}
	for i := range t.at {
		t.at[i] = -1
	}
	t.moved.L = &t.mu
	return t
}

// layer is engine.Want.Layer of runner i; nil if t is.
func (t *turns) layer(i int) func(int) {
	if t == nil {
		return nil
	}
	return func(int) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.at[i]++ // engines of one model have the same layers
		t.pass(i)
		for t.turn >= 0 || t.behind(t.at[i]) {
			t.moved.Wait()
		}
		t.turn = i
	}
}

// behind says whether somebody who is waited for has not reached n layers.
func (t *turns) behind(n int) bool {
	for j, at := range t.at {
		if at < n && !t.free[j] {
			return true
		}
	}
	return false
}

// pass ends runner i's turn, if it has it, and wakes the others.
func (t *turns) pass(i int) {
	if t.turn == i {
		t.turn = -1
	}
	t.moved.Broadcast()
}

// leave is called by runner i before it waits for another, and when it has ended: nobody waits for it any more.
func (t *turns) leave(i int) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free[i] = true
	t.pass(i)
}

// back is called by runner i when what it waited for has come.
func (t *turns) back(i int) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.turn >= 0 {
		t.moved.Wait()
	}
	t.free[i], t.turn = false, i
}
