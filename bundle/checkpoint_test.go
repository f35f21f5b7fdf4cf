package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sibyl/config"
	"sibyl/internal/malformed"
)

// mustOpen opens a path, or a case below testdata/checkpoints by its plain name.
func mustOpen(t *testing.T, name string) *Checkpoint {
	t.Helper()
	path := name
	if name != "" && !strings.ContainsAny(name, `/\`) {
		path = filepath.Join(testdata, "checkpoints", name)
	}
	c, err := open(path, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func hashOf(t *testing.T, name string) string {
	t.Helper()
	h, err := mustOpen(t, name).WeightsSHA256(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestGood opens every checkpoint of unusual form and asks for every weight.
func TestGood(t *testing.T) {
	t.Parallel()
	for _, tt := range malformed.All() {
		if tt.Want != "" {
			continue
		}
		t.Run(strings.TrimPrefix(tt.Name, "checkpoints/"), func(t *testing.T) {
			t.Parallel()
			c := mustOpen(t, strings.TrimPrefix(tt.Name, "checkpoints/"))
			cfg := c.Config()
			for l, kind := range cfg.Layers {
				for _, r := range cfg.LayerRoles(kind) {
					if r == config.ExpertsGateUp || r == config.ExpertsDown {
						continue
					}
					if _, err := c.Tensor(r, l); err != nil {
						t.Errorf("%v\nwhy: %s", err, tt.Why)
					}
				}
			}
			for _, r := range []config.Role{config.Embed, config.FinalNorm, config.Head} {
				if w, err := c.Tensor(r, 0); err != nil || !cmp.Equal(w.Shape, r.Shape(cfg)) {
					t.Errorf("%s: %v, %v\nwhy: %s", r, w.Shape, err, tt.Why)
				}
			}
		})
	}
}

// TestSameWeightsSameHash: how weights are stored is not what they are.
func TestSameWeightsSameHash(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, a, b string
		same       bool
		why        string
	}{
		{"sharded", "single", "sharded", true, "one file or two"},
		{"flat", "single", "flat", true, "the config's form is none of the weights' business"},
		{"experts", "moe-packed", "moe-single", true, "packed or one by one"},
		{"tied", "tied", "tied-with-head", true, "a head that repeats the embedding adds nothing"},
		{"unused", "single", "unused", true, "the vision tower is not in use"},
		{"untied", "single", "tied", false, "one more table"},
		{"dtype", "single", "dtypes", false, "the same bytes read as another dtype are other weights"},
		{"values", "single", "nonfinite", false, "other bytes"},
	}
	for _, tt := range tests {
		a, b := hashOf(t, tt.a), hashOf(t, tt.b)
		if (a == b) != tt.same {
			t.Errorf("%s: %s %s, %s %s, want same = %v\nwhy: %s", tt.name, tt.a, a, tt.b, b, tt.same, tt.why)
		}
	}
}

// TestHashIsAsDocumented makes the documented byte string by hand.
func TestHashIsAsDocumented(t *testing.T) {
	t.Parallel()
	c := mustOpen(t, "prefix-none")
	h := sha256.New()
	put := func(r config.Role, l int) {
		w, err := c.Tensor(r, l)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(h, "%s\x00%s\x00%v\n", w.Name, w.DType, w.Shape) // without a prefix the name is the role's
		h.Write(w.Data)
	}
	put(config.Embed, 0)
	for l, kind := range c.Config().Layers {
		for _, r := range c.Config().LayerRoles(kind) {
			put(r, l)
		}
	}
	put(config.FinalNorm, 0)
	put(config.Head, 0)
	var done, total int64
	got, err := c.WeightsSHA256(t.Context(), func(d, n int64) { done, total = d, n })
	if want := hex.EncodeToString(h.Sum(nil)); got != want || err != nil {
		t.Errorf("WeightsSHA256 = %s, %v, want %s", got, err, want)
	}
	if done != total || total != c.Sizes().Total() || total == 0 {
		t.Errorf("progress ended at %d of %d bytes, want %d of as many", done, total, c.Sizes().Total())
	}
}

func TestHashStops(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := mustOpen(t, "single")
	if _, err := c.WeightsSHA256(ctx, nil); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "after 0 of") {
		t.Errorf("WeightsSHA256 of a cancelled context = %v", err)
	}
	if _, err := c.NonFinite(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("NonFinite of a cancelled context = %v", err)
	}
}

// TestExperts: both forms give the same bytes, and gate, up and down are not mixed up.
func TestExperts(t *testing.T) {
	t.Parallel()
	packed, single := mustOpen(t, "moe-packed"), mustOpen(t, "moe-single")
	m := packed.Config().MoE
	h := packed.Config().HiddenSize
	all, err := packed.Tensor(config.ExpertsGateUp, 1)
	if err != nil {
		t.Fatal(err)
	}
	for e := range m.NumExperts {
		var a, b [3]Tensor
		var err, err2 error
		a[0], a[1], a[2], err = packed.Expert(1, e)
		b[0], b[1], b[2], err2 = single.Expert(1, e)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		for i, name := range []string{"gate", "up", "down"} {
			want := []int{m.IntermediateSize, h}
			if i == 2 {
				want = []int{h, m.IntermediateSize}
			}
			if !cmp.Equal(a[i].Shape, want) || !cmp.Equal(b[i].Shape, want) || !bytes.Equal(a[i].Data, b[i].Data) {
				t.Errorf("expert %d %s: packed %v, single %v, want the same bytes and shape %v", e, name, a[i].Shape, b[i].Shape, want)
			}
		}
		row := 2 * h // bytes of one row in BF16
		at := e * 2 * m.IntermediateSize * row
		if !bytes.Equal(a[0].Data[:row], all.Data[at:at+row]) || !bytes.Equal(a[1].Data[:row], all.Data[at+m.IntermediateSize*row:][:row]) {
			t.Errorf("expert %d: gate is not the first half of its rows, or up not the second", e)
		}
	}
	if _, _, _, err := packed.Expert(1, m.NumExperts); err == nil {
		t.Error("Expert past the last succeeds")
	}
	if _, err := single.Tensor(config.ExpertsGateUp, 0); err == nil {
		t.Error("a packed tensor of a file with single experts succeeds")
	}
	if _, _, _, err := mustOpen(t, "single").Expert(0, 0); err == nil {
		t.Error("Expert of a dense model succeeds")
	}
}

func TestRolesThatAreNotThere(t *testing.T) {
	t.Parallel()
	c := mustOpen(t, "single")
	for _, tt := range []struct {
		role  config.Role
		layer int
		why   string
	}{
		{config.QProj, 0, "layer 0 is a GatedDeltaNet"}, {config.InProjQKV, 1, "layer 1 is attention"}, {config.QProj, 2, "past the last layer"},
		{config.QProj, -1, "before the first"}, {config.Router, 0, "a dense model"},
	} {
		if _, err := c.Tensor(tt.role, tt.layer); err == nil {
			t.Errorf("Tensor(%s, %d) succeeds\nwhy: %s", tt.role, tt.layer, tt.why)
		}
	}
}

func TestUnused(t *testing.T) {
	t.Parallel()
	var got []string
	for _, u := range mustOpen(t, "unused").Unused() {
		got = append(got, u.Name+" "+string(u.DType))
	}
	want := []string{"model.visual.blocks.0.scale F8_E4M3", "model.visual.odd X7_NEW", "mtp.fc.weight BF16"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Unused (-want +got):\n%s", diff)
	}
}

func TestNonFinite(t *testing.T) {
	t.Parallel()
	bad, err := mustOpen(t, "nonfinite").NonFinite(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range bad {
		got = append(got, b.String())
	}
	want := []string{"model.language_model.layers.0.linear_attn.A_log: 0 NaN, 1 Inf", "model.language_model.layers.1.self_attn.q_proj.weight: 2 NaN, 1 Inf"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("NonFinite (-want +got):\n%s", diff)
	}
}

// TestSizes adds up by hand: H 12, vocab 20, two layers (one of each mixer), BF16 but A_log and the gated norm.
func TestSizes(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, "single").Sizes()
	// qkv 2*4+2*6 = 20 rows, z 12, b 2, a 2; conv 20*4; dt_bias 2; out 12x12 in BF16; A_log 2 in F32.
	gdn := int64(2*(20*12+12*12+2*12+2*12+20*4+2+12*12) + 4*2)
	attn := int64(2 * (32*12 + 8*12 + 8*12 + 12*16))
	norms := int64(2*(12+4*12+2*8) + 4*6)
	mlp := int64(2 * 2 * 3 * 10 * 12)
	want := Sizes{
		Stored:   [NumGroups]int64{Embedding: 480, Norms: norms, GatedDeltaNet: gdn, Attention: attn, MLP: mlp, Head: 480},
		PerToken: [NumGroups]int64{Embedding: 24, Norms: norms, GatedDeltaNet: gdn, Attention: attn, MLP: mlp, Head: 480},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("single (-want +got):\n%s", diff)
	}
	if tied := mustOpen(t, "tied").Sizes(); tied.Stored[Head] != 0 || tied.PerToken[Head] != 480 {
		t.Errorf("tied head: stored %d, read %d bytes a token; want 0, 480", tied.Stored[Head], tied.PerToken[Head])
	}
	for _, name := range []string{"moe-packed", "moe-single"} {
		s := mustOpen(t, name).Sizes()
		each := int64(2 * 2 * 3 * 5 * 12) // two layers, BF16, three projections of 5 x 12
		if s.Stored[Experts] != 3*each || s.PerToken[Experts] != 2*each {
			t.Errorf("%s: experts %d stored, %d a token; want %d, %d (2 of 3)", name, s.Stored[Experts], s.PerToken[Experts], 3*each, 2*each)
		}
	}
}

func TestUpcastIsExact(t *testing.T) {
	t.Parallel()
	tests := []struct {
		dtype DType
		data  []byte
		want  []float32
	}{
		{F32, []byte{0, 0, 0x80, 0x3f, 1, 0, 0, 0}, []float32{1, 0x1p-149}},
		{BF16, []byte{0x80, 0x3f, 1, 0}, []float32{1, 0x1p-133}},
		{F16, []byte{0x00, 0x3c, 0x01, 0x00, 0xff, 0x7b, 0x00, 0x80}, []float32{1, 0x1p-24, 65504, 0}},
	}
	for _, tt := range tests {
		in := Tensor{DType: tt.dtype, Shape: []int{len(tt.want)}, Data: tt.data}
		if got := in.Float32s(nil); !cmp.Equal(got, tt.want) {
			t.Errorf("%s % x = %v, want %v", tt.dtype, tt.data, got, tt.want)
		}
		if got := in.Float64s(nil); len(got) != len(tt.want) || got[1] != float64(tt.want[1]) {
			t.Errorf("%s % x in float64 = %v, want %v", tt.dtype, tt.data, got, tt.want)
		}
	}
}

func TestOtherFilesOfTheFolder(t *testing.T) {
	t.Parallel()
	c := mustOpen(t, "")
	fsys, dir, _ := c.Tokenizer()
	if sub, err := fs.Sub(fsys, dir); err != nil {
		t.Fatal(err)
	} else if _, err := fs.Stat(sub, "tokenizer.json"); err != nil {
		t.Error(err)
	}
	if b, ok, err := c.Read("generation_config.json"); err != nil || !ok || len(b) == 0 {
		t.Errorf("Read = %d bytes, %v, %v", len(b), ok, err)
	}
	if _, ok, err := c.Read("absent.json"); ok || err != nil {
		t.Errorf("Read of an absent file = %v, %v", ok, err)
	}
}

// A file that is cut while it is open is told by Check, before its missing pages are touched.
func TestCheckSeesACutFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"config.json", "model.safetensors"} {
		b, err := os.ReadFile(filepath.Join(testdata, "checkpoints", "single", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := mustOpen(t, dir)
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "model.safetensors"), 100); err != nil {
		t.Skip(err) // Windows does not cut a mapped file
	}
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "another program changed it") {
		t.Errorf("Check of a cut file = %v", err)
	}
}
