// Package suite is the op suite: every kernel x formats x odd shapes against float64, with bounds that a running error analysis
// gives (num.go), in every order of threads that the device can run. It runs as tests, as `sibyl ops`, and on a user's GPU as part of
// `sibyl doctor metal`.
//
// To add an op, write a struct whose fields are its shape, with the methods of opCase, and list its cases in a function of the
// table `families`.
package suite

import (
	"fmt"
	"strings"
	"time"

	"sibyl/metal/gpu"
	"sibyl/metal/ops"
)

// opCase is one case: an op with its shape.
type opCase interface {
	op() string   // the kernel, "gemv_i8"
	vars() string // the rest of the name, "rows=5 cols=64 round=F16"
	bytes() int   // what the kernel must move: inputs and outputs once
	// build makes inputs and what the outputs should be, and gives the ops to run.
	build(b *bench) func(l *ops.List)
}

// families lists the cases, op after op.
var families = []func() []opCase{
	embedCases, normCases, gatedNormCases, linearCases, swigluCases, elementwiseCases, convCases, gdnCases, ropeCases, kvCases,
	attentionCases, combineCases, routerCases, expertCases, moeCombineCases, headCases, topKCases,
}

// Case is one case of the suite.
type Case struct{ c opCase }

// Name is the case's, unique: "gemv_i8 rows=5 cols=64 tokens=1 round=F16".
func (c Case) Name() string { return c.c.op() + " " + c.c.vars() }

// Op is the kernel's name.
func (c Case) Op() string { return c.c.op() }

// Cases lists all cases whose name contains every word of the filter.
func Cases(filter string) []Case {
	var out []Case
	for _, f := range families {
		for _, c := range f() {
			if k := (Case{c}); matches(k.Name(), filter) {
				out = append(out, k)
			}
		}
	}
	return out
}

func matches(name, filter string) bool {
	for _, w := range strings.Fields(filter) {
		if !strings.Contains(name, w) {
			return false
		}
	}
	return true
}

// Result is what a case showed.
type Result struct {
	Case     string        `json:"case"`
	Op       string        `json:"op"`
	Seed     uint64        `json:"seed"`
	Orders   int           `json:"orders"`    // of threads that gave the same bits
	Outputs  int           `json:"outputs"`   // numbers compared with float64
	SameBits int           `json:"same_bits"` // of them, equal to float64's rounded to float32
	NMSE     float64       `json:"nmse"`
	MaxULP   float64       `json:"max_ulp"`
	Worst    float64       `json:"worst"` // the largest difference, as a share of its bound
	Bytes    int           `json:"bytes"`
	Time     time.Duration `json:"ns"` // on the device, of one run
	Err      error         `json:"-"`
	Failure  string        `json:"failure,omitempty"`
}

// Run runs a case on a device's kernels. A device in doubt fails every case after the first.
func (c Case) Run(set *ops.Set, seed uint64) (r Result) {
	r = Result{Case: c.Name(), Op: c.Op(), Seed: seed, Bytes: c.c.bytes()}
	b := newBench(set, c.Name(), seed)
	defer b.release()
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failed)
			if !ok {
				panic(p)
			}
			r.fail(f.err)
		}
	}()
	launch := c.c.build(b)
	orders := max(1, set.Device.Info().Orders)
	for order := range orders {
		if d, ok := set.Device.(gpu.Ordered); ok {
			d.SetOrder(order)
		}
		for _, o := range b.outs {
			o.reset()
		}
		l := set.Begin()
		launch(l)
		t, err := l.Commit()
		if err == nil {
			err = b.finish(order)
		}
		if err != nil {
			r.fail(err)
			return r
		}
		if order == 0 {
			r.Time = t.Device
		}
		r.Orders++
	}
	if err := b.measure(&r); err != nil {
		r.fail(err)
	}
	return r
}

func (r *Result) fail(err error) { r.Err, r.Failure = err, err.Error() }

// String is the line of `sibyl ops`.
func (r Result) String() string {
	if r.Err != nil {
		return fmt.Sprintf("FAIL %s seed=%d: %v", r.Case, r.Seed, r.Err)
	}
	return fmt.Sprintf("ok   %s: %.2f of the bound, %.3g ulp, NMSE %.2g", r.Case, r.Worst, r.MaxULP, r.NMSE)
}
