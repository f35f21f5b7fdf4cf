package graph

import (
	"context"
	"errors"
	"fmt"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/internal/kernels"
)

// machine executes a program's functions. It is used by one goroutine at a time.
type machine struct {
	b      *builder
	arith  *Arithmetic
	pool   *kernels.Pool
	public map[string]*function
	room   int64 // bytes that constants may still take in memory
	made   int64 // how many constant tensors are made anew at each use, for want of room
	traps  int64 // how often an operation ran through its region
}

// newMachine makes the public functions of a program ready. room is what folded constants may take.
func newMachine(p *aicode.Program, a *Arithmetic, pool *kernels.Pool, room int64) (*machine, error) {
	m := &machine{b: &builder{p: p, arith: a, done: map[string]*function{}, fallbacks: map[string]bool{}}, arith: a, pool: pool, room: room, public: map[string]*function{}}
	for _, g := range p.Graphs {
		if g.Private {
			continue
		}
		f, err := m.b.function(g, 0)
		if err != nil {
			return nil, err
		}
		m.public[g.Name] = f
	}
	return m, nil
}

// frame is the values of a function at work, by slot.
type frame []value

// call is one call of a public function.
type call struct {
	*machine
	pool  *kernels.Pool // the machine's, until ctx is done
	ctx   context.Context
	watch *watcher   // told after each operation of the public function's block and of the graphs it calls; nil for none
	via   *aicode.Op // the call at work in the public function, nil in it itself
	deep  bool       // in a call of a called graph
	steps int
}

// run calls a public function.
func (m *machine) run(ctx context.Context, f *function, args []value, watch *watcher) (out []value, err error) {
	defer bundle.Catch(&err)()
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(kernels.Stopped); !ok {
				panic(r)
			}
			err = ctx.Err()
		}
	}()
	c := &call{machine: m, pool: m.pool.Until(ctx), ctx: ctx, watch: watch}
	return c.function(f, args)
}

func (c *call) function(f *function, args []value) ([]value, error) {
	fr := make(frame, f.slots)
	copy(fr, f.kept)
	for i, n := range f.body.args {
		fr[n] = args[i]
	}
	if err := c.block(f, fr, f.body, c.watch != nil && !c.deep); err != nil {
		return nil, err
	}
	out := make([]value, len(f.body.end.in))
	for i, n := range f.body.end.in {
		out[i] = fr[n]
	}
	return out, nil
}

// called runs a graph for the call op of the graph at work.
func (c *call) called(op *aicode.Op, f *function, args []value) ([]value, error) {
	via, deep := c.via, c.deep
	defer func() { c.via, c.deep = via, deep }()
	if c.deep = via != nil; !c.deep {
		c.via = op
	}
	return c.function(f, args)
}

// block executes the operations of a block. watched says that the watcher is told of them.
func (c *call) block(f *function, fr frame, b *block, watched bool) error {
	var before *aicode.Op
	for _, i := range b.ops {
		if len(i.out) > 0 && i.constant && f.kept[i.out[0]].t != nil {
			continue // computed before
		}
		if c.steps++; c.steps&63 == 0 {
			if err := c.ctx.Err(); err != nil {
				return err
			}
		}
		if err := c.op(f, fr, i); err != nil {
			if ctxErr := c.ctx.Err(); ctxErr != nil && errors.Is(err, ctxErr) {
				return err
			}
			return c.b.fault(f.g, i.op, before, err)
		}
		if watched {
			if err := c.watch.after(c.via, i, fr); err != nil {
				return err
			}
		}
		for _, n := range i.drop {
			fr[n] = value{}
		}
		before = i.op
	}
	return nil
}

// op executes one operation and holds its results against their types.
func (c *call) op(f *function, fr frame, i *instr) (err error) {
	switch {
	case i.def == nil:
		c.traps++
		for k, n := range i.regions[0].args {
			fr[n] = fr[i.in[k]]
		}
		if err = c.block(f, fr, i.regions[0], false); err == nil {
			err = hand(fr, i.out, i.regions[0].end.in)
		}
	case i.def.control != nil:
		err = i.def.control(c, f, fr, i)
	default:
		err = c.eval(f, fr, i)
	}
	if err != nil {
		return err
	}
	return check(fr, i)
}

// eval computes an operation of tensors.
func (c *call) eval(f *function, fr frame, i *instr) error {
	in := make([]*Tensor, len(i.in))
	for k, n := range i.in {
		if in[k] = fr[n].t; in[k] == nil {
			return fmt.Errorf("operand %d, which is no tensor", k)
		}
		if in[k].src != nil && i.def.loads() {
			c.load(in[k].src)
		}
	}
	out, err := i.def.eval(c, i.op, in)
	if err != nil {
		return err
	}
	if len(out) != len(i.out) {
		return fmt.Errorf("%d results, want %d", len(out), len(i.out))
	}
	for k, n := range i.out {
		fr[n] = value{t: out[k]}
		if i.constant {
			f.kept[n] = fr[n]
		}
	}
	return nil
}

// load brings a weight's elements into memory for good, while there is room for more.
func (c *call) load(s *weight) {
	rows, cols := s.size()
	need := 4 * int64(rows) * int64(cols)
	switch {
	case s.f != nil:
	case need > c.room:
		c.made++
	default:
		c.room -= need
		s.f = s.all()
	}
}

// hand puts values into slots.
func hand(fr frame, to, from []int) error {
	if len(to) != len(from) {
		return fmt.Errorf("%d values for %d", len(from), len(to))
	}
	v := make([]value, len(from))
	for i, n := range from {
		v[i] = fr[n]
	}
	for i, n := range to {
		fr[n] = v[i]
	}
	return nil
}

// check holds results against the types that the graph gives them.
func check(fr frame, i *instr) error {
	for k, n := range i.out {
		if err := checkType(i.op.Results[k].Type, fr[n].t); err != nil {
			return fmt.Errorf("result %d: %w", k, err)
		}
	}
	return nil
}

// checkType holds a tensor against a type; dimensions that are dynamic may be anything.
func checkType(want *aicode.Type, t *Tensor) error {
	if want.Kind != aicode.Tensor {
		return nil
	}
	if t == nil {
		return fmt.Errorf("no tensor, want %s", want)
	}
	fits := t.Kind == want.Elem && len(t.Dims) == len(want.Dims) && (t.f != nil) != (t.n != nil) || t.src != nil || t.Len() == 0
	for a, d := range want.Dims {
		fits = fits && len(t.Dims) == len(want.Dims) && (d == aicode.Dynamic || d == int64(t.Dims[a]))
	}
	if !fits || t.Kind != want.Elem {
		return fmt.Errorf("%s, want %s", t, want)
	}
	return nil
}
