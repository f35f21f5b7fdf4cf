package oracle

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"sibyl/internal/inputerr"
	"sibyl/trace"
)

// DiffOptions steer a diff. The zero value compares with the defaults below.
type DiffOptions struct {
	// Tol, if not nil, judges the tensors; without it nothing is judged.
	Tol *Tolerances
	// TopK is the k of the logits' top-k overlap; 0 means 5.
	TopK int
	// Progress, if not nil, is called now and then with the elements compared and the elements in all.
	Progress func(done, total int64)
}

// DiffResult is the comparison of two runs of the same ids. REF is a, TEST is b.
type DiffResult struct {
	Ref    DiffSide `json:"ref"`
	Test   DiffSide `json:"test"`
	Tokens int      `json:"tokens"`
	Notes  []string `json:"notes"` // what was not compared, and why
	// Identical: every compared tensor has the same bits.
	Identical bool     `json:"identical"`
	OnlyRef   []string `json:"only_in_ref"`
	OnlyTest  []string `json:"only_in_test"`

	Tensors []TensorStats `json:"tensors"` // in the order of the math
	First   Divergence    `json:"first_divergence"`
	// NonFinite says where NaN and infinities begin, on either side; null if there are none. Two NaNs agree as bits
	// do, and say nothing of what would have been there: no other figure counts them.
	NonFinite *NonFinitePlace `json:"non_finite"`
	Layers    []LayerError    `json:"layers"`
	Heat      *Heat           `json:"heat"`   // null without layer outputs
	Logits    *LogitStats     `json:"logits"` // null if neither logits nor ids were compared
	Tol       *TolResult      `json:"tolerance"`
}

// DiffSide names one side.
type DiffSide struct {
	Label      string `json:"label"`
	Contract   string `json:"contract,omitempty"`
	Scheme     string `json:"scheme,omitempty"`
	Mode       string `json:"mode,omitempty"`
	Path       string `json:"path,omitempty"`
	Weights    string `json:"weights_sha256,omitempty"`
	DataSHA256 string `json:"data_sha256,omitempty"` // as the trace file says
}

// ExitCode is 1 if a tensor exceeds the tolerances, else 0: without tolerances a difference is no failure.
func (r *DiffResult) ExitCode() int {
	if r.Tol != nil && len(r.Tol.Exceeded) > 0 {
		return 1
	}
	return 0
}

// blockSize is how many elements of a tensor are in memory at a time, on each side.
const blockSize = 1 << 16

// Diff compares two recorded sequences of the same ids, REF first. Tensors are paired by exact name; those that one
// side lacks are listed, not guessed. Ids or shapes that differ give an *inputerr.Error. Tensors are read in blocks:
// memory does not grow with their size, except for two numbers a row.
func Diff(ctx context.Context, ref, test trace.Source, opt DiffOptions) (*DiffResult, error) {
	return diff(ctx, ref, test, opt, nil)
}

// diff is Diff; live are the logits if they were compared already.
func diff(ctx context.Context, ref, test trace.Source, opt DiffOptions, live *liveLogits) (*DiffResult, error) {
	if err := sameIDs(ref, test); err != nil {
		return nil, err
	}
	r := &DiffResult{Ref: side(ref), Test: side(test), Tokens: len(ref.IDs()), Notes: []string{}}
	pairs, err := r.pair(ref, test, live)
	if err != nil {
		return nil, err
	}
	d := &differ{ctx: ctx, ref: ref, test: test, opt: opt, done: map[string]*comparison{}}
	for _, p := range pairs {
		d.total += int64(p.Len())
	}
	r.Identical = true
	add := func(c *comparison) {
		d.done[c.info.Name] = c
		d.order = append(d.order, c)
		s := c.stats()
		r.Identical = r.Identical && s.Identical()
		r.Tensors = append(r.Tensors, s)
	}
	placed := live == nil
	for _, p := range pairs {
		if !placed && p.Tap > trace.Logits {
			add(live.c)
			placed = true
		}
		c, err := d.compare(p)
		if err != nil {
			return nil, err
		}
		add(c)
	}
	if !placed {
		add(live.c)
	}
	r.First, r.NonFinite = d.first(), d.nonFinite()
	if r.Layers, err = d.layerErrors(); err != nil {
		return nil, err
	}
	r.Heat = d.heat(r.Tokens)
	if live != nil {
		live.s.close()
		r.Logits = live.s
	} else if r.Logits, err = d.logits(); err != nil {
		return nil, err
	}
	if opt.Tol != nil {
		if r.Tol, err = opt.Tol.Judge(r.Tensors); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// side fills in what a trace file says about its run.
func side(s trace.Source) DiffSide {
	out := DiffSide{Label: s.Label()}
	if f, ok := s.(*trace.File); ok && f.Meta() != nil {
		m := f.Meta()
		out.Contract, out.Scheme, out.Mode, out.Path, out.Weights, out.DataSHA256 = m.Contract, m.Scheme, m.Mode, m.Path, m.WeightsSHA256, m.DataSHA256
	}
	return out
}

func sameIDs(ref, test trace.Source) error {
	a, b := ref.IDs(), test.IDs()
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return &inputerr.Error{File: test.Label(), Field: fmt.Sprintf("input_ids[%d]", i), Found: fmt.Sprint(b[i]),
				Want: fmt.Sprintf("%d as in %s", a[i], ref.Label()), Do: "compare two runs of the same ids"}
		}
	}
	if len(a) != len(b) {
		return &inputerr.Error{File: test.Label(), Field: "input_ids", Found: fmt.Sprintf("%d tokens", len(b)),
			Want: fmt.Sprintf("%d as in %s", len(a), ref.Label()), Do: "compare two runs of the same ids"}
	}
	return nil
}

// pair finds the tensors both sides have, in the order of the math, and lists the others.
// Logits that were compared already are left out.
func (r *DiffResult) pair(ref, test trace.Source, live *liveLogits) ([]trace.TensorInfo, error) {
	theirs := map[string]trace.TensorInfo{}
	for _, t := range test.Tensors() {
		theirs[t.Name] = t
	}
	var pairs []trace.TensorInfo
	r.OnlyRef, r.OnlyTest = []string{}, []string{}
	for _, a := range ref.Tensors() {
		if live != nil && a.Tap == trace.Logits {
			continue
		}
		b, ok := theirs[a.Name]
		if !ok {
			r.OnlyRef = append(r.OnlyRef, a.Name)
			continue
		}
		delete(theirs, a.Name)
		if !slices.Equal(a.Shape, b.Shape) {
			// A Recorder without a config knows the width of a row only: take the shape of the side that knows more.
			flat := a.Len() == b.Len() && len(a.Shape) != len(b.Shape) && (!a.PerToken() || a.Shape[0] == b.Shape[0])
			if !flat {
				return nil, &inputerr.Error{File: test.Label(), Field: fmt.Sprintf("tensor %q shape", a.Name), Found: fmt.Sprint(b.Shape),
					Want: fmt.Sprintf("%v as in %s", a.Shape, ref.Label()), Do: "compare two runs of models of the same shape"}
			}
			if len(b.Shape) > len(a.Shape) {
				a.Shape = b.Shape
			}
		}
		pairs = append(pairs, a)
	}
	for _, t := range test.Tensors() {
		if _, left := theirs[t.Name]; left && !(live != nil && t.Tap == trace.Logits) {
			r.OnlyTest = append(r.OnlyTest, t.Name)
		}
	}
	if len(pairs) == 0 && live == nil {
		return nil, &inputerr.Error{File: test.Label(), Found: "no tensor of a name that " + ref.Label() + " has too",
			Want: "at least one", Do: "make both traces with the same --taps"}
	}
	return pairs, nil
}

// differ holds what a diff has read so far.
type differ struct {
	ctx         context.Context
	ref, test   trace.Source
	opt         DiffOptions
	done        map[string]*comparison
	order       []*comparison // in the order of the math
	read, total int64
	a, b        []float32
}

// compare runs through one tensor.
func (d *differ) compare(t trace.TensorInfo) (*comparison, error) {
	c := newComparison(t)
	err := d.blocks(t.Name, t.Len(), blockSize, func(_ int, a, b []float32) { c.add(a, b) })
	if err != nil {
		return nil, err
	}
	if d.read += int64(t.Len()); d.opt.Progress != nil {
		d.opt.Progress(d.read, d.total)
	}
	return c, nil
}

// blocks reads n elements of a tensor on both sides, at most size at a time.
func (d *differ) blocks(name string, n, size int, each func(off int, a, b []float32)) error {
	if len(d.a) < size {
		d.a, d.b = make([]float32, size), make([]float32, size)
	}
	for off := 0; off < n; off += size {
		if err := d.ctx.Err(); err != nil {
			return fmt.Errorf("diff stopped at %s: %w", name, err)
		}
		m := min(size, n-off)
		if err := d.ref.Read(name, off, d.a[:m]); err != nil {
			return err
		}
		if err := d.test.Read(name, off, d.b[:m]); err != nil {
			return err
		}
		each(off, d.a[:m], d.b[:m])
	}
	return nil
}

// lookup finds a finished comparison by tap and layer.
func (d *differ) lookup(t trace.Tap, layer int) *comparison { return d.done[t.Name(layer)] }

// lastLayer is the highest layer either side recorded, -1 if none.
func (d *differ) lastLayer() int {
	last := -1
	for _, c := range d.order {
		last = max(last, c.info.Layer)
	}
	return last
}

// rowError is the relative error of one row: the rms of its difference over the rms of REF's row, or over the median
// of REF's rows if that is larger (a row that happens to cancel is no signal to measure by). It is infinite if the
// row has a non-finite mismatch.
func (c *comparison) rowError(row int, median float64) float64 {
	if c.rowInvalid[row] > 0 {
		return math.Inf(1)
	}
	return relative(c.rowDD[row], max(c.rowAA[row], median))
}

// medianRow is the median over rows of REF's sum of squares.
func (c *comparison) medianRow() float64 {
	rows := slices.Clone(c.rowAA)
	slices.SortFunc(rows, cmp.Compare)
	return rows[len(rows)/2]
}
