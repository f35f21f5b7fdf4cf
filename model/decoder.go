// Package model is the CPU engine: the Qwen3.5 decoder in the order of the math, for a ragged batch of sequences,
// under a plan that names a contract for every module. Source: transformers 5.23, models/qwen3_5 and qwen3_5_moe.
package model

import (
	"context"
	"slices"

	"sibyl/attention"
	"sibyl/config"
	"sibyl/gdn"
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
	"sibyl/trace"
)

// Decoder is a bound model: views of stored weights under a plan. It holds no state of a sequence; several sessions
// may use one decoder one after the other.
type Decoder struct {
	Config *config.Config
	Plan   *Plan

	Embed     *kernels.Matrix // [V, H]
	Layers    []Layer
	FinalNorm Norm
	Head      *kernels.Matrix // [V, H]; the embedding when tied

	rope *attention.Rope
}

// Layer is one decoder layer: h = x + mixer(norm(x)); y = h + mlp(norm(h)).
type Layer struct {
	InputNorm    Norm
	GDN          *gdn.Mixer       // one of GDN and Attention
	Attention    *attention.Mixer //
	PostAttnNorm Norm
	MLP          FeedForward
	MixerAdd     *precision.Contract // rounds x + mixer
	MLPAdd       *precision.Contract // rounds h + mlp
}

// FeedForward is an MLP or a MoE: x, out [Rows, H].
type FeedForward interface {
	Forward(out, x []float32, batch *ragged.Batch)
}

// Call is one pass of new rows through the layers: the batch, each sequence's state, and the rope tables of this
// call's rows, one pair a rounding of the table.
type Call struct {
	ragged.Batch
	States []*State // States[i] belongs to Seqs[i]
	tables map[precision.Round][2][]float32
}

// table gives cos and sin [Rows, Rot/2] under c, computed once a call.
func (d *Decoder) table(call *Call, c *precision.Contract) (cos, sin []float32) {
	key := c.At[precision.RopeTable]
	t, ok := call.tables[key]
	if !ok {
		t[0], t[1] = d.rope.Table(&call.Batch, c)
		if call.tables == nil {
			call.tables = map[precision.Round][2][]float32{}
		}
		call.tables[key] = t
	}
	return t[0], t[1]
}

// aligned says whether elementwise functions meet the elements of every row in groups of their own (kernels.Group), however many
// rows there are.
func (d *Decoder) aligned() bool {
	c := d.Config
	widths := []int{c.QKVDim(), c.QWidth(), c.IntermediateSize}
	if m := c.MoE; m != nil {
		widths = append(widths[:2], m.IntermediateSize, m.SharedIntermediateSize)
	}
	return !slices.ContainsFunc(widths, func(n int) bool { return n%kernels.Group != 0 })
}

// Embedding writes the rows of ids to x [len(ids), H].
func (d *Decoder) Embedding(x []float32, ids []int32, call *Call) {
	H := d.Config.HiddenSize
	for t, id := range ids {
		d.Embed.Row(x[t*H:][:H], int(id))
	}
	d.Plan.At(-1, ModEmbed).Round(precision.Embed, x)
	call.Put(trace.Embed, 0, x)
}

// Layer runs layer l on x [Rows, H] in place and advances the states of the call's sequences in that layer.
func (d *Decoder) Layer(l int, x []float32, call *Call) {
	layer, batch := &d.Layers[l], &call.Batch
	mark := batch.Mark()
	defer batch.Release(mark)
	n, y := batch.Room(len(x)), batch.Room(len(x))

	layer.InputNorm.Forward(n, x, batch)
	call.Put(trace.InputNorm, l, n)
	if layer.GDN != nil {
		layer.GDN.Forward(y, n, batch, gdnStates(call.States, l))
	} else {
		cos, sin := d.table(call, layer.Attention.Contract)
		layer.Attention.Forward(y, n, cos, sin, batch, caches(call.States, l))
	}
	batch.Add(layer.MixerAdd, precision.Residual, x, y)
	call.Put(trace.AfterMixer, l, x)

	layer.PostAttnNorm.Forward(n, x, batch)
	call.Put(trace.PostAttnNorm, l, n)
	layer.MLP.Forward(y, n, batch)
	call.Put(trace.MLPOut, l, y)
	batch.Add(layer.MLPAdd, precision.Residual, x, y)
	call.Put(trace.LayerOut, l, x)
}

// Forward runs ids, the rows of call.Seqs in order, through all layers and gives the residual stream after the last,
// [Rows, H]. It stops between layers when ctx is done; done, if not nil, hears of each layer.
func (d *Decoder) Forward(ctx context.Context, ids []int32, call *Call, done func(l int)) ([]float32, error) {
	x := make([]float32, call.Rows*d.Config.HiddenSize)
	d.Embedding(x, ids, call)
	for l := range d.Layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d.Layer(l, x, call)
		if call.Err != nil {
			return nil, call.Err
		}
		if done != nil {
			done(l)
		}
	}
	call.advance()
	return x, nil
}

// advance counts the call's tokens as consumed.
func (c *Call) advance() {
	for i, s := range c.States {
		s.Len += c.Seqs[i].Len
	}
}

// Normed writes the final norm of x [Rows, H] to out. It is apart from Logits because the tap holds every row while
// the head may be asked for few.
func (d *Decoder) Normed(out, x []float32, call *Call) {
	d.FinalNorm.Forward(out, x, &call.Batch)
	call.Put(trace.FinalNorm, 0, out)
}

// Logits writes the head of normed rows [rows, H] to out [rows, V].
func (d *Decoder) Logits(out, normed []float32, rows int, call *Call) {
	call.Arith.Linear(call.Pool, out, normed, rows, d.Head)
	d.roundLogits(out, call)
}

// roundLogits rounds what the head gave, as its contract says.
func (d *Decoder) roundLogits(out []float32, call *Call) {
	c := d.Plan.At(-1, ModHead)
	call.Round(c, precision.Logits, out)
	call.Round(c, precision.LogitsCast, out)
}
