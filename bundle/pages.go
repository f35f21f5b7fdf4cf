package bundle

import "sibyl/internal/mmap"

// DropLayer tells the system that the weights of layer l will not be read again soon (see Drop).
func (c *Checkpoint) DropLayer(l int) {
	c.eachOf(l, func(t Tensor) { c.Drop(t, 0, -1) })
}

// ForgetLayer tells the system that nobody reads the weights of layer l again soon, once they were dropped: they may leave the
// memory, in which what comes next then has room.
func (c *Checkpoint) ForgetLayer(l int) {
	c.eachOf(l, func(t Tensor) { c.hint(t, 0, -1, mmap.Forget) })
}

// WillNeedLayer tells the system that the weights of layer l are read next, so that a disk can be ahead of the
// arithmetic. It may block while the reading is begun. A hint, as Drop is.
func (c *Checkpoint) WillNeedLayer(l int) {
	c.eachOf(l, func(t Tensor) { c.hint(t, 0, -1, mmap.WillNeed) })
}

// eachOf calls f for each weight of layer l once.
func (c *Checkpoint) eachOf(l int, f func(Tensor)) {
	seen := map[string]bool{}
	once := func(t Tensor) {
		if t.Name != "" && !seen[t.Name] {
			seen[t.Name] = true
			f(t)
		}
	}
	for _, r := range c.cfg.LayerRoles(c.cfg.Layers[l]) {
		t, _ := c.get(r, l)
		once(t)
	}
	for _, e := range c.experts[l] {
		for _, t := range e {
			once(t)
		}
	}
}
