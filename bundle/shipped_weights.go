package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"sibyl/bundle/aicode"
	"sibyl/config"
	"sibyl/internal/mmap"
)

// Shipped is the model that a bundle's function main holds: its weights by role as they are stored, and the
// configuration that the graph says. It owns the Bundle: Close closes it.
type Shipped struct {
	*Bundle
	weights
	Roles *Roles

	configSum string
	invFreq   []float32
	quant     *Quantization
	pages     [][][2]int64 // [NumLayers]: offset and length of each constant's bytes in main.mlirb
}

// Weights recovers the model of main: an operation that is not recognised is an error that names it. It reads small
// vectors, and of quantized weights so much as tells their kind.
func (b *Bundle) Weights() (*Shipped, error) { return b.shipped(false) }

// shipped is Weights; lenient is for who needs the configuration only: then weights that are not recognised or not read
// are left out.
func (b *Bundle) shipped(lenient bool) (*Shipped, error) {
	profile, states, err := b.signature()
	if err != nil {
		return nil, err
	}
	r, err := b.Roles("main")
	if err != nil {
		return nil, err
	}
	if err := r.Err(); err != nil && !lenient {
		return nil, err
	}
	s := &Shipped{Bundle: b, Roles: r}
	d := &deriver{b: b, profile: profile, states: states, r: r}
	if s.cfg, err = d.config(); err != nil {
		return nil, err
	}
	s.weights.name, s.invFreq = b.name, d.invFreq()
	if m := b.Asset.data; m != nil {
		s.maps = []*mmap.Map{m}
	}
	text, err := json.Marshal(s.cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: the configuration: %w", b.Path(), err)
	}
	sum := sha256.Sum256(text)
	s.configSum = hex.EncodeToString(sum[:])
	if err := s.fill(lenient); err != nil {
		return nil, err
	}
	return s, nil
}

// Name is the folder's name.
func (s *Shipped) Name() string { return s.Bundle.name }

// ConfigSHA256 is the hash of the derived configuration as JSON, in lower-case hex.
func (s *Shipped) ConfigSHA256() string { return s.configSum }

// InvFreq is the rope's table as the graph stores it.
func (s *Shipped) InvFreq() []float32 { return s.invFreq }

// Quantization is what the weights' own dtypes say; nil for a bundle without quantized ones.
func (s *Shipped) Quantization() *Quantization { return s.quant }

// WeightsSHA256 is the sha256 of main.mlirb, which holds the weights and the graph: what main.hash says of a sound one.
func (s *Shipped) WeightsSHA256(ctx context.Context, progress func(done, total int64)) (string, error) {
	if len(s.warnings) == 0 && s.Asset.MainHash() != "" {
		return s.Asset.MainHash(), nil // verified when it was opened
	}
	h := sha256.New()
	done, total := int64(0), s.Asset.Size()
	err := s.blocks(s.Asset.Bytes(), func(b []byte) error {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("hashing stopped after %d of %d bytes: %w", done, total, err)
		}
		h.Write(b)
		if done += int64(len(b)); progress != nil {
			progress(done, total)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Read gives a file of the folder of the tokenizer ("generation_config.json").
func (s *Shipped) Read(name string) (data []byte, ok bool, err error) {
	if s.Language == nil {
		return nil, false, nil
	}
	if name = "tokenizer/" + name; !s.dir.has(name) {
		return nil, false, nil
	}
	data, err = s.dir.read(name, maxJSON)
	return data, err == nil, err
}

// Files is main.mlirb's path; nil if it is not mapped.
func (s *Shipped) Files() []string {
	if !s.Asset.data.Mapped() {
		return nil
	}
	return []string{s.Asset.Path()}
}

// DropLayer tells the system that the weights of layer l will not be read again soon.
func (s *Shipped) DropLayer(l int) { s.advise(l, mmap.DontNeed) }

// ForgetLayer tells the system that nobody reads the weights of layer l again soon, once they were dropped.
func (s *Shipped) ForgetLayer(l int) { s.advise(l, mmap.Forget) }

// WillNeedLayer tells the system that the weights of layer l are read next.
func (s *Shipped) WillNeedLayer(l int) { s.advise(l, mmap.WillNeed) }

func (s *Shipped) advise(l int, what mmap.Advice) {
	for _, p := range s.pages[l] {
		_ = s.Asset.data.Advise(what, int(p[0]), int(p[1])) // a hint
	}
}

// fill makes the tensors of all roles; lenient passes over those it cannot make.
func (s *Shipped) fill(lenient bool) error {
	c := s.cfg
	s.layers, s.experts = make([][config.NumRoles]Tensor, c.NumLayers), make([][][3]Tensor, c.NumLayers)
	s.pages = make([][][2]int64, c.NumLayers)
	f := &filler{s: s, zero: map[*aicode.Const]bool{}, kinds: map[string]int{}, budget: s.Asset.Size() + 1<<20}
	projs := map[string]Tensor{}
	for i := range s.Roles.Uses {
		u := &s.Roles.Uses[i]
		t, err := f.tensor(u)
		if err != nil && lenient {
			continue
		}
		if err != nil {
			return err
		}
		switch {
		case u.Proj != "":
			projs[fmt.Sprint(u.Layer, u.Proj)] = t
		case u.Role == config.Head && c.TieWordEmbeddings: // the same table once more
		case u.Layer < 0:
			s.top[u.Role] = t
		default:
			s.layers[u.Layer][u.Role] = t
		}
		if u.Layer >= 0 {
			s.note(u)
		}
	}
	for l := range s.experts {
		if c.MoE == nil {
			break
		}
		i, h := c.MoE.IntermediateSize, c.HiddenSize
		gate, up, down := projs[fmt.Sprint(l, "gate")], projs[fmt.Sprint(l, "up")], projs[fmt.Sprint(l, "down")]
		if gate.Name == "" || up.Name == "" || down.Name == "" {
			continue
		}
		s.experts[l] = make([][3]Tensor, c.MoE.NumExperts)
		for e := range s.experts[l] {
			s.experts[l][e] = [3]Tensor{gate.view(e*i*h, i, h), up.view(e*i*h, i, h), down.view(e*i*h, h, i)}
		}
	}
	if len(f.kinds) > 0 {
		s.quant = &Quantization{Scheme: strings.Join(slices.Sorted(maps.Keys(f.kinds)), "; "), Source: "the checkpoint it was converted from", Tensors: f.quantized}
		if s.Language != nil && s.Language.ModelID != "" {
			s.quant.Source = s.Language.ModelID
		}
	}
	return nil
}

// note keeps where a use's bytes lie in the file.
func (s *Shipped) note(u *Use) {
	for _, k := range u.consts() {
		if p := [2]int64{k.Offset, int64(len(k.Data))}; k.Resource != "" && !slices.Contains(s.pages[u.Layer], p) {
			s.pages[u.Layer] = append(s.pages[u.Layer], p)
		}
	}
}

// consts are the constants of a use: the weight's, or q's and its parameters'.
func (u *Use) consts() []*aicode.Const {
	if u.Dequant == nil {
		return []*aicode.Const{u.Data.Const}
	}
	var out []*aicode.Const
	for _, o := range u.Dequant.Operands {
		if o.Def != nil && o.Def.Const != nil {
			out = append(out, o.Def.Const)
		}
	}
	return out
}

// Tokenizer gives the embedded tokenizer; see Bundle.Tokenizer.
func (s *Shipped) Tokenizer() (fsys fs.FS, dir string, err error) { return s.Bundle.Tokenizer() }
