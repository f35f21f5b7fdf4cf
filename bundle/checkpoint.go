// Package bundle opens checkpoints: it finds the files, judges all of them before anything is used, and hands out
// named read-only views of mapped memory. It knows files, not math. A checkpoint of 54 GB opens in milliseconds and
// needs no memory of its own.
package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"sibyl/config"
	"sibyl/internal/demo"
	"sibyl/internal/inputerr"
	"sibyl/internal/safetensors"
)

// Checkpoint is an open Hugging Face checkpoint. Its methods may be called from several goroutines at once, Close
// by one after them.
type Checkpoint struct {
	dir       *folder
	configSum string
	shards    []*safetensors.File
	prefix    string // of the text model's tensors in the file
	weights
	unused []Tensor
	quant  *Quantization // nil unless the checkpoint is quantized

	hashing sync.Mutex
	hash    string // of the weights, once known
}

// Open opens what ref means (see Resolve): "" is the embedded demo model, an existing path is a checkpoint's
// folder, and org/name is looked up in the local hub cache. The network is never asked. Bad input gives an
// *inputerr.Error.
func Open(ref string) (*Checkpoint, error) { return open(ref, os.Getenv) }

func open(ref string, getenv func(string) string) (*Checkpoint, error) {
	r, err := resolve(ref, getenv)
	if err != nil {
		return nil, err
	}
	switch r.Kind {
	case Demo:
		return OpenFS(demo.FS, demo.Name)
	case CheckpointFolder, HubID:
		dir, err := openFolder(r.Path)
		if err != nil {
			return nil, err
		}
		return openIn(dir, r.Name)
	}
	return nil, r.notACheckpoint()
}

// OpenFS opens a checkpoint whose files are at the root of fsys. name is for messages and output.
func OpenFS(fsys fs.FS, name string) (*Checkpoint, error) {
	return openIn(&folder{fsys: fsys, label: name}, name)
}

// openIn takes over dir.
func openIn(dir *folder, name string) (*Checkpoint, error) {
	c := &Checkpoint{dir: dir, weights: weights{name: name}}
	if err := c.load(); err != nil {
		_ = c.Close() // the first error is the one to tell
		return nil, err
	}
	return c, nil
}

// load reads config, then headers, then binds tensors to roles: each step trusts only what the one before checked.
func (c *Checkpoint) load() error {
	if err := c.dir.recognise(); err != nil {
		return err
	}
	text, err := c.dir.read("config.json", maxJSON)
	if err != nil {
		return err
	}
	if c.cfg, err = config.Parse(c.dir.show("config.json"), text); err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	c.configSum = hex.EncodeToString(sum[:])
	if c.quant, err = parseQuantization(c.dir.show("config.json"), text); err != nil {
		return err
	}
	found, err := c.openShards()
	if err != nil {
		return err
	}
	for _, f := range c.shards {
		if m := f.Map(); m != nil {
			c.maps = append(c.maps, m)
		}
	}
	if c.quant != nil {
		if err := c.quant.enter(c.dir, found); err != nil {
			return err
		}
		c.cfg.TieWordEmbeddings = c.cfg.TieWordEmbeddings && !c.quant.UntiedHead
	}
	return c.bind(found)
}

// Config is the text model's configuration.
func (w *weights) Config() *config.Config { return w.cfg }

// Name is what the model is called in output: the hub id, the folder's name, or the demo model's.
func (w *weights) Name() string { return w.name }

// Path is where it was opened from, for messages.
func (c *Checkpoint) Path() string { return c.dir.label }

// Prefix is what stands before the text model's tensor names in the file: "model.language_model.", "model." or "".
func (c *Checkpoint) Prefix() string { return c.prefix }

// ConfigSHA256 is the hash of config.json's bytes, in lower-case hex.
func (c *Checkpoint) ConfigSHA256() string { return c.configSum }

// Shards lists the open files in the order of their names.
func (c *Checkpoint) Shards() []*safetensors.File { return c.shards }

// Unused lists tensors of the files that the text model does not use: the vision tower, mtp, and whatever the
// config does not account for. Their dtypes may be unknown.
func (c *Checkpoint) Unused() []Tensor { return c.unused }

// Tokenizer gives the folder's file system, in which tokenizer.json lies at dir.
func (c *Checkpoint) Tokenizer() (fsys fs.FS, dir string, err error) { return c.dir.fsys, ".", nil }

// Read gives a small file of the checkpoint's folder ("tokenizer_config.json"); ok is false if it is not there.
func (c *Checkpoint) Read(name string) (data []byte, ok bool, err error) {
	if !c.dir.has(name) {
		return nil, false, nil
	}
	data, err = c.dir.read(name, maxJSON)
	return data, err == nil, err
}

// Tensor gives the weight of a role. layer is ignored for roles that are not per layer. Head gives the embedding
// when the checkpoint is tied. A role that the layer's kind does not have is an error, and so are the packed expert
// roles of a file that stores experts one by one: Expert serves both forms.
func (w *weights) Tensor(r config.Role, layer int) (Tensor, error) {
	if r == config.Head && w.cfg.TieWordEmbeddings {
		r = config.Embed
	}
	t, ok := w.get(r, layer)
	if !ok {
		return Tensor{}, fmt.Errorf("%s: no tensor of role %s in layer %d", w.name, r, layer)
	}
	return t, nil
}

// Expert gives the projections of routed expert e: gate and up [I, H], down [H, I], views of packed tensors or
// tensors of their own.
func (w *weights) Expert(layer, e int) (gate, up, down Tensor, err error) {
	m := w.cfg.MoE
	if m == nil || layer < 0 || layer >= w.cfg.NumLayers || e < 0 || e >= m.NumExperts {
		return gate, up, down, fmt.Errorf("%s: no expert %d in layer %d", w.name, e, layer)
	}
	if each := w.experts[layer]; each != nil {
		return each[e][0], each[e][1], each[e][2], nil
	}
	gateUp, _ := w.get(config.ExpertsGateUp, layer)
	packed, _ := w.get(config.ExpertsDown, layer)
	i, h := m.IntermediateSize, w.cfg.HiddenSize
	// gate_up_proj [E, 2I, H] holds the gate's rows first.
	return gateUp.view(e*2*i*h, i, h), gateUp.view((e*2+1)*i*h, i, h), packed.view(e*h*i, h, i), nil
}

// Check says whether the files still have the lengths they were opened with; long jobs ask between layers.
func (c *Checkpoint) Check() error {
	for _, s := range c.shards {
		if m := s.Map(); m != nil {
			if err := m.Check(); err != nil {
				return &inputerr.Error{File: s.Path(), Err: err, Do: "leave a checkpoint alone while it is used, and start again"}
			}
		}
	}
	return nil
}

// Close unmaps the files. No view may be used after it.
func (c *Checkpoint) Close() error {
	var first error
	for _, s := range c.shards {
		if err := s.Close(); first == nil {
			first = err
		}
	}
	c.shards = nil
	if err := c.dir.close(); first == nil {
		first = err
	}
	return first
}

// WeightsSHA256 hashes the weights in use, so that the same model gives the same hash however it is stored: one
// file or many, any prefix, packed experts or single ones. It reads every byte once; the result is kept. progress,
// if not nil, is told the bytes done and in all.
//
// The hash is SHA-256 over, for each role in the order embedding, layers' roles (config.LayerRoles), final norm,
// and the head if it is not tied: the name below the prefix, a NUL, the dtype, a NUL, the shape as "[a b]", a
// newline, the bytes. Experts count as packed: [E, 2I, H] and [E, H, I]. Of a quantized checkpoint the quantized
// weights come first, in the order of their names in the file: the name, a NUL, format, mode, block and axis, a NUL,
// the sha256 of q and scales and that of the minvals, a newline; both are compared with those that config.json
// records, and a difference is an *inputerr.Error.
func (c *Checkpoint) WeightsSHA256(ctx context.Context, progress func(done, total int64)) (string, error) {
	c.hashing.Lock()
	defer c.hashing.Unlock()
	if c.hash != "" {
		return c.hash, nil
	}
	h := sha256.New()
	var done int64
	total := c.Sizes().Total()
	if c.quant != nil {
		report := func(n, _ int64) {
			if done = n; progress != nil {
				progress(done, total)
			}
		}
		if err := c.VerifyQuantized(ctx, report); err != nil {
			return "", err
		}
		for _, t := range c.quant.Tensors {
			q := t.Quant
			fmt.Fprintf(h, "%s\x00%s %s %d %d\x00%s %s\n", t.Name, q.Format, q.Mode, q.Block, q.Axis, q.SHA256, q.MinSHA256)
		}
	}
	err := c.each(func(name string, dtype DType, shape []int, parts []Tensor) error {
		if parts[0].Quant != nil {
			return nil // above
		}
		fmt.Fprintf(h, "%s\x00%s\x00%v\n", name, dtype, shape)
		for _, p := range parts {
			err := c.blocks(p.Data, func(b []byte) error {
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
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	c.hash = hex.EncodeToString(h.Sum(nil))
	return c.hash, nil
}
