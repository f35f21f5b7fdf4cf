package bundle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"sibyl/internal/inputerr"
	"sibyl/internal/safetensors"
)

const (
	hash64  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	section = `{"quantization_config": {"quant_method": "sibyl", "version": 1, "scheme": "u4-minval", "source": "m", "untied_head": true, "tensors": {
		"a": {"format": "u4-minval", "mode": "", "block": 2, "axis": 1, "sha256": "` + hash64 + `", "minval_sha256": "` + hash64 + `"},
		"b": {"format": "int8", "mode": "symmetric", "block": 3, "axis": 0, "sha256": "` + hash64 + `"}}}}`
)

// parts is a file with the tensors of a and b, each byte its own place.
func parts(t testing.TB, drop string) []byte {
	t.Helper()
	var header, sep string
	header, sep = "{", ""
	at := 0
	for _, x := range []struct {
		name, dtype, shape string
		n                  int
	}{
		{"a.q", "U8", "[2,2,2]", 8}, {"a.scale", "BF16", "[2,2,2]", 16}, {"a.minval", "BF16", "[2,2,2]", 16},
		{"b.q", "I8", "[6,5]", 30}, {"b.scale", "F16", "[2,5]", 20},
	} {
		if x.name == drop {
			continue
		}
		header += fmt.Sprintf(`%s%q:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, sep, x.name, x.dtype, x.shape, at, at+x.n)
		at, sep = at+x.n, ","
	}
	header += "}"
	b := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	for i := range at {
		b = append(b, byte(i))
	}
	return b
}

// assemble reads section and file as opening a checkpoint does.
func assemble(config, file []byte) (*Quantization, *inventory, error) {
	q, err := parseQuantization("config.json", config)
	if err != nil || q == nil {
		return nil, nil, err
	}
	f, err := safetensors.Parse("model.safetensors", file)
	if err != nil {
		return nil, nil, err
	}
	inv := &inventory{at: map[string]place{}, taken: map[string]bool{}}
	ts := f.Tensors()
	for i := range ts {
		inv.at[ts[i].Name] = place{t: &ts[i], file: f.Path()}
	}
	return q, inv, q.enter(&folder{fsys: fstest.MapFS{}, label: "m"}, inv)
}

// TestQuantizedParts: shapes, and views of single experts along both axes.
func TestQuantizedParts(t *testing.T) {
	t.Parallel()
	q, inv, err := assemble([]byte(section), parts(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	if q.Scheme != "u4-minval" || q.Source != "m" || !q.UntiedHead || len(q.Tensors) != 2 {
		t.Errorf("section %+v", q)
	}
	a, b := q.Tensors[0], q.Tensors[1]
	if a.DType != "U4" || !slices.Equal(a.Shape, []int{2, 2, 4}) || a.Bytes() != 40 || b.DType != "I8" || !slices.Equal(b.Shape, []int{6, 5}) || b.Bytes() != 50 {
		t.Errorf("a is %s %v of %d bytes, b %s %v of %d", a.DType, a.Shape, a.Bytes(), b.DType, b.Shape, b.Bytes())
	}
	second := a.view(8, 2, 4) // the second expert's matrix
	if !slices.Equal(second.Data, []byte{4, 5, 6, 7}) || !slices.Equal(second.Quant.Scale, []byte{16, 17, 18, 19, 20, 21, 22, 23}) || second.Quant.Min[0] != 32 || len(second.Quant.Min) != 8 {
		t.Errorf("second expert: q %v, scale %v, min %v", second.Data, second.Quant.Scale, second.Quant.Min)
	}
	if lower := b.view(15, 3, 5); !slices.Equal(lower.Data, b.Data[15:]) || !slices.Equal(lower.Quant.Scale, b.Quant.Scale[10:]) {
		t.Errorf("lower half: q %v, scale %v", lower.Data, lower.Quant.Scale)
	}
	if p := inv.at["a"]; p.quant == nil || !inv.taken["a.minval"] || inv.taken["a"] {
		t.Error("a does not stand for its parts")
	}
	if n := len(a.floats()); n != 2 || a.floats()[1].DType != BF16 {
		t.Errorf("%d tensors of a may hold NaN", n)
	}
	for _, gone := range []string{"a.q", "a.scale", "a.minval", "b.scale"} {
		_, _, err := assemble([]byte(section), parts(t, gone))
		want := `m: tensors: found no "` + gone + `", want every part of the weights that quantization_config lists; the checkpoint is not complete: quantize the original again`
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// TestDrop: a dropped weight reads as before, whichever tensor of the file it is.
func TestDrop(t *testing.T) {
	t.Parallel()
	c, err := Open("../testdata/goldens/tiny-dense-gva")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.each(func(_ string, _ DType, _ []int, parts []Tensor) error {
		for _, x := range parts {
			before := slices.Clone(x.Data)
			c.Drop(x, 0, -1)
			c.Drop(x, len(x.Data)/3, len(x.Data)/2)
			c.Drop(x, len(x.Data), 1<<40)
			if !slices.Equal(before, x.Data) {
				t.Errorf("%s is not what it was", x.Name)
			}
		}
		return nil
	})
}

// TestNibbles: low nibble first, sign extended or not.
func TestNibbles(t *testing.T) {
	t.Parallel()
	if got, want := Nibbles(nil, []byte{0x8f, 0x71}, true), []byte{0xff, 0xf8, 1, 7}; !slices.Equal(got, want) {
		t.Errorf("signed % x, want % x", got, want)
	}
	if got, want := Nibbles(nil, []byte{0x8f, 0x71}, false), []byte{15, 8, 1, 7}; !slices.Equal(got, want) {
		t.Errorf("unsigned % x, want % x", got, want)
	}
}

// FuzzQuantizedHeader: a section and a file of anybody's making give an *inputerr.Error, or weights whose parts agree.
func FuzzQuantizedHeader(f *testing.F) {
	whole := parts(f, "")
	f.Add([]byte(section), whole)
	f.Add([]byte(strings.Replace(section, `"block": 2`, `"block": 3`, 1)), whole)
	f.Add([]byte(strings.Replace(section, `"block": 3`, `"block": 9223372036854775807`, 1)), whole)
	f.Add([]byte(strings.Replace(section, `"a"`, `"b"`, 1)), whole)
	f.Add([]byte(section), parts(f, "b.q"))
	f.Add([]byte(section), []byte(strings.Replace(string(whole), "[2,2,2]", "[4,2,1]", 1)))
	f.Add([]byte(section), []byte(strings.Replace(string(whole), "[6,5]", "[0,5]", 1)))
	f.Fuzz(func(t *testing.T, config, file []byte) {
		q, _, err := assemble(config, file)
		var in *inputerr.Error
		if err != nil && !errors.As(err, &in) {
			t.Fatalf("%v is no *inputerr.Error", err)
		}
		if err != nil || q == nil {
			return
		}
		for _, x := range q.Tensors {
			f, n := quantFormats[x.Quant.Format], x.Elements()
			if len(x.Data)*f.perByte != n || len(x.Quant.Scale) != 2*(n/x.Quant.Block) || len(x.Quant.Min) != 0 && len(x.Quant.Min) != len(x.Quant.Scale) {
				t.Errorf("%s %v: %d bytes of q, %d of scales, %d of minvals", x.Name, x.Shape, len(x.Data), len(x.Quant.Scale), len(x.Quant.Min))
			}
		}
	})
}
