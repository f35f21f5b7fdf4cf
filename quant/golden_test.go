package quant

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sibyl/internal/safetensors"
	"sibyl/precision"
)

// zooSet is the part of zoo.json that testdata/quant keeps.
type zooSet struct {
	Quantized map[string]struct {
		Tensors map[string]struct {
			QShape     []int  `json:"q_shape"`
			ScaleShape []int  `json:"scale_shape"`
			QMin       int    `json:"q_min"`
			QMax       int    `json:"q_max"`
			QScale     string `json:"sha256_q_then_scale"`
			Dequant    string `json:"sha256_dequant_fp16"`
		} `json:"tensors"`
		FP16 []string `json:"fp16"`
	} `json:"quantized"`
	FP16Weights map[string]struct {
		Shape  []int  `json:"shape"`
		SHA256 string `json:"sha256"`
	} `json:"fp16_weights_sha256"`
}

// TestZoo compares every tensor of the published conversion code's variants: q followed by scales, the dequantized
// values as a lazy view reads them, and which tensors stay fp16, with their bytes.
func TestZoo(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"tiny-dense-tied", "tiny-dense-gva", "tiny-moe", "tiny-realdims"} {
		var z zooSet
		readJSON(t, &z, "quant", set+".zoo.json")
		for _, variant := range []string{"fp16", "int8lin", "int8hu", "int8hu_sym", "int4lin"} {
			want, ok := z.Quantized[variant]
			if !ok && variant != "fp16" {
				continue // realdims and moe were not recorded in every variant
			}
			t.Run(set+"/"+variant, func(t *testing.T) {
				t.Parallel()
				_, units := assigned(t, open(t, set), scheme(t, strings.ReplaceAll(variant, "_", "-")))
				quantized := 0
				for name, u := range units {
					if !u.spec.Format.Quantized() {
						if want.Tensors[name].QScale != "" {
							t.Errorf("%s stays %v, the original quantizes it", name, u.spec)
						}
						checkPlain(t, z, name, u)
						continue
					}
					quantized++
					w, ok := want.Tensors[name]
					if !ok {
						t.Errorf("%s becomes %v, the original leaves it alone", name, u.spec)
						continue
					}
					checkQuantized(t, u, w.QScale, w.Dequant)
					if flat(w.QShape) != fmt.Sprint(u.shape) || flat(w.ScaleShape) != fmt.Sprint(u.blocks()) {
						t.Errorf("%s: shapes %v %v, want %v %v", name, u.shape, u.blocks(), w.QShape, w.ScaleShape)
					}
				}
				if quantized != len(want.Tensors) {
					t.Errorf("%d tensors quantized, want %d", quantized, len(want.Tensors))
				}
			})
		}
	}
}

// flat drops the leading 1 of the field's [1, E, out, in].
func flat(shape []int) string {
	if len(shape) == 4 {
		shape = shape[1:]
	}
	return fmt.Sprint(shape)
}

func checkQuantized(t *testing.T, u *unit, qScale, dequant string) {
	t.Helper()
	_, h, _ := u.collect(t, 2)
	if h.q != qScale {
		t.Errorf("%s (%v): q and scales %s, want %s", u.name, u.spec, h.q, qScale)
	}
	if got := sum(halves(u.lazily(t, precision.F32))); got != dequant {
		t.Errorf("%s (%v): read lazily %s, want %s", u.name, u.spec, got, dequant)
	}
}

// checkPlain compares a tensor that stays fp16 with the original's bytes. Packed experts of the fp16 scheme are two
// tensors there: TestWrite sees to them.
func checkPlain(t *testing.T, z zooSet, name string, u *unit) {
	t.Helper()
	w, ok := z.FP16Weights[name]
	if !ok || strings.Contains(name, "experts") {
		return
	}
	got, _, _ := u.collect(t, 2)
	if h := sum(got[""]); h != w.SHA256 {
		t.Errorf("%s as fp16: %s, want %s", name, h, w.SHA256)
	}
	if h := sum(halves(u.lazily(t, precision.F32))); h != w.SHA256 {
		t.Errorf("%s as fp16, read lazily: %s, want %s", name, h, w.SHA256)
	}
}

// TestSamples compares with what coreai-opt returned for the sample bundles, before they were exported. The port of
// Apple's own fuses weights: a fused weight's q are those of its parts, row by row, so the parts are encoded and laid
// in the fused order.
func TestSamples(t *testing.T) {
	t.Parallel()
	type array struct {
		Shape  []int  `json:"shape"`
		SHA256 string `json:"sha256"`
	}
	type sample struct {
		Data   array  `json:"quantized_data"`
		Scale  array  `json:"scale"`
		Min    *array `json:"minval"`
		QScale string `json:"sha256_q_then_scale"`
	}
	for _, tt := range []struct {
		sample, set, scheme string
		others              bool // our scheme quantizes more than this sample does
	}{
		{"opticks-2m-int8hu-sym", "opticks-2m", "int8hu-sym", false},
		{"tiny-dense-tied-int8lin-debuginfo", "tiny-dense-tied", "int8lin", false},
		{"tiny-dense-tied-int4lin", "tiny-dense-tied", "int4lin", false},
		{"tiny-moe-int8hu-sym", "tiny-moe", "int8hu-sym", false},
		{"tiny-dense-tied-u4-minval", "tiny-dense-tied", "u4-minval", true}, // a bf16 table for embedding and head
		{"tiny-dense-gva-apple-q35", "tiny-dense-gva", "u4-minval", false},
		{"opticks-2m-apple-q35", "opticks-2m", "u4-minval", false},
		{"tiny-moe-apple-q35", "tiny-moe", "u4-minval", false},
	} {
		t.Run(tt.sample, func(t *testing.T) {
			t.Parallel()
			var want map[string]sample
			readJSON(t, &want, "quant", tt.sample+".quantizer.json")
			ck := open(t, tt.set)
			_, units := assigned(t, ck, scheme(t, tt.scheme))
			seen := map[string]bool{}
			for name, w := range want {
				q, scale, low := fused(t, units, name, ck.Config().NumHeads, ck.Config().HeadDim, seen)
				if h := sum(q); h != w.Data.SHA256 {
					t.Errorf("%s: q %s, want %s", name, h, w.Data.SHA256)
				}
				if h := sum(scale); h != w.Scale.SHA256 {
					t.Errorf("%s: scale %s, want %s", name, h, w.Scale.SHA256)
				}
				if h := sum(append(slices.Clone(q), scale...)); h != w.QScale {
					t.Errorf("%s: q and scale %s, want %s", name, h, w.QScale)
				}
				if w.Min != nil {
					if h := sum(low); h != w.Min.SHA256 {
						t.Errorf("%s: minval %s, want %s", name, h, w.Min.SHA256)
					}
				} else if len(low) > 0 {
					t.Errorf("%s: minvals that the original does not have", name)
				}
			}
			for name, u := range units {
				if u.spec.Format.Quantized() && !seen[name] && !tt.others {
					t.Errorf("%s becomes %v, the original leaves it alone", name, u.spec)
				}
			}
		})
	}
}

// fused gives a weight of the port: q one a byte, scales, minvals.
func fused(t *testing.T, units map[string]*unit, name string, heads, dim int, seen map[string]bool) (q, scale, low []byte) {
	t.Helper()
	rows := func(part string, lo, hi int) { // hi < 0: all
		u, ok := units[part]
		if !ok || !u.spec.Format.Quantized() {
			t.Fatalf("%s: no quantized weight %s", name, part)
		}
		seen[part] = true
		got, _, _ := u.collect(t, 2)
		if hi < 0 {
			lo, hi = 0, len(u.parts)*u.rows
		}
		wide := got[".q"]
		if u.spec.Format != Int8 {
			wide = nil
			for _, b := range got[".q"] { // by hand, not by the code under test
				for _, v := range []byte{b % 16, b / 16} {
					if u.spec.Format == Int4 && v >= 8 {
						v += 240
					}
					wide = append(wide, v)
				}
			}
		}
		per := 2 * (u.cols / u.spec.Block)
		q, scale = append(q, wide[lo*u.cols:hi*u.cols]...), append(scale, got[".scale"][lo*per:hi*per]...)
		if m := got[".minval"]; m != nil {
			low = append(low, m[lo*per:hi*per]...)
		}
	}
	switch base, ok := strings.CutSuffix(name, "in_proj_all.weight"); {
	case ok:
		for _, p := range []string{"qkv", "z", "b", "a"} {
			rows(base+"in_proj_"+p+".weight", 0, -1)
		}
	case strings.HasSuffix(name, "qkv_gate_proj.weight"):
		base = strings.TrimSuffix(name, "qkv_gate_proj.weight")
		for h := range heads {
			rows(base+"q_proj.weight", 2*h*dim, (2*h+1)*dim)
		}
		rows(base+"k_proj.weight", 0, -1)
		rows(base+"v_proj.weight", 0, -1)
		for h := range heads {
			rows(base+"q_proj.weight", (2*h+1)*dim, (2*h+2)*dim)
		}
	case name == "lm_head.weight" && units[name] == nil: // tied
		rows("model.embed_tokens.weight", 0, -1)
	default:
		rows(name, 0, -1)
	}
	return q, scale, low
}

// TestQuantEdge holds all four signed formats to the recorded edge blocks: zeros, exact ties, subnormal scales,
// outliers, 65504.
func TestQuantEdge(t *testing.T) {
	t.Parallel()
	f, err := safetensors.Open(testdata("quant", "quant_edge.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	get := func(name string) []byte {
		x, ok := f.Tensor(name)
		if !ok {
			t.Fatalf("no tensor %s", name)
		}
		return x.Data
	}
	for name, spec := range map[string]Spec{
		"clip8": {Int8, 32, 1, false}, "sym8": {Int8, 32, 1, true}, "clip4": {Int4, 32, 1, false}, "sym4": {Int4, 32, 1, true},
	} {
		var w []float32
		for b := get("w"); len(b) > 0; b = b[2:] {
			w = append(w, precision.F16ToF32(uint16(b[0])|uint16(b[1])<<8))
		}
		fits := spec.encode(spec.codec(), w, 64)
		q := make([]byte, len(w))
		packInt8(q, w)
		spec.decode(spec.codec(), w, 64, fits)
		var scale []byte
		for _, f := range fits {
			scale = append(scale, byte(f.scale), byte(f.scale>>8))
		}
		for _, c := range []struct {
			what      string
			got, want []byte
		}{{"q", q, get(name + ".q")}, {"scale", scale, get(name + ".scale")}, {"dequant", halves(w), get(name + ".dequant")}} {
			if !slices.Equal(c.got, c.want) {
				for i := range c.want {
					if c.got[i] != c.want[i] {
						t.Errorf("%s.%s differs from byte %d of %d on: % x, want % x", name, c.what, i, len(c.want), c.got[i:min(i+8, len(c.got))], c.want[i:min(i+8, len(c.want))])
						break
					}
				}
			}
		}
	}
}
