// Package quant holds the weight formats and the schemes that place them: what the field's tools do to a checkpoint
// when they quantize it, bit for bit, on the fly while a model reads its mapped weights (View) or to disk (Write).
//
// A format is one file (int8.go, int4.go, u4.go), a scheme is data (the table below), a recipe is a scheme that a
// user writes (recipe.go). Sources: DESIGN.md section 5; the quantizers of coreai-opt 0.3.0, whose outputs are the
// goldens in testdata/quant.
package quant

import (
	"fmt"

	"sibyl/config"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// Format is how a weight's elements are kept.
type Format uint8

// The formats. Stored leaves a weight as the checkpoint has it; FP16 and BF16 round it.
const (
	Stored Format = iota
	FP16
	BF16
	Int8
	Int4
	U4
	numFormats
)

// formatTable: the name, bits of an element, bytes of parameters a block, the grid of unquantized formats.
var formatTable = [numFormats]struct {
	name  string
	bits  float64
	block float64
	round precision.Round
	kern  kernels.Format
}{
	Stored: {"stored", 0, 0, precision.F32, 0},
	FP16:   {"fp16", 16, 0, precision.F16, 0},
	BF16:   {"bf16", 16, 0, precision.BF16, 0},
	Int8:   {"int8", 8, 2, 0, kernels.I8Block},
	Int4:   {"int4", 4, 2, 0, kernels.I4Block},
	U4:     {"u4-minval", 4, 4, 0, kernels.U4Minval},
}

// String is the name in recipes and in files.
func (f Format) String() string { return formatTable[f].name }

// Quantized says whether the format keeps integers in blocks.
func (f Format) Quantized() bool { return f >= Int8 }

// parseFormat finds a format by its name.
func parseFormat(name string) (Format, bool) {
	for f := range numFormats {
		if f.String() == name {
			return f, true
		}
	}
	return 0, false
}

// formatNames lists their names.
func formatNames() []string {
	var out []string
	for f := range numFormats {
		out = append(out, f.String())
	}
	return out
}

// Spec is what happens to one tensor.
type Spec struct {
	Format Format
	Block  int // elements that share a scale; 0 where the format is not quantized
	Axis   int // the axis of [out, in] that blocks run along: 1 is the input
	// Symmetric, of Int8 and Int4, maps the largest magnitude to half a step beyond the positive end (127.5, 7.5)
	// and uses the negative end (-128, -8). Otherwise ("with clipping") it maps to 127 or 7 and that end is unused.
	Symmetric bool
}

// String is the spec in a few words: "int8 clipping, blocks of 32", "fp16".
func (s Spec) String() string {
	if !s.Format.Quantized() {
		return s.Format.String()
	}
	text := s.Format.String()
	if s.Format != U4 {
		text += " " + s.Mode()
	}
	text += fmt.Sprintf(", blocks of %d", s.Block)
	if s.Axis == 0 {
		text += " along the output"
	}
	return text
}

// Mode is "symmetric" or "clipping", and nothing for formats that have no choice.
func (s Spec) Mode() string {
	switch {
	case s.Format != Int8 && s.Format != Int4:
		return ""
	case s.Symmetric:
		return "symmetric"
	}
	return "clipping"
}

// Formula is the arithmetic of a block of weights w, of which absmax, min and max are taken. R16 and B round to fp16 and
// bf16, round is to the nearest integer with ties to even. w itself is rounded first: to fp16, of u4-minval to bf16.
type Formula struct {
	Scale string `json:"scale"` // never below 2^-23
	Q     string `json:"q"`
	Reads string `json:"reads_as"`
}

// Formula is the spec's; the zero value if it is not quantized.
func (s Spec) Formula() Formula {
	if s.Format == U4 {
		return Formula{"B(B(max(w,0) - m)/15), m = min(w,0)", "round((w - m)/scale), 0..15", "B(B(q*scale) + m)"}
	}
	c, ok := s.codec().(signed)
	if !ok {
		return Formula{}
	}
	return Formula{fmt.Sprintf("R16(absmax/%g)", c.den), fmt.Sprintf("round(w/scale), %g..%g", c.lo, c.hi), "R16(q*scale)"}
}

// BytesPerWeight is what an element takes with its share of scale and minval; 0 for Stored, which depends on the
// file.
func (s Spec) BytesPerWeight() float64 {
	f := formatTable[s.Format]
	b := f.bits / 8
	if s.Block > 0 {
		b += f.block / float64(s.Block)
	}
	return b
}

// Scheme says what happens to every tensor of a model. It knows no model: Assign meets one.
type Scheme struct {
	Name    string
	Meaning string
	Body    Spec // projections of mixers, MLPs, routed and shared experts
	Head    Spec // a tied head whose spec differs from the embedding's becomes a copy of its own
	Embed   Spec
	Rest    Spec // norms, conv, A_log, dt_bias, router, shared_expert_gate; never quantized

	File   string // the recipe's, "" for a named scheme
	SHA256 string // of the recipe's text, in lower-case hex; "" for a named scheme
	rules  []rule // of a recipe; then Body, Head and Embed are unused
}

var (
	fp16     = Spec{Format: FP16}
	bf16     = Spec{Format: BF16}
	int8Clip = Spec{Format: Int8, Block: 32, Axis: 1}
	int8Sym  = Spec{Format: Int8, Block: 32, Axis: 1, Symmetric: true}
	int4Clip = Spec{Format: Int4, Block: 32, Axis: 1}
	u4Min    = Spec{Format: U4, Block: 32, Axis: 1}
)

// schemes are the named ones, in the order they are explained.
var schemes = []*Scheme{
	{Name: "fp16", Meaning: "no quantization: every weight rounded to fp16", Body: fp16, Head: fp16, Embed: fp16, Rest: fp16},
	{Name: "int8lin", Meaning: "int8 body, fp16 head", Body: int8Clip, Head: fp16, Embed: fp16, Rest: fp16},
	{Name: "int8hu", Meaning: "int8 body; the head an int8 copy, untied from the embedding", Body: int8Clip, Head: int8Clip, Embed: fp16, Rest: fp16},
	{Name: "int8hu-sym", Meaning: "the ship config: int8 body; the head a symmetric int8 copy, untied from the embedding", Body: int8Clip, Head: int8Sym, Embed: fp16, Rest: fp16},
	{Name: "int4lin", Meaning: "int4 body, fp16 head", Body: int4Clip, Head: fp16, Embed: fp16, Rest: fp16},
	{Name: "u4-minval", Meaning: "Apple's own port: uint4 with minval everywhere, embedding and head too (tied: one table)", Body: u4Min, Head: u4Min, Embed: u4Min, Rest: bf16},
}

// Schemes lists the named schemes in the order they are explained.
func Schemes() []*Scheme { return append([]*Scheme(nil), schemes...) }

// Names lists their names.
func Names() []string {
	var out []string
	for _, s := range schemes {
		out = append(out, s.Name)
	}
	return out
}

// Lookup gives a named scheme.
func Lookup(name string) (*Scheme, bool) {
	for _, s := range schemes {
		if s.Name == name {
			return s, true
		}
	}
	return nil, false
}

// part is where a role stands in a scheme.
type part uint8

const (
	rest part = iota
	body
	head
	embedding
)

// partOf is the one list of what may be quantized.
func partOf(r config.Role) part {
	switch r {
	case config.Embed:
		return embedding
	case config.Head:
		return head
	case config.InProjQKV, config.InProjZ, config.InProjB, config.InProjA, config.OutProj,
		config.QProj, config.KProj, config.VProj, config.OProj,
		config.GateProj, config.UpProj, config.DownProj,
		config.ExpertsGateUp, config.ExpertsDown, config.SharedGateProj, config.SharedUpProj, config.SharedDownProj:
		return body
	}
	return rest
}

// spec is what a named scheme does to a role.
func (s *Scheme) spec(r config.Role) Spec {
	return [...]Spec{rest: s.Rest, body: s.Body, head: s.Head, embedding: s.Embed}[partOf(r)]
}
