package bundle

import (
	"fmt"
	"slices"

	"sibyl/internal/inputerr"
	"sibyl/internal/safetensors"
)

// A checkpoint that sibyl quantized is a checkpoint like any other, but for two things. config.json has a section
// quantization_config with quant_method "sibyl", which lists the quantized weights by their names in the file. And
// such a weight NAME [.., out, in] is stored as two or three tensors:
//
//	NAME.q       I8 [.., out, in] (int8) or U8 [.., out, in/2] (int4, u4-minval: the even column in the low nibble)
//	NAME.scale   F16, BF16 for u4-minval, [.., out, in/block] (axis 1) or [.., out/block, in] (axis 0)
//	NAME.minval  BF16, of the same shape; u4-minval only
//
// Routed experts are stored as experts.gate_proj, .up_proj [E, I, H] and .down_proj [E, H, I], which is how the
// field's tools quantize and hash them. Other weights are stored as everywhere.

// Quantized says how the Data of a quantized Tensor are to be read. Its DType is then I8, I4 or U4 and its Shape
// that of the weight.
type Quantized struct {
	Format string // "int8", "int4" or "u4-minval"
	Mode   string // "clipping" or "symmetric"; "" for u4-minval
	Block  int    // elements that share a scale
	Axis   int    // of the matrix [out, in] that blocks run along: 1 is the input
	Scale  []byte // F16 or BF16
	Min    []byte // BF16; u4-minval only

	// SHA256 is what config.json records, in lower-case hex, of q (one byte a value, row-major) followed by the
	// scales. MinSHA256 is that of the minvals. WeightsSHA256 and VerifyQuantized compare them with the bytes.
	// Both are empty in a view of a single expert.
	SHA256, MinSHA256 string
}

// Quantization is the section of config.json.
type Quantization struct {
	Scheme     string   // the scheme's name
	Source     string   // name of the checkpoint it was made from
	UntiedHead bool     // the head is a table of its own although the config ties it to the embedding
	Tensors    []Tensor // the quantized weights as stored, in the order of their names
}

// QuantMethod is the value of quantization_config.quant_method.
const QuantMethod = "sibyl"

// quantVersion is the one version of the section.
const quantVersion = 1

// Quantization gives the section, nil for a checkpoint that is not quantized.
func (c *Checkpoint) Quantization() *Quantization { return c.quant }

// Bytes is what a weight takes in the file, with scales and minvals.
func (t Tensor) Bytes() int64 {
	n := int64(len(t.Data))
	if t.Quant != nil {
		n += int64(len(t.Quant.Scale) + len(t.Quant.Min))
	}
	for _, p := range t.Parts {
		n += p.Bytes()
	}
	return n
}

// quantFormat is what a format's tensors look like.
type quantFormat struct {
	shown, q, scale DType // the weight's dtype, and those of NAME.q and NAME.scale
	perByte         int
	modes           []string
}

var quantFormats = map[string]quantFormat{
	"int8":      {"I8", "I8", F16, 1, []string{"clipping", "symmetric"}},
	"int4":      {"I4", "U8", F16, 2, []string{"clipping", "symmetric"}},
	"u4-minval": {"U4", "U8", BF16, 2, []string{""}},
}

// enter replaces the stored parts of every listed weight by the weight, so that binding to roles goes on as with any
// other checkpoint.
func (q *Quantization) enter(dir *folder, inv *inventory) error {
	for i := range q.Tensors {
		t := &q.Tensors[i]
		if other, ok := inv.at[t.Name]; ok {
			return &inputerr.Error{File: other.file, Field: "tensor " + inputerr.Clip(t.Name, 120), Found: "the weight itself beside quantization_config", Want: "its .q and .scale only",
				Do: "quantize the original checkpoint again; sibyl does not guess which of them counts"}
		}
		if err := t.assemble(dir, inv); err != nil {
			return err
		}
	}
	for i := range q.Tensors { // only now: a name must not serve as another's part
		t := &q.Tensors[i]
		inv.at[t.Name] = place{t: &safetensors.Tensor{Name: t.Name, DType: t.DType, Shape: t.Shape, Data: t.Data}, file: t.File, quant: t.Quant}
	}
	return nil
}

// assemble finds a weight's parts and judges their dtypes and shapes.
func (t *Tensor) assemble(dir *folder, inv *inventory) error {
	f, quant := quantFormats[t.Quant.Format], t.Quant
	part := func(suffix string, dtype DType, want func(shape []int) []int) (*safetensors.Tensor, error) {
		name := t.Name + suffix
		p, ok := inv.at[name]
		if !ok {
			return nil, &inputerr.Error{File: dir.label, Field: "tensors", Found: "no " + inputerr.Clip(name, 120), Want: "every part of the weights that quantization_config lists",
				Do: "the checkpoint is not complete: quantize the original again"}
		}
		e := &inputerr.Error{File: p.file, Field: "tensor " + inputerr.Clip(name, 120), Found: fmt.Sprintf("%s %v", p.t.DType, p.t.Shape), Do: "quantize the original checkpoint again"}
		if p.t.DType != dtype || len(p.t.Shape) < 2 || len(p.t.Shape) > 3 {
			e.Want = string(dtype) + " of two or three dimensions"
			return nil, e
		}
		if shape := want(p.t.Shape); !slices.Equal(shape, p.t.Shape) {
			e.Want = fmt.Sprintf("%s %v", dtype, shape)
			return nil, e
		}
		inv.taken[name] = true
		t.File = p.file
		return p.t, nil
	}
	q, err := part(".q", f.q, func(shape []int) []int { return shape })
	if err != nil {
		return err
	}
	t.Shape = slices.Clone(q.Shape)
	t.Shape[len(t.Shape)-1] *= f.perByte
	blocks := slices.Clone(t.Shape)
	n := &blocks[len(blocks)-2+quant.Axis]
	if *n%quant.Block != 0 {
		return &inputerr.Error{File: t.File, Field: "tensor " + inputerr.Clip(q.Name, 120), Found: fmt.Sprintf("%v in blocks of %d along axis %d", t.Shape, quant.Block, quant.Axis),
			Want: "whole blocks", Do: "quantize the original checkpoint again"}
	}
	*n /= quant.Block
	same := func([]int) []int { return blocks }
	scale, err := part(".scale", f.scale, same)
	if err != nil {
		return err
	}
	t.Data, quant.Scale = q.Data, scale.Data
	if quant.Format == "u4-minval" {
		low, err := part(".minval", BF16, same)
		if err != nil {
			return err
		}
		quant.Min = low.Data
	}
	return nil
}

// part is elements [from, from+n) of a quantized weight, whole matrices of it.
func (q *Quantized) part(t Tensor, from, n int) ([]byte, *Quantized) {
	per := quantFormats[q.Format].perByte
	s := *q
	s.SHA256, s.MinSHA256 = "", ""
	lo, hi := 2*(from/q.Block), 2*((from+n)/q.Block)
	s.Scale = q.Scale[lo:hi:hi]
	if len(q.Min) > 0 {
		s.Min = q.Min[lo:hi:hi]
	}
	return t.Data[from/per : (from+n)/per : (from+n)/per], &s
}
