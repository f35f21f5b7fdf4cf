// Package against holds the weights of a bundle against the checkpoint it was made from. A bundle stores no names: each weight's is
// recovered by quantizing the checkpoint's tensors again and comparing bytes. Where the bytes of the tensor that the dataflow
// asks for differ, every other tensor of that shape is tried, so that swapped weights are told from changed ones.
package against

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/config"
	"sibyl/internal/inputerr"
	"sibyl/precision"
)

// Match is one weight beside the checkpoint.
type Match struct {
	Weight *bundle.Weight
	Parts  []Part // the tensors it was made of; of a weight of unknown role those whose bytes it has
	How    How
}

// How is how far a name is certain.
type How uint8

// The ways of knowing a weight's name.
const (
	Unknown  How = iota // no role, and no tensor's bytes
	Bytes               // its bytes are a tensor's; the graph does not say which it should be
	Dataflow            // its place in the graph says so; its bytes differ
	Place               // its place says so; its bytes were not compared
	Both                // bytes and place agree
	Formula             // no tensor: a formula of the config, which it equals
)

// String names the way.
func (h How) String() string {
	return [...]string{"unknown", "bytes", "dataflow", "dataflow, bytes not compared", "bytes and dataflow", "formula"}[h]
}

// Part is a checkpoint's tensor in a weight.
type Part struct {
	Name     string // of the tensor in the checkpoint's files
	Spec     string // how it was quantized or folded: "int8 clipping, blocks of 32", "float32(1+w)"
	Elements int64
	Diff     Diff
	Fault    []int64 // elements whose fp16-subnormal w the exporter folded as almost 0
	BytesOf  string  // another tensor whose bytes these are; "" for none
	Skipped  bool    // stored in a scheme that sibyl does not quantize with: its bytes were not compared
}

// Diff says what differs and by how much. Distances are those of the weights that the graph computes with.
type Diff struct {
	Q, Scales, Mins int64 // stored parts of a quantized weight that differ
	Values          int64 // elements of a plain one
	MaxAbs, RMS     float64
	First           int64 // the first element that differs, in the flat order of the tensor; -1 for none
	sum             float64
}

// Equal says whether nothing differs.
func (d *Diff) Equal() bool { return d.Q+d.Scales+d.Mins+d.Values == 0 }

func (d *Diff) distance(i int64, x float64) {
	if d.First < 0 {
		d.First = i
	}
	d.MaxAbs = max(d.MaxAbs, math.Abs(x))
	d.sum += x * x
}

// Equal says whether the weight is what the checkpoint and its place say, the exporter's fault apart.
func (m *Match) Equal() bool { return m.How == Both || m.How == Formula }

// Report is a whole bundle beside a checkpoint.
type Report struct {
	Matches []Match
	Missing []string // tensors that no weight of the function was made of
}

// Options say how the work is done.
type Options struct {
	Function string // "main"
	Threads  int
	Progress func(done, total int64) // bytes of weights
}

// Compare holds the weights of a function against ck, an original checkpoint. A checkpoint of other sizes is an *inputerr.Error.
func Compare(ctx context.Context, l *bundle.Listing, ck *bundle.Checkpoint, opt Options) (*Report, error) {
	if ck.Quantization() != nil {
		return nil, &inputerr.Error{File: ck.Path(), Found: "a checkpoint that is quantized itself", Want: "the original", Do: "give the checkpoint that the bundle was made from"}
	}
	c := &comparison{ck: ck, all: places(ck.Config()), rope: l.Roles[opt.Function]}
	var list []*bundle.Weight
	var total int64
	for _, w := range l.Weights {
		if w.Function == opt.Function {
			list = append(list, w)
			total += w.Bytes()
		}
	}
	if err := c.sizes(list); err != nil {
		return nil, err
	}
	r := &Report{Matches: make([]Match, len(list))}
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, opt.Threads))
	for i, w := range list {
		g.Go(func() (err error) {
			defer bundle.Catch(&err)()
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("comparing weights stopped: %w", err)
			}
			r.Matches[i] = c.match(w)
			if n := done.Add(w.Bytes()); opt.Progress != nil {
				opt.Progress(n, total)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	r.Missing = c.missing(list)
	return r, nil
}

// comparison is one call of Compare.
type comparison struct {
	ck   *bundle.Checkpoint
	all  []place
	rope *bundle.Roles
}

// sizes refuses a checkpoint of another model: the first weight that does not fit is told.
func (c *comparison) sizes(list []*bundle.Weight) error {
	for _, w := range list {
		dims := w.Data.Const.Type.Dims
		for _, u := range w.Parts {
			e := &inputerr.Error{File: c.ck.Path(), Field: u.Name(), Found: "no such tensor", Want: "one for the bundle's " + w.Data.Const.Type.String(),
				Do: "give the checkpoint that the bundle was made from; this one is of another model"}
			s, err := sourceOf(c.ck, u.Role, u.Layer, u.Proj)
			if err != nil {
				return e
			}
			fits := int64(s.rows*s.cols) == w.Data.Const.Len()
			if len(u.Spans) > 0 {
				fits = dims[len(dims)-1] == int64(s.cols) && (repeated(u) || covered(u) <= s.rows)
			}
			if !fits {
				e.Found = fmt.Sprintf("[%d, %d]", s.rows, s.cols)
				return e
			}
		}
	}
	return nil
}

// covered is where the tensor's rows that spans name end.
func covered(u *bundle.Use) (end int) {
	for _, p := range u.Spans {
		end = max(end, p.To+p.N)
	}
	return end
}

// repeated says whether each stored row is the whole tensor again.
func repeated(u *bundle.Use) bool {
	return len(u.Spans) > 0 && (u.Role == config.QNorm || u.Role == config.KNorm)
}

// match finds what one weight is.
func (c *comparison) match(w *bundle.Weight) Match {
	m := Match{Weight: w}
	if c.rope != nil && c.rope.InvFreq == w.Data {
		return c.inverse(w)
	}
	if len(w.Parts) == 0 {
		if p, ok := c.byBytes(w, nil); ok {
			m.Parts, m.How = []Part{p}, Bytes
		}
		return m
	}
	m.How = Both
	seen := map[string]bool{}
	for _, u := range w.Parts {
		p := c.part(w, u)
		if seen[p.Name] { // a tied table has two uses of one tensor
			continue
		}
		seen[p.Name] = true
		if p.Skipped {
			m.How = Place
		} else if !p.Diff.Equal() {
			m.How = Dataflow
			if other, ok := c.byBytes(w, u); ok {
				p.BytesOf = other.Name
			}
		}
		m.Parts = append(m.Parts, p)
	}
	return m
}

// part compares a weight with the tensor of one of its roles.
func (c *comparison) part(w *bundle.Weight, u *bundle.Use) Part {
	s, err := sourceOf(c.ck, u.Role, u.Layer, u.Proj)
	if err != nil {
		return Part{Name: u.Name(), Diff: Diff{Values: w.Data.Const.Len(), First: 0}} // sizes saw it: it cannot be
	}
	if w.Quant != nil {
		return quantized(w.Quant, u, s)
	}
	return plain(w.Data.Const, u, s)
}

// byBytes looks for a tensor of the weight's shape whose bytes it has; not is the one that was tried.
func (c *comparison) byBytes(w *bundle.Weight, not *bundle.Use) (Part, bool) {
	n := w.Data.Const.Len()
	for _, at := range c.all {
		s, err := sourceOf(c.ck, at.role, at.layer, at.proj)
		if err != nil || not != nil && at.role == not.Role && at.layer == not.Layer && at.proj == not.Proj {
			continue
		}
		u := &bundle.Use{Role: at.role, Layer: at.layer, Proj: at.proj, Form: bundle.AsIs}
		if not != nil {
			u.Spans, u.Form, u.Shape, u.Turned = not.Spans, not.Form, not.Shape, not.Turned
		}
		dims := w.Data.Const.Type.Dims
		if len(u.Spans) == 0 && int64(s.rows*s.cols) != n || len(u.Spans) > 0 && (covered(u) != s.rows || dims[len(dims)-1] != int64(s.cols)) {
			continue
		}
		for _, form := range forms(w, u) {
			u.Form = form
			if p := c.part(w, u); p.Diff.Equal() && !p.Skipped {
				return p, true
			}
		}
	}
	return Part{}, false
}

// forms are the ways in which a plain weight of unknown role may be stored.
func forms(w *bundle.Weight, u *bundle.Use) []bundle.Form {
	if w.Quant != nil || len(w.Parts) > 0 || w.Data.Const.Type.Elem != aicode.F32 {
		return []bundle.Form{u.Form}
	}
	return []bundle.Form{bundle.OnePlus, bundle.NegExp, bundle.Upcast}
}

// inverse holds the rope's constant against its formula.
func (c *comparison) inverse(w *bundle.Weight) Match {
	cfg := c.ck.Config()
	want := precision.InvFreq(cfg.RopeTheta, cfg.RotaryDim)
	k := w.Data.Const
	p := Part{Name: "inv_freq", Spec: "float32(1 / theta^(2j/rotary))", Elements: k.Len(), Diff: Diff{First: -1}}
	for i := range k.Len() {
		if i >= int64(len(want)) || float32(k.Float(i)) != want[i] {
			p.Diff.Values++
			x := k.Float(i)
			if i < int64(len(want)) {
				x -= float64(want[i])
			}
			p.Diff.distance(i, x)
		}
	}
	p.Diff.finish(p.Elements)
	m := Match{Weight: w, Parts: []Part{p}, How: Formula}
	if !p.Diff.Equal() || k.Len() != int64(len(want)) {
		m.How = Dataflow
	}
	return m
}

// missing lists the tensors that no weight was made of.
func (c *comparison) missing(list []*bundle.Weight) (out []string) {
	used := map[place]bool{}
	for _, w := range list {
		for _, u := range w.Parts {
			used[place{u.Role, u.Layer, u.Proj}] = true
		}
	}
	for _, at := range c.all {
		if used[at] || at.role == config.Head && c.ck.Config().TieWordEmbeddings && used[place{config.Embed, -1, ""}] {
			continue
		}
		if s, err := sourceOf(c.ck, at.role, at.layer, at.proj); err == nil && !slices.Contains(out, s.name) {
			out = append(out, s.name)
		}
	}
	return out
}

func (d *Diff) finish(n int64) { d.RMS = math.Sqrt(d.sum / float64(max(1, n))) }
