package graph

import (
	"errors"
	"fmt"
	"strings"

	"sibyl/bundle/aicode"
	"sibyl/internal/inputerr"
)

// A program is made ready once: every value gets a slot, every operation its entry of the table, and what depends on
// constants alone is computed once.

// function is a graph made ready.
type function struct {
	g     *aicode.Graph
	body  *block
	slots int
	kept  []value   // by slot: what constants alone decide, once it was computed
	one   composite // instead of the body, nil for none
}

// block is a straight line of operations; those of regions share their function's slots.
type block struct {
	args []int
	ops  []*instr
	end  *instr // what the block ends in: output, yield or condition
}

// instr is an operation made ready.
type instr struct {
	op       *aicode.Op
	def      *opDef // nil: run the region
	in, out  []int
	regions  []*block
	callee   *function
	constant bool  // depends on constants alone
	drop     []int // slots that nothing reads afterwards
}

// value is what a slot holds: a tensor, or a state. Tokens hold neither: operations run in the order they are written.
type value struct {
	t *Tensor
	h *handle
}

// handle is a state of the call.
type handle struct {
	name string
	t    *Tensor
}

// maxDepth bounds calls within calls and regions within regions.
const maxDepth = 32

// builder makes a program's functions ready.
type builder struct {
	p         *aicode.Program
	arith     *Arithmetic
	done      map[string]*function
	fallbacks map[string]bool // operations that run through their region
}

// fault is an error at an operation.
func (b *builder) fault(g *aicode.Graph, op *aicode.Op, before *aicode.Op, err error) error {
	var in *inputerr.Error
	if errors.As(err, &in) {
		return err // it says where already
	}
	var types []string
	for _, v := range op.Operands {
		types = append(types, v.Type.String())
	}
	after := "the first operation of its block"
	if before != nil {
		after = "after " + before.Where()
	}
	return &inputerr.Error{
		File: b.p.File, Field: fmt.Sprintf("function %s, %s", g.Name, op.Where()),
		Found: fmt.Sprintf("%v, of operands (%s), %s", err, strings.Join(types, ", "), after),
		Want:  "an operation of the dialect as profiles zoo-s1 and apple-q35 use it",
		Do:    "report the operation: the graph engine executes nothing that it would have to guess",
	}
}

// function makes a graph ready, with the graphs it calls.
func (b *builder) function(g *aicode.Graph, depth int) (*function, error) {
	if f := b.done[g.Name]; f != nil {
		if f.body == nil {
			return nil, &inputerr.Error{File: b.p.File, Field: "function " + g.Name, Found: "a graph that calls itself", Want: "calls that end"}
		}
		return f, nil
	}
	if depth > maxDepth {
		return nil, &inputerr.Error{File: b.p.File, Field: "function " + g.Name, Found: fmt.Sprintf("calls nested more than %d deep", maxDepth), Want: "fewer"}
	}
	f := &function{g: g}
	b.done[g.Name] = f
	s := &slots{b: b, f: f, of: map[*aicode.Value]int{}, known: map[int]bool{}, depth: depth}
	body, err := s.block(g.Body, 0)
	if err != nil {
		return nil, err
	}
	f.slots, f.kept, f.one = s.n, make([]value, s.n), compositeOf(g, b.arith)
	s.release(body)
	f.body = body
	return f, nil
}

// slots numbers the values of a function.
type slots struct {
	b     *builder
	f     *function
	of    map[*aicode.Value]int
	n     int
	known map[int]bool // decided by constants alone
	depth int
}

func (s *slots) new(v *aicode.Value) int {
	s.of[v] = s.n
	s.n++
	return s.n - 1
}

func (s *slots) block(b *aicode.Block, nested int) (*block, error) {
	out := &block{}
	for _, v := range b.Args {
		out.args = append(out.args, s.new(v))
	}
	var before *aicode.Op
	for _, op := range b.Ops {
		i, err := s.op(op, nested)
		if err != nil {
			return nil, s.b.fault(s.f.g, op, before, err)
		}
		switch name, _ := baseName(op.Name); name {
		case "dataflow.output", "dataflow.yield", "controlflow.condition":
			if op != b.Ops[len(b.Ops)-1] {
				return nil, s.b.fault(s.f.g, op, before, errors.New("an end of its block with operations after it"))
			}
			out.end = i
		default:
			out.ops = append(out.ops, i)
		}
		before = op
	}
	if out.end == nil {
		return nil, &inputerr.Error{File: s.b.p.File, Field: "function " + s.f.g.Name, Found: "a block without an end", Want: "output, yield or condition last"}
	}
	return out, nil
}

// op gives an operation its slots. Its results are constant if its operands are and it has an eval.
func (s *slots) op(op *aicode.Op, nested int) (*instr, error) {
	i := &instr{op: op, constant: true}
	for _, v := range op.Operands {
		n, ok := s.of[v]
		if !ok {
			return nil, errors.New("an operand that nothing before it makes")
		}
		i.in = append(i.in, n)
		i.constant = i.constant && s.known[n]
	}
	var err error
	if i.def, err = lookup(op); err != nil {
		if len(op.Regions) != 1 || nested > maxDepth {
			return nil, err
		}
		i.def = nil
		s.b.fallbacks[op.Name] = true
	}
	if i.def == nil || i.def.control != nil {
		if err := s.flow(i, nested); err != nil {
			return nil, err
		}
	}
	i.constant = i.constant && i.def != nil && i.def.eval != nil
	for _, v := range op.Results {
		n := s.new(v)
		i.out = append(i.out, n)
		s.known[n] = i.constant
	}
	return i, nil
}

// flow makes the regions and the callee of an operation ready.
func (s *slots) flow(i *instr, nested int) error {
	if nested > maxDepth {
		return fmt.Errorf("regions nested more than %d deep", maxDepth)
	}
	for _, r := range i.op.Regions {
		b, err := s.block(r, nested+1)
		if err != nil {
			return err
		}
		i.regions = append(i.regions, b)
	}
	if i.op.Callee == "" {
		return nil
	}
	g := s.b.p.Graph(i.op.Callee)
	if g == nil {
		return fmt.Errorf("a call of %s, which is not there", inputerr.Clip(i.op.Callee, 80))
	}
	if len(g.Body.Args) != len(i.op.Operands) || len(g.Outputs) != len(i.op.Results) {
		return fmt.Errorf("a call with %d operands and %d results of %s, which has %d and %d", len(i.op.Operands), len(i.op.Results), g.Name, len(g.Body.Args), len(g.Outputs))
	}
	var err error
	i.callee, err = s.b.function(g, s.depth+1)
	return err
}

// release notes after which operation of a function's own block a value is not read any more. Constants stay.
func (s *slots) release(body *block) {
	last := map[int]*instr{}
	var reads func(i, by *instr)
	reads = func(i, by *instr) {
		for _, n := range i.in {
			last[n] = by
		}
		for _, r := range i.regions {
			for _, j := range append(r.ops[:len(r.ops):len(r.ops)], r.end) {
				reads(j, by)
			}
		}
	}
	for _, i := range body.ops {
		for _, n := range i.out {
			last[n] = i // what nobody reads goes at once
		}
		reads(i, i)
	}
	reads(body.end, body.end)
	for n, i := range last {
		if !s.known[n] {
			i.drop = append(i.drop, n)
		}
	}
}
