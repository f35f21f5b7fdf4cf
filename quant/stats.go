package quant

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"

	"sibyl/bundle"
)

// Figure is a number that may be infinite (the SNR of what lost nothing, or overflowed) or none; such a one is a
// string in JSON.
type Figure float64

// MarshalJSON implements json.Marshaler.
func (d Figure) MarshalJSON() ([]byte, error) {
	if x := float64(d); !math.IsInf(x, 0) && !math.IsNaN(x) {
		return json.Marshal(x)
	}
	return json.Marshal(fmt.Sprint(float64(d)))
}

// Block is one block of a weight and what quantizing it cost.
type Block struct {
	Tensor string `json:"tensor"`
	Row    int    `json:"row"` // of the weight as a matrix, experts one below the other; the first of the block
	Column int    `json:"column"`
	SNR    Figure `json:"snr_db"`  // 10 log10 of sum w^2 over sum (w' - w)^2
	AbsMax Figure `json:"abs_max"` // of the stored weights
}

// tally sums up what became of weights. Before are the stored weights, after those a model would read.
type tally struct {
	n                         int
	signal, noise, dot, after float64 // sums of before^2, (after-before)^2, before*after, after^2
	zero                      int     // blocks of nothing but zeros
	overflow                  int     // weights that became infinite
	worst                     Block   // the one of the least SNR; Tensor is "" if none was changed
	hasWorst                  bool
}

func (t *tally) add(o *tally) {
	t.n += o.n
	t.signal += o.signal
	t.noise += o.noise
	t.dot += o.dot
	t.after += o.after
	t.zero += o.zero
	t.overflow += o.overflow
	if o.hasWorst && (!t.hasWorst || o.worst.SNR < t.worst.SNR) {
		t.worst, t.hasWorst = o.worst, true
	}
}

// ratio is 10 log10(signal/noise); without noise +Inf, also where there is no signal.
func ratio(signal, noise float64) Figure {
	if noise == 0 {
		return Figure(math.Inf(1))
	}
	return Figure(10 * math.Log10(signal/noise))
}

func (t *tally) snr() Figure { return ratio(t.signal, t.noise) }

// cosine of before and after; 1 where nothing was changed, else at most the number below it.
func (t *tally) cosine() Figure {
	if t.noise == 0 || t.signal == 0 || t.after == 0 {
		return 1
	}
	return Figure(min(t.dot/math.Sqrt(t.signal)/math.Sqrt(t.after), math.Nextafter(1, 0)))
}

// sums adds vectors to the tally and gives their signal and noise.
func (t *tally) sums(before, after []float32, buf []float64) (signal, noise float64) {
	n := len(before)
	a, b := buf[:n], buf[n:2*n]
	for i := range a {
		a[i], b[i] = float64(before[i]), float64(after[i])
		if math.IsInf(b[i], 0) {
			t.overflow++
		}
	}
	t.n += n
	signal = floats.Dot(a, a)
	t.dot += floats.Dot(a, b)
	t.after += floats.Dot(b, b)
	floats.Sub(b, a)
	noise = floats.Dot(b, b)
	t.signal += signal
	t.noise += noise
	return signal, noise
}

// plain tallies weights without blocks.
func (t *tally) plain(before, after []float32) { t.sums(before, after, make([]float64, 2*len(before))) }

// blocks tallies a piece block by block.
func (t *tally) blocks(u *unit, p *piece, before, after []float32) {
	size := u.spec.Block
	a, b, buf := make([]float32, size), make([]float32, size), make([]float64, 2*size)
	for k := range len(before) / size {
		row, col, stride := k*size/u.cols, k*size%u.cols, 1
		if u.spec.Axis == 0 {
			row, col, stride = k/u.cols*size, k%u.cols, u.cols
		}
		x, y := before[row*u.cols+col:], after[row*u.cols+col:]
		for i := range size {
			a[i], b[i] = x[i*stride], y[i*stride]
		}
		signal, noise := t.sums(a, b, buf)
		if signal == 0 {
			t.zero++
		}
		if snr := ratio(signal, noise); noise != 0 && (!t.hasWorst || snr < t.worst.SNR) {
			t.hasWorst = true
			t.worst = Block{Tensor: u.name, Row: p.part*u.rows + p.row + row, Column: col, SNR: snr, AbsMax: Figure(absMax(a))}
		}
	}
}

// TensorReport is what became of one weight.
type TensorReport struct {
	Name        string       `json:"name"` // below the text model's prefix
	Group       bundle.Group `json:"-"`
	GroupName   string       `json:"group"`
	Spec        string       `json:"spec"` // "int8 clipping, blocks of 32"
	Shape       []int        `json:"shape"`
	Weights     int          `json:"weights"`
	SourceBytes int64        `json:"source_bytes"` // 0 for a head's own copy of a tied table
	Bytes       int64        `json:"bytes"`
	SHA256      string       `json:"sha256,omitempty"` // of q, one byte a value, followed by the scales
	MinSHA256   string       `json:"minval_sha256,omitempty"`
	SNR         Figure       `json:"snr_db"`
	Cosine      Figure       `json:"cosine"`
	Worst       *Block       `json:"worst_block,omitempty"`
	ZeroBlocks  int          `json:"zero_blocks"`
	Overflow    int          `json:"overflow"` // weights that read as infinite
	tally       tally
}

// GroupReport sums up the weights of one group.
type GroupReport struct {
	Name        string `json:"name"`
	Tensors     int    `json:"tensors"`
	Weights     int    `json:"weights"`
	SourceBytes int64  `json:"source_bytes"`
	Bytes       int64  `json:"bytes"`
	SNR         Figure `json:"snr_db"`        // over all weights of the group
	MedianSNR   Figure `json:"median_snr_db"` // of its tensors
	Cosine      Figure `json:"cosine"`
	Worst       *Block `json:"worst_block,omitempty"`
}

// Report is what quantizing a checkpoint did, or would do.
type Report struct {
	Model       string         `json:"model"`
	Scheme      string         `json:"scheme"`
	Dir         string         `json:"dir,omitempty"` // "" for a dry run
	SourceBytes int64          `json:"source_bytes"`
	Bytes       int64          `json:"bytes"`
	UntiedHead  bool           `json:"untied_head"`
	Groups      []GroupReport  `json:"groups"`
	Tensors     []TensorReport `json:"tensors"`
	Notes       []Note         `json:"notes"`    // where the scheme could not be followed
	Warnings    []Note         `json:"warnings"` // weights that read as infinite
	Files       []string       `json:"files,omitempty"`
	LeftOut     int            `json:"left_out"` // tensors of the source that the text model does not use
}

// record adds a unit's figures.
func (r *Report) record(u *unit, h hashes, t tally) {
	e := TensorReport{Name: u.name, Group: u.group, GroupName: u.group.String(), Spec: u.spec.String(), Shape: u.shape, Weights: t.n,
		SourceBytes: u.sourceBytes(), Bytes: u.bytes(), SHA256: h.q, MinSHA256: h.min, SNR: t.snr(), Cosine: t.cosine(),
		ZeroBlocks: t.zero, Overflow: t.overflow, tally: t}
	if u.copied {
		e.SourceBytes = 0
	}
	if t.hasWorst {
		e.Worst = &t.worst
	}
	if t.overflow > 0 {
		r.Warnings = append(r.Warnings, Note{u.name, fmt.Sprintf("%d weights read as infinite: their block's largest magnitude, %g, rounds up beyond 65504 once q * scale is fp16", t.overflow, float64(t.worst.AbsMax))})
	}
	r.SourceBytes += e.SourceBytes
	r.Bytes += e.Bytes
	r.Tensors = append(r.Tensors, e)
}

// sumUp fills in the groups, in the order of the math.
func (r *Report) sumUp() {
	for g := range bundle.NumGroups {
		var t tally
		var snr []float64
		out := GroupReport{Name: g.String()}
		for _, e := range r.Tensors {
			if e.Group != g {
				continue
			}
			out.Tensors++
			out.Weights += e.Weights
			out.SourceBytes += e.SourceBytes
			out.Bytes += e.Bytes
			t.add(&e.tally)
			snr = append(snr, float64(e.SNR))
		}
		if out.Tensors == 0 {
			continue
		}
		slices.Sort(snr)
		out.SNR, out.Cosine = t.snr(), t.cosine()
		out.MedianSNR = Figure(stat.Quantile(0.5, stat.Empirical, snr, nil))
		if t.hasWorst {
			out.Worst = &t.worst
		}
		r.Groups = append(r.Groups, out)
	}
}
