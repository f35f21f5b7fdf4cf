package quant

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"sibyl/bundle"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

var (
	nan = float32(math.NaN())
	inf = float32(math.Inf(1))
)

// TestBlocks works single blocks out by hand: q as bytes, scale and minval as bits, and the weights they give.
func TestBlocks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, why  string
		spec       Spec
		w          []float32
		q          []byte
		scale, min uint16
		want       []float32
	}{
		{"int8-clip", "absmax 127 gives scale 1; ties go to even; -127 is the end", Spec{Int8, 4, 1, false},
			[]float32{127, 0.5, 1.5, -127}, []byte{127, 0, 2, 0x81}, 0x3c00, 0, []float32{127, 0, 2, -127}},
		{"int8-sym", "absmax 127.5 gives scale 1: +absmax falls to 127, -absmax to -128; no -0 comes of an integer", Spec{Int8, 4, 1, true},
			[]float32{127.5, -127.5, 2.5, -0.5}, []byte{127, 0x80, 2, 0}, 0x3c00, 0, []float32{127, -128, 2, 0}},
		{"int8-scale-rounds", "1/127 = 0.0078740157 is 0x2008 = 0.007873535 in fp16; 1/0.007873535 = 127.0078 rounds to 127; 127 * 0.007873535 = 0.99993896 rounds up to 1", Spec{Int8, 2, 1, false},
			[]float32{1, -0.5}, []byte{127, 0xc0}, 0x2008, 0, []float32{1, -0.50390625}},
		{"int8-weights-rounded-first", "2049 is 2048 in fp16, whose scale is 16.125; that of 2049 would be 16.140625", Spec{Int8, 2, 1, false},
			[]float32{2049, 0}, []byte{127, 0}, 0x4c08, 0, []float32{2048, 0}},
		{"int8-zero", "a block of zeros has the floor 2^-23", Spec{Int8, 2, 1, false}, []float32{0, 0}, []byte{0, 0}, 0x0002, 0, []float32{0, 0}},
		{"int8-floor", "2^-17/127 is below the floor: 2^-17 = 64 * 2^-23", Spec{Int8, 2, 1, false}, []float32{0x1p-17, -0x1p-18}, []byte{64, 0xe0}, 0x0002, 0, []float32{0x1p-17, -0x1p-18}},
		{"int8-65504", "65504/127 = 515.78 rounds to 516, and 127 * 516 = 65532 is infinite in fp16", Spec{Int8, 2, 1, false}, []float32{65504, 516}, []byte{127, 1}, 0x6008, 0, []float32{inf, 516}},
		{"int4", "scale 1; the even one in the low nibble, two's complement: 7 and -7, 2 (tie) and -1", Spec{Int4, 4, 1, false},
			[]float32{7, -7, 2.5, -1}, []byte{0x97, 0xf2}, 0x3c00, 0, []float32{7, -7, 2, -1}},
		{"int4-sym", "-8 is used", Spec{Int4, 2, 1, true}, []float32{7.5, -7.5}, []byte{0x87}, 0x3c00, 0, []float32{7, -8}},
		{"u4", "m = -1, M = 14, scale 1: q counts from the minimum", Spec{U4, 4, 1, false},
			[]float32{-1, 14, 0.5, 1.5}, []byte{0xf0, 0x22}, 0x3f80, 0xbf80, []float32{-1, 14, 1, 1}},
		{"u4-positive", "all above zero: the minimum is 0, not the least weight, and not -0", Spec{U4, 2, 1, false},
			[]float32{7.5, 15}, []byte{0xf8}, 0x3f80, 0x0000, []float32{8, 15}},
		{"u4-minus-zero", "", Spec{U4, 2, 1, false}, []float32{float32(math.Copysign(0, -1)), 15}, []byte{0xf0}, 0x3f80, 0x0000, []float32{0, 15}},
		{"u4-negative", "all below zero: the maximum is 0", Spec{U4, 2, 1, false}, []float32{-15, -7}, []byte{0x80}, 0x3f80, 0xc170, []float32{-15, -7}},
		{"u4-zero", "the floor 2^-23 in bf16", Spec{U4, 2, 1, false}, []float32{0, 0}, []byte{0}, 0x3400, 0, []float32{0, 0}},
		{"u4-weights-rounded-first", "3.5 - 2^-9 is 3.5 in bf16, a tie that goes to 4", Spec{U4, 2, 1, false},
			[]float32{15, 3.498046875}, []byte{0x4f}, 0x3f80, 0, []float32{15, 4}},
		{"u4-two-roundings", "the span 257 is 256 and 256/15 is 17.125 in bf16; 15 * 17.125 = 256.875 is 256, less 1 is 255 (one rounding of 255.875 would be 256)", Spec{U4, 2, 1, false},
			[]float32{256, -1}, []byte{0x0f}, 0x4189, 0xbf80, []float32{255, -1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := tt.spec.codec()
			w := slices.Clone(tt.w)
			c.base().Slice(w)
			fits := tt.spec.encode(c, w, len(w))
			q := make([]byte, tt.spec.Format.packed(len(w)))
			tt.spec.Format.pack(q, w)
			tt.spec.decode(c, w, len(w), fits)
			if !slices.Equal(q, tt.q) || fits[0] != (fit{tt.scale, tt.min}) || !same(w, tt.want) {
				t.Errorf("%v under %v\ngot  q % x, scale %04x, min %04x, weights %v\nwant q % x, scale %04x, min %04x, weights %v\nwhy: %s",
					tt.w, tt.spec, q, fits[0].scale, fits[0].min, w, tt.q, tt.scale, tt.min, tt.want, tt.why)
			}
			m, err := tt.spec.view(f32Matrix(t, 1, len(tt.w), tt.w))
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Floats(); !same(got, tt.want) {
				t.Errorf("read lazily %v, want %v", got, tt.want)
			}
		})
	}
}

// TestLazyNotFinite: where writing would refuse, reading lazily gives no numbers, never wrong ones.
func TestLazyNotFinite(t *testing.T) {
	t.Parallel()
	for _, bad := range []float32{nan, inf, -inf, 1e30} {
		for _, s := range []Spec{{Int8, 4, 1, false}, {Int4, 4, 1, true}, {U4, 4, 1, false}, {Int8, 2, 0, false}} {
			if s.Format == U4 && bad == 1e30 {
				continue // a number in bf16
			}
			m, err := s.view(f32Matrix(t, 2, 4, []float32{1, bad, 2, 3, 1, 2, 3, 4}))
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range m.Floats() {
				sick := s.Axis == 1 && i < 4 || s.Axis == 0 && i%4 == 1
				if (v != v) != sick {
					t.Errorf("%v beside %v: element %d is %v, sick block: %v", s, bad, i, v, sick)
				}
			}
		}
	}
}

// TestViewRounding: the scheme's grid comes first, the contract's after it, also where the file is on the contract's
// grid and the contract alone would change nothing.
func TestViewRounding(t *testing.T) {
	t.Parallel()
	const w = 1 + 0x1p-20 // on neither grid
	for _, tt := range []struct {
		name     string
		spec     Spec
		stored   kernels.Format
		contract precision.Round
		in, want float32
	}{
		{"fp16 in hf-fp32", Spec{Format: FP16}, kernels.F32, precision.F32, 1 + 0x1p-11 + 0x1p-13, 1 + 0x1p-10},
		{"fp16 in hf-bf16", Spec{Format: FP16}, kernels.F32, precision.BF16, 1 + 0x1p-8 - 0x1p-12, 1},       // to 1+2^-8, then the tie to even
		{"bf16 alone", Spec{Format: Stored}, kernels.F32, precision.BF16, 1 + 0x1p-8 + 0x1p-12, 1 + 0x1p-7}, // once
		{"fp16 of bf16", Spec{Format: FP16}, kernels.BF16, precision.BF16, 0x1.02p-24, 0x1p-24},             // fp16 is coarser down there
		{"stored", Spec{Format: Stored}, kernels.F32, precision.F32, w, w},                                  // untouched
		{"bf16 in coreai-fp16", Spec{Format: BF16}, kernels.F32, precision.F16, 1 + 0x1p-10, 1},             // not on fp16 first
		// scale R16(1.5/127.5) = 1542 * 2^-17; 127 of them are 1530 * 2^-10 in fp16, between 191 and 192 * 2^-7 in bf16.
		{"int8 in hf-fp32", Spec{Int8, 1, 1, true}, kernels.BF16, precision.F32, 1.5, 1530 * 0x1p-10},
		{"int8 in hf-bf16", Spec{Int8, 1, 1, true}, kernels.BF16, precision.BF16, 1.5, 191 * 0x1p-7},
	} {
		data := []byte{byte(math.Float32bits(tt.in) >> 16), byte(math.Float32bits(tt.in) >> 24)}
		if tt.stored == kernels.F32 {
			data = []byte{byte(math.Float32bits(tt.in)), byte(math.Float32bits(tt.in) >> 8), data[0], data[1]}
		}
		m, err := kernels.NewMatrix(tt.stored, 1, 1, data, tt.contract)
		if err != nil {
			t.Fatal(err)
		}
		if m, err = tt.spec.view(m); err != nil {
			t.Fatal(err)
		}
		got := m.Floats()[0]
		if got != tt.want || tt.contract.Value(got) != got {
			t.Errorf("%s: %x = %x, want %x", tt.name, tt.in, got, tt.want)
		}
	}
}

// TestSchemes: what `sibyl schemes` prints.
func TestSchemes(t *testing.T) {
	t.Parallel()
	var got []string
	for _, s := range Schemes() {
		got = append(got, fmt.Sprintf("%s: %v %.4f, %v %.4f, %v %.4f, rest %v", s.Name, s.Body, s.Body.BytesPerWeight(), s.Head, s.Head.BytesPerWeight(), s.Embed, s.Embed.BytesPerWeight(), s.Rest))
	}
	want := []string{
		"fp16: fp16 2.0000, fp16 2.0000, fp16 2.0000, rest fp16",
		"int8lin: int8 clipping, blocks of 32 1.0625, fp16 2.0000, fp16 2.0000, rest fp16",
		"int8hu: int8 clipping, blocks of 32 1.0625, int8 clipping, blocks of 32 1.0625, fp16 2.0000, rest fp16",
		"int8hu-sym: int8 clipping, blocks of 32 1.0625, int8 symmetric, blocks of 32 1.0625, fp16 2.0000, rest fp16",
		"int4lin: int4 clipping, blocks of 32 0.5625, fp16 2.0000, fp16 2.0000, rest fp16",
		"u4-minval: u4-minval, blocks of 32 0.6250, u4-minval, blocks of 32 0.6250, u4-minval, blocks of 32 0.6250, rest bf16",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// edgeUnit is one weight [1, n] as a checkpoint would give it.
func edgeUnit(s Spec, w ...float32) *unit {
	u := &unit{name: "edge", spec: s, shape: []int{1, len(w)}, rows: 1, cols: len(w)}
	b := (&unit{spec: Spec{Format: Stored}, parts: []bundle.Tensor{{DType: bundle.F32}}}).store(w)
	u.parts = []bundle.Tensor{{Name: "edge", File: "f", DType: bundle.F32, Shape: u.shape, Data: b}}
	return u
}

// TestEncodeEdges: overflow warns by name and goes on, zeros are counted, what is no number is refused.
func TestEncodeEdges(t *testing.T) {
	t.Parallel()
	s := Spec{Int8, 2, 1, false}
	u := edgeUnit(s, 65504, 1, 0, 0, 3, -1)
	_, h, sums := u.collect(t, 1)
	r := &Report{}
	r.record(u, h, sums)
	r.sumUp()
	e := r.Tensors[0]
	if e.Overflow != 1 || e.ZeroBlocks != 1 || e.Worst == nil || e.Worst.Column != 0 || !math.IsInf(float64(e.SNR), -1) {
		t.Errorf("overflow %d, zero blocks %d, worst %+v, SNR %v; want 1, 1, column 0, -Inf", e.Overflow, e.ZeroBlocks, e.Worst, e.SNR)
	}
	want := "edge: 1 weights read as infinite: their block's largest magnitude, 65504, rounds up beyond 65504 once q * scale is fp16"
	if len(r.Warnings) != 1 || r.Warnings[0].String() != want {
		t.Errorf("warnings %v, want %q", r.Warnings, want)
	}
	if !strings.Contains(text(t, r), `"snr_db":"-Inf"`) {
		t.Errorf("JSON lacks the infinite SNR: %s", text(t, r))
	}
	for _, tt := range []struct {
		u    *unit
		want string
	}{
		{edgeUnit(s, 1, nan, 2, inf), `f: tensor "edge": found 2 NaN or Inf from row 0, column 1 on, want numbers; such a model computes nothing: use a sound checkpoint (inspect lists all of its NaN and Inf)`},
		{edgeUnit(Spec{Format: FP16}, -inf, 0), `f: tensor "edge": found 1 NaN or Inf from row 0, column 0 on, want numbers; such a model computes nothing: use a sound checkpoint (inspect lists all of its NaN and Inf)`},
		{edgeUnit(s, 0, 0, 0, 65520), `f: tensor "edge": found 1 weights from row 0, column 3 on (65520) beyond the largest number of the format, want magnitudes below 65520 in fp16; keep this tensor in bf16 by a recipe`},
	} {
		_, _, err := tt.u.encode(t.Context(), 1, nil, func(int64) {})
		refused(t, err, tt.want)
	}
}

// TestFigures compares SNR, cosine and the worst block with sums taken by hand.
func TestFigures(t *testing.T) {
	t.Parallel()
	// Scale 1 and 2: 127, 0.25 -> 127, 0; 254, 3 -> 254, 4 (3/2 = 1.5 to even).
	u := edgeUnit(Spec{Int8, 2, 1, false}, 127, 0.25, 254, 3)
	_, _, got := u.collect(t, 1)
	signal, noise := 127*127+0.0625+254*254+9, 0.0625+1
	if want := 10 * math.Log10(signal/noise); math.Abs(float64(got.snr())-want) > 1e-9 {
		t.Errorf("SNR %v dB, want %v", got.snr(), want)
	}
	dot, after := 127.0*127+254*254+12, 127.0*127+254*254+16
	if want := dot / math.Sqrt(signal*after); math.Abs(float64(got.cosine())-want) > 1e-12 {
		t.Errorf("cosine %v, want %v", got.cosine(), want)
	}
	worst := 10 * math.Log10((254*254+9)/1.0)
	if got.worst.Column != 2 || math.Abs(float64(got.worst.SNR)-worst) > 1e-9 || got.worst.AbsMax != 254 {
		t.Errorf("worst block %+v, want column 2, %v dB, absmax 254", got.worst, worst)
	}
}
