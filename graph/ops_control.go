package graph

import (
	"fmt"

	"sibyl/bundle/aicode"
)

func constantOp(_ *call, op *aicode.Op, _ []*Tensor) ([]*Tensor, error) {
	if op.Const == nil {
		return nil, fmt.Errorf("a constant without elements")
	}
	return []*Tensor{constant(op.Const)}, nil
}

// createToken makes nothing: operations run in the order of the file, which respects tokens.
func createToken(_ *call, _ *function, _ frame, _ *instr) error { return nil }

// state is the handle in a slot.
func state(fr frame, slot int) (*handle, error) {
	if fr[slot].h == nil {
		return nil, fmt.Errorf("operand 0, which is no state")
	}
	return fr[slot].h, nil
}

func readHandle(_ *call, _ *function, fr frame, i *instr) error {
	h, err := state(fr, i.in[0])
	if err == nil {
		fr[i.out[0]] = value{t: h.t}
	}
	return err
}

func writeHandle(_ *call, _ *function, fr frame, i *instr) error {
	h, err := state(fr, i.in[0])
	if err != nil {
		return err
	}
	t := fr[i.in[1]].t
	if t == nil {
		return fmt.Errorf("operand 1, which is no tensor")
	}
	if of := i.op.Operands[0].Type.Of; of != nil {
		if err := checkType(of, t); err != nil {
			return fmt.Errorf("state %s: %w", h.name, err)
		}
	}
	h.t = t
	return nil
}

// invoke calls a private graph, or runs the composite it stands for as one operation.
func invoke(c *call, _ *function, fr frame, i *instr) error {
	if i.callee == nil {
		return fmt.Errorf("a call of no graph")
	}
	args := make([]value, len(i.in))
	for k, n := range i.in {
		args[k] = fr[n]
	}
	if i.callee.one != nil {
		in := make([]*Tensor, len(args))
		for k := range args {
			if in[k] = args[k].t; in[k] == nil {
				return fmt.Errorf("operand %d, which is no tensor", k)
			}
		}
		out, err := i.callee.one(c, i.callee.g, in)
		if err != nil {
			return fmt.Errorf("composite %s: %w", i.callee.g.Composite, err)
		}
		for k, n := range i.out {
			fr[n] = value{t: out[k]}
		}
		return nil
	}
	for k, a := range args {
		if err := checkType(i.callee.g.Body.Args[k].Type, a.t); err != nil {
			return fmt.Errorf("operand %d of %s: %w", k, i.callee.g.Name, err)
		}
	}
	out, err := c.called(i.op, i.callee, args)
	if err != nil {
		return err
	}
	for k, n := range i.out {
		fr[n] = out[k]
	}
	return nil
}

// maxTurns bounds a loop: a bundle's loops run once a token of a call.
const maxTurns = 1 << 20

// while carries its operands through: the first region ends in condition(go on, values...), the second in yield(values...).
// Both read values from outside directly.
func while(c *call, f *function, fr frame, i *instr) error {
	if len(i.regions) != 2 {
		return fmt.Errorf("%d regions, want 2", len(i.regions))
	}
	before, after := i.regions[0], i.regions[1]
	carried := i.in
	for turn := range maxTurns + 1 {
		if turn == maxTurns {
			return fmt.Errorf("a loop of more than %d turns", maxTurns)
		}
		if err := hand(fr, before.args, carried); err != nil {
			return err
		}
		if err := c.block(f, fr, before, false); err != nil {
			return err
		}
		goOn := fr[before.end.in[0]].t
		if goOn == nil || goOn.Kind != aicode.Bool || goOn.Len() != 1 {
			return fmt.Errorf("a condition that is not one bool")
		}
		carried = before.end.in[1:]
		if goOn.ints()[0] == 0 {
			return hand(fr, i.out, carried)
		}
		if err := hand(fr, after.args, carried); err != nil {
			return err
		}
		if err := c.block(f, fr, after, false); err != nil {
			return err
		}
		carried = after.end.in
		if err := c.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// reduceRegion folds operand 0 along the axes of operand 1 from operand 2 on, with the region's operation: value, element.
func reduceRegion(c *call, f *function, fr frame, i *instr) error {
	t, start := fr[i.in[0]].t, fr[i.in[2]].t
	if len(i.regions) != 1 || len(i.regions[0].args) != 2 || len(i.regions[0].end.in) != 1 || t == nil || start == nil || fr[i.in[1]].t == nil || start.Len() != 1 {
		return fmt.Errorf("a reduction without an operation of two values")
	}
	axes, err := axesOf(fr[i.in[1]].t, len(t.Dims))
	if err != nil {
		return err
	}
	rows, n, kept := toRows(t, axes)
	out := zeros(resultKind(i.op), kept)
	flat := rows.view([]int{rows.Len()}, []int{1}, 0)
	if t.isFloat() {
		flat.f, flat.src = rows.floats(), nil
	} else {
		flat.n = rows.ints()
	}
	r := i.regions[0]
	for o := range out.Len() {
		acc := value{t: start}
		for k := range n {
			fr[r.args[0]], fr[r.args[1]] = acc, value{t: flat.view(nil, nil, o*n+k)}
			if err := c.block(f, fr, r, false); err != nil {
				return err
			}
			acc = fr[r.end.in[0]]
		}
		if acc.t == nil || acc.t.Len() != 1 || acc.t.isFloat() != out.isFloat() {
			return fmt.Errorf("a reduction whose value is %v", acc.t)
		}
		if out.isFloat() {
			out.f[o] = grid(out.Kind).Value(acc.t.floats()[0])
		} else {
			out.n[o] = wrap(out.Kind, acc.t.ints()[0])
		}
	}
	fr[i.out[0]] = value{t: out}
	return nil
}
