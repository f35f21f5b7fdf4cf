package suite

import (
	"context"
	"slices"
	"strings"
	"time"

	"sibyl/metal/gpu"
	"sibyl/metal/ops"
)

// Report is the suite on one device.
type Report struct {
	Device  gpu.Info  `json:"device"`
	Seed    uint64    `json:"seed"`
	Cases   int       `json:"cases"`
	Failed  int       `json:"failed"`
	Kernels []Summary `json:"kernels"`
	Results []Result  `json:"results"`
	Speeds  []Speed   `json:"speeds,omitempty"`
}

// Summary is all cases of one kernel: the worst of each measure.
type Summary struct {
	Op       string  `json:"op"`
	Cases    int     `json:"cases"`
	Failed   int     `json:"failed"`
	Outputs  int     `json:"outputs"`
	SameBits int     `json:"same_bits"`
	NMSE     float64 `json:"nmse"`
	MaxULP   float64 `json:"max_ulp"`
	Worst    float64 `json:"worst"`
}

// Run runs cases on a device and shows each as it ends. fresh gives the device's kernels again after a case failed, since the device
// is in doubt then. It stops with an error only where it can go on no more.
func Run(ctx context.Context, cases []Case, seed uint64, fresh func() (*ops.Set, error), each func(Result)) (*Report, error) {
	set, err := fresh()
	if err != nil {
		return nil, err
	}
	r := &Report{Device: set.Device.Info(), Seed: seed}
	for _, c := range cases {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x := c.Run(set, seed)
		r.add(x)
		each(x)
		if x.Err != nil {
			set.Device.Close()
			if set, err = fresh(); err != nil {
				return nil, err
			}
		}
	}
	return r, set.Device.Close()
}

func (r *Report) add(x Result) {
	r.Cases++
	r.Results = append(r.Results, x)
	i := slices.IndexFunc(r.Kernels, func(s Summary) bool { return s.Op == x.Op })
	if i < 0 {
		i = len(r.Kernels)
		r.Kernels = append(r.Kernels, Summary{Op: x.Op})
	}
	s := &r.Kernels[i]
	s.Cases++
	if x.Err != nil {
		r.Failed++
		s.Failed++
		return
	}
	s.Outputs, s.SameBits = s.Outputs+x.Outputs, s.SameBits+x.SameBits
	s.NMSE, s.MaxULP, s.Worst = max(s.NMSE, x.NMSE), max(s.MaxULP, x.MaxULP), max(s.Worst, x.Worst)
}

// Speed is how fast a kernel moves its bytes on a device.
type Speed struct {
	Case  string  `json:"case"`
	GBs   float64 `json:"gb_s"`
	Share float64 `json:"share"` // of what the same device moves when it adds two vectors
}

// speeds are shapes of a decoding model, large enough to leave the caches of a GPU to its memory.
func speeds() (out []opCase) {
	for f := range ops.NumFormats {
		out = append(out, linearCase{f: f, rows: 4096, cols: 2048, tokens: 1})
	}
	return append(out, swigluCase{f: ops.I8, rows: 2048, cols: 2048, tokens: 1},
		gdnCase{d: ops.GDNDims{KeyHeads: 16, ValueHeads: 32, KeyDim: 128, ValueDim: 128}, lens: []int{1}},
		attentionCase{nq: 16, nkv: 4, hd: 256, pos: 1023, lens: []int{1}})
}

// Speeds measures the kernels that decoding waits for: the fastest of so many runs each, by the device's own clock.
func Speeds(ctx context.Context, set *ops.Set, runs int) ([]Speed, error) {
	peak := residualCase{n: 1 << 22}
	base, err := fastest(ctx, set, peak, runs)
	if err != nil {
		return nil, err
	}
	rate := func(c opCase, t time.Duration) float64 { return float64(c.bytes()) / float64(max(t, 1)) }
	out := []Speed{{"residual " + peak.vars(), rate(peak, base), 1}}
	for _, c := range speeds() {
		t, err := fastest(ctx, set, c, runs)
		if err != nil {
			return nil, err
		}
		out = append(out, Speed{strings.TrimSpace(c.op() + " " + c.vars()), rate(c, t), rate(c, t) / out[0].GBs})
	}
	return out, nil
}

// fastest runs a case without looking at its results.
func fastest(ctx context.Context, set *ops.Set, c opCase, runs int) (best time.Duration, err error) {
	b := newBench(set, c.op()+c.vars(), 1)
	defer b.release()
	launch := c.build(b)
	for range runs {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		for _, o := range b.outs {
			o.reset()
		}
		l := set.Begin()
		launch(l)
		t, err := l.Commit()
		if err != nil {
			return 0, err
		}
		if t.Device > 0 && (best == 0 || t.Device < best) {
			best = t.Device
		}
	}
	return best, nil
}
