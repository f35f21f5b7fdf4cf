package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/internal/safetensors"
	"sibyl/internal/strictjson"
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

// parseQuantization reads the section; nil if config.json has none, or one of another method, which config refuses.
func parseQuantization(file string, config []byte) (*Quantization, error) {
	s, err := strictjson.New(config)
	if err != nil {
		return nil, nil // config's to tell
	}
	p := &sectionParser{s: s, file: file}
	err = s.Object(func(key string) error {
		if key != "quantization_config" || s.Kind() != strictjson.Object {
			return s.Skip()
		}
		return p.section()
	})
	if !p.ours {
		return nil, nil
	}
	var at *strictjson.Error
	if errors.As(err, &at) {
		return nil, p.fault(fmt.Sprintf("byte %d", at.Offset), at.Found, at.Want)
	}
	if err != nil {
		return nil, err
	}
	if p.version != quantVersion {
		return nil, p.fault("version", fmt.Sprint(p.version), fmt.Sprint(quantVersion))
	}
	if p.q.Scheme == "" || !p.tensors {
		return nil, p.fault("scheme, tensors", "nothing", "a scheme and its quantized tensors")
	}
	slices.SortFunc(p.q.Tensors, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	return &p.q, nil
}

type sectionParser struct {
	s       *strictjson.Scanner
	file    string
	q       Quantization
	ours    bool
	tensors bool
	version uint64
}

func (p *sectionParser) fault(field, found, want string) error {
	return &inputerr.Error{File: p.file, Field: "quantization_config." + field, Found: found, Want: want,
		Do: "quantize the original checkpoint again; do not edit this section"}
}

// section reads the object. quant_method stands first: sections of other methods are passed over unread.
func (p *sectionParser) section() error {
	first := true
	return p.s.Object(func(key string) (err error) {
		if first {
			first = false
			if key == "quant_method" && p.s.Kind() == strictjson.String {
				method, err := p.s.String()
				p.ours = method == QuantMethod
				return err
			}
		}
		if !p.ours {
			return p.s.Skip()
		}
		switch key {
		case "version":
			p.version, err = p.s.Uint64()
		case "scheme":
			p.q.Scheme, err = p.s.String()
		case "source":
			p.q.Source, err = p.s.String()
		case "untied_head":
			p.q.UntiedHead, err = p.s.Bool()
		case "tensors":
			p.tensors = true
			err = p.s.Object(p.tensor)
		default:
			return p.fault(inputerr.Clip(key, 40), "a key this version does not have", "quant_method, version, scheme, source, untied_head, tensors")
		}
		return err
	})
}

// tensor reads what the section says of one weight.
func (p *sectionParser) tensor(name string) error {
	if len(p.q.Tensors) == safetensors.MaxTensors {
		return p.fault("tensors", fmt.Sprintf("more than %d", safetensors.MaxTensors), "fewer")
	}
	q := &Quantized{}
	var block, axis uint64
	err := p.s.Object(func(key string) (err error) {
		switch key {
		case "format":
			q.Format, err = p.s.String()
		case "mode":
			q.Mode, err = p.s.String()
		case "block":
			block, err = p.s.Uint64()
		case "axis":
			axis, err = p.s.Uint64()
		case "sha256":
			q.SHA256, err = p.s.String()
		case "minval_sha256":
			q.MinSHA256, err = p.s.String()
		default:
			return p.fault("tensors["+inputerr.Clip(name, 80)+"]."+inputerr.Clip(key, 40), "a key this version does not have", "format, mode, block, axis, sha256, minval_sha256")
		}
		return err
	})
	if err != nil {
		return err
	}
	field := "tensors[" + inputerr.Clip(name, 80) + "]."
	f, known := quantFormats[q.Format]
	switch {
	case !known:
		return p.fault(field+"format", inputerr.Clip(q.Format, 40), "int8, int4 or u4-minval")
	case !slices.Contains(f.modes, q.Mode):
		return p.fault(field+"mode", inputerr.Clip(q.Mode, 40), fmt.Sprintf("one of %q", f.modes))
	case block < 1 || block > 1<<30:
		return p.fault(field+"block", fmt.Sprint(block), "a block's length")
	case axis > 1:
		return p.fault(field+"axis", fmt.Sprint(axis), "0 or 1")
	case !isHash(q.SHA256) || (q.Format == "u4-minval") != isHash(q.MinSHA256):
		return p.fault(field+"sha256", inputerr.Clip(q.SHA256+" "+q.MinSHA256, 140), "64 hex digits, and a minval_sha256 for u4-minval only")
	}
	q.Block, q.Axis = int(block), int(axis)
	p.q.Tensors = append(p.q.Tensors, Tensor{Name: name, DType: f.shown, Quant: q})
	return nil
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && strings.ToLower(s) == s
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

// VerifyQuantized reads all quantized weights and compares their bytes with the hashes that config.json records; the
// first that differs is an *inputerr.Error. progress, if not nil, is told the bytes done and in all.
func (c *Checkpoint) VerifyQuantized(ctx context.Context, progress func(done, total int64)) error {
	if c.quant == nil {
		return nil
	}
	var done, total int64
	for _, t := range c.quant.Tensors {
		total += t.Bytes()
	}
	for _, t := range c.quant.Tensors {
		report := func(n int64) {
			if done += n; progress != nil {
				progress(done, total)
			}
		}
		if err := t.verify(ctx, report); err != nil {
			return err
		}
	}
	return nil
}

// verify compares one weight with its hashes.
func (t Tensor) verify(ctx context.Context, report func(int64)) error {
	q := t.Quant
	h := sha256.New()
	if err := t.hashQ(ctx, h, report); err != nil {
		return err
	}
	h.Write(q.Scale)
	report(int64(len(q.Scale)))
	check := func(what, got, want string) error {
		if got == want {
			return nil
		}
		return &inputerr.Error{File: t.File, Field: "tensor " + inputerr.Clip(t.Name, 120), Found: what + " with sha256 " + got, Want: want + ", as config.json records",
			Do: "the file was changed after it was written: quantize the original checkpoint again"}
	}
	if err := check("q and scales", hex.EncodeToString(h.Sum(nil)), q.SHA256); err != nil || len(q.Min) == 0 {
		return err
	}
	low := sha256.Sum256(q.Min)
	report(int64(len(q.Min)))
	return check("minvals", hex.EncodeToString(low[:]), q.MinSHA256)
}

// hashQ feeds q to h, one byte a value as the field's tools hash it.
func (t Tensor) hashQ(ctx context.Context, h hash.Hash, report func(int64)) error {
	f := quantFormats[t.Quant.Format]
	wide := make([]byte, 0, 2<<16)
	for b := t.Data; len(b) > 0; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("hashing %s stopped: %w", t.Name, err)
		}
		n := min(len(b), 1<<16)
		if f.perByte == 1 {
			h.Write(b[:n])
		} else {
			h.Write(Nibbles(wide[:0], b[:n], t.Quant.Format == "int4"))
		}
		b = b[n:]
		report(int64(n))
	}
	return nil
}

// Nibbles appends the four-bit values of packed to dst, one a byte, the low nibble first, signed ones in two's
// complement.
func Nibbles(dst, packed []byte, signed bool) []byte {
	for _, v := range packed {
		lo, hi := v&15, v>>4
		if signed {
			lo, hi = byte(int8(v<<4)>>4), byte(int8(v)>>4)
		}
		dst = append(dst, lo, hi)
	}
	return dst
}
