package bundle

import (
	"context"
	"fmt"
	"io/fs"
	"os"

	"sibyl/config"
	"sibyl/internal/inputerr"
)

// Source is a model's weights by role: a *Checkpoint, or what a *Bundle holds.
type Source interface {
	Name() string // for output
	Path() string // for messages
	Config() *config.Config
	// ConfigSHA256 is the hash of config.json's bytes, or of the configuration that a bundle's graph says.
	ConfigSHA256() string
	// Tensor and Expert give views of the weights; see Checkpoint.
	Tensor(r config.Role, layer int) (Tensor, error)
	Expert(layer, e int) (gate, up, down Tensor, err error)
	// InvFreq is the rope's table as a bundle stores it; nil where it is computed from the configuration.
	InvFreq() []float32
	// Quantization is nil unless weights are quantized.
	Quantization() *Quantization
	Sizes() Sizes
	// WeightsSHA256 and NonFinite read all weights, and let go of what they have read.
	WeightsSHA256(ctx context.Context, progress func(done, total int64)) (string, error)
	NonFinite(ctx context.Context, progress func(done, total int64)) ([]NonFinite, error)
	// These are hints about pages.
	Drop(t Tensor, lo, hi int)
	Forget(t Tensor, lo, hi int)
	WillNeed(t Tensor, lo, hi int)
	DropLayer(l int)
	ForgetLayer(l int)
	WillNeedLayer(l int)
	Stay()
	// Tokenizer gives the file system in which the tokenizer's files lie at dir.
	Tokenizer() (fsys fs.FS, dir string, err error)
	// Read gives a small file beside the tokenizer; ok is false if it is not there.
	Read(name string) (data []byte, ok bool, err error)
	// Files lists the mapped files; nil where they do not lie on this machine's disk.
	Files() []string
	// Check says whether the files still have the lengths they were opened with.
	Check() error
	Close() error
}

var (
	_ Source = (*Checkpoint)(nil)
	_ Source = (*Shipped)(nil)
)

// OpenSource opens what ref means (see Resolve): a checkpoint as Open does, a bundle as OpenBundle and Bundle.Weights do.
func OpenSource(ctx context.Context, ref string, opt BundleOptions) (Source, error) {
	return openSource(ctx, ref, opt, os.Getenv)
}

func openSource(ctx context.Context, ref string, opt BundleOptions, getenv func(string) string) (Source, error) {
	r, err := resolve(ref, getenv)
	if err != nil {
		return nil, err
	}
	if r.Kind != LanguageBundle && r.Kind != AIModel {
		c, err := open(ref, getenv)
		if err != nil {
			return nil, err // not as a Source: that would be a nil in a coat
		}
		return c, nil
	}
	b, err := OpenBundle(ctx, r.Path, opt)
	if err != nil {
		return nil, err
	}
	s, err := b.shipped(opt.Graph)
	if err != nil {
		_ = b.Close() // the first error is the one to tell
		return nil, err
	}
	return s, nil
}

// ContractOf is the contract that a subject has when it names none: hf-fp32 for a checkpoint, the profile's own for a
// bundle. A profile without one is an error.
func ContractOf(s Source) (string, error) {
	b, ok := s.(*Shipped)
	if !ok {
		return "hf-fp32", nil
	}
	p, err := b.Profile()
	if err == nil && p.Contract == "" {
		err = &inputerr.Error{File: b.Path(), Field: "contract", Found: fmt.Sprintf("a %s graph in %s, which no published contract describes", p.Name, p.Compute), Want: "a contract behind @",
			Do: "name one, such as @hf-fp32, or run the graph itself: @graph"}
	}
	return p.Contract, err
}

// InvFreq is nil: a checkpoint says theta.
func (c *Checkpoint) InvFreq() []float32 { return nil }

// Files lists the shards' paths; nil for files that are not mapped.
func (c *Checkpoint) Files() []string {
	var out []string
	for _, s := range c.shards {
		if m := s.Map(); m == nil || !m.Mapped() {
			return nil
		}
		out = append(out, s.Path())
	}
	return out
}
