package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"sibyl/bundle"
	"sibyl/internal/inputerr"
)

// quantInfo is what inspect shows of a checkpoint that sibyl quantized.
type quantInfo struct {
	Scheme     string `json:"scheme"`
	Source     string `json:"source"` // name of the checkpoint it was made from
	UntiedHead bool   `json:"untied_head"`
	Tensors    int    `json:"tensors"` // that are quantized
	Record     string `json:"record"`  // recordUnread, recordHolds or recordDiffers
}

// What is known of the hashes that config.json records.
const (
	recordUnread  = "not compared"
	recordHolds   = "matches"
	recordDiffers = "differs"
)

// quantizedTensor is how a quantized weight is kept.
type quantizedTensor struct {
	Format    string `json:"format"`
	Mode      string `json:"mode,omitempty"`
	Block     int    `json:"block"`
	Axis      int    `json:"axis"`
	Q         int64  `json:"q_bytes"`
	Scales    int64  `json:"scale_bytes"` // minvals included
	SHA256    string `json:"sha256"`      // as recorded: of q, one byte a value, followed by the scales
	MinSHA256 string `json:"minval_sha256,omitempty"`
}

// quantizedAs describes t, nil unless it is quantized.
func quantizedAs(t bundle.Tensor) *quantizedTensor {
	q := t.Quant
	if q == nil {
		return nil
	}
	return &quantizedTensor{Format: q.Format, Mode: q.Mode, Block: q.Block, Axis: q.Axis, Q: int64(len(t.Data)),
		Scales: int64(len(q.Scale) + len(q.Min)), SHA256: q.SHA256, MinSHA256: q.MinSHA256}
}

// text is the tensor's spec in few words: "int8 clipping, 32".
func (q *quantizedTensor) text() string {
	text := fmt.Sprintf("%s, %d", strings.TrimSpace(q.Format+" "+q.Mode), q.Block)
	if q.Axis == 0 {
		text += " along the output"
	}
	return text
}

// quantization sums up what is quantized.
func (r *inspection) quantization(c *bundle.Checkpoint) {
	q := c.Quantization()
	if q == nil {
		return
	}
	r.Quantization = &quantInfo{Scheme: q.Scheme, Source: q.Source, UntiedHead: q.UntiedHead, Tensors: len(q.Tensors), Record: recordUnread}
	for _, t := range r.Tensors {
		if t.quantizedTensor == nil {
			continue
		}
		i := slices.IndexFunc(r.Groups, func(g groupInfo) bool { return g.Name == t.group.String() })
		r.Groups[i].Q += t.Q
		r.Groups[i].Scales += t.Scales
	}
}

// hash reads all weights. Of a quantized checkpoint q and scales are compared with their record; the first weight that
// differs is a finding.
func (r *inspection) hash(ctx context.Context, c *bundle.Checkpoint, a *App) (err error) {
	r.WeightsSHA256, err = c.WeightsSHA256(ctx, a.Progress("hashing the weights"))
	var differs *inputerr.Error
	switch {
	case r.Quantization == nil:
		return err
	case errors.As(err, &differs):
		r.Quantization.Record = recordDiffers
		r.Findings = append(r.Findings, differs.Error())
		return nil
	case err == nil:
		r.Quantization.Record = recordHolds
	}
	return err
}

// stackedExperts gives a layer's gate, up and down as a quantized checkpoint stores them: [E, out, in] each. It is nil
// where experts are stored otherwise.
func stackedExperts(c *bundle.Checkpoint, layer int) []bundle.Tensor {
	gate, up, down, err := c.Expert(layer, 0)
	if err != nil || c.Quantization() == nil || strings.Contains(gate.Name, ".experts.0.") {
		return nil
	}
	var out []bundle.Tensor
	for _, t := range []bundle.Tensor{gate, up, down} {
		out = append(out, wholeTensor(c, t))
	}
	return out
}

// wholeTensor is the stored tensor that t is a view of.
func wholeTensor(c *bundle.Checkpoint, t bundle.Tensor) bundle.Tensor {
	for _, q := range c.Quantization().Tensors {
		if q.Name == t.Name {
			return q
		}
	}
	for _, f := range c.Shards() {
		for _, s := range f.Tensors() {
			if s.Name == t.Name {
				return bundle.Tensor{Name: s.Name, DType: s.DType, Shape: s.Shape, Data: s.Data, File: t.File}
			}
		}
	}
	return t // every view is of one of these
}

// renderGroups prints the sizes of the parts of the model; of a quantized checkpoint also those of q and scales.
func (r *inspection) renderGroups(w io.Writer) error {
	rows, right := [][]string{{"group", "stored", "share", "per token"}}, "lrrrrr"
	if r.Quantization != nil {
		rows[0] = append(rows[0], "q", "scales")
	}
	for _, g := range r.Groups {
		row := []string{g.Name, bytesText(g.Bytes), fmt.Sprintf("%.1f %%", 100*float64(g.Bytes)/float64(max(1, r.Bytes))), bytesText(g.PerToken)}
		if r.Quantization != nil {
			row = append(row, bytesText(g.Q), bytesText(g.Scales))
		}
		rows = append(rows, row)
	}
	return table(w, right, rows)
}

// quantRows are the lines of the head that only a quantized checkpoint has.
func (r *inspection) quantRows() [][]string {
	q := r.Quantization
	if q == nil {
		return nil
	}
	record := map[string]string{
		recordUnread:  "not compared with the weights (--hash does)",
		recordHolds:   "q and scales of every weight have the sha256 that config.json records",
		recordDiffers: "DIFFERS from the weights: see below",
	}[q.Record]
	return [][]string{
		{"scheme", fmt.Sprintf("%s, made of %s; %d weights quantized", printable(q.Scheme), printable(q.Source), q.Tensors)},
		{"record", record},
	}
}
