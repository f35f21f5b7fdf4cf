package bundle

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"sibyl/config"
	"sibyl/internal/inputerr"
	"sibyl/internal/mmap"
	"sibyl/internal/safetensors"
)

// weights are the tensors in use by role, of a model of which no more is asked here than its configuration.
type weights struct {
	name    string // of the model, for output
	cfg     *config.Config
	top     [config.NumRoles]Tensor   // roles that are not per layer
	layers  [][config.NumRoles]Tensor // [NumLayers]
	experts [][][3]Tensor             // [NumLayers][E]{gate, up, down}; nil for a layer with packed experts
	maps    []*mmap.Map               // the files the views are of
	stays   bool                      // see Stay
}

func (w *weights) get(r config.Role, layer int) (Tensor, bool) {
	if r >= config.NumRoles {
		return Tensor{}, false
	}
	if !r.PerLayer() {
		return w.top[r], w.top[r].Name != ""
	}
	if layer < 0 || layer >= len(w.layers) {
		return Tensor{}, false
	}
	t := w.layers[layer][r]
	return t, t.Name != ""
}

// inventory is all tensors of the files by name, and which were taken.
type inventory struct {
	at    map[string]place
	taken map[string]bool
	err   error
	gone  []string // names that were wanted and are not there
}

type place struct {
	t     *safetensors.Tensor
	file  string
	quant *Quantized // nil for a weight that is stored as it is
}

// prefixes of the text model, the longest first. The head stands outside of them, at top level.
var prefixes = []string{"model.language_model.", "model.", ""}

// bind finds the tensor of every role, checks dtype and shape, and lists what is left over.
func (c *Checkpoint) bind(inv *inventory) error {
	if err := c.findPrefix(inv); err != nil {
		return err
	}
	cfg := c.cfg
	c.layers = make([][config.NumRoles]Tensor, cfg.NumLayers)
	c.experts = make([][][3]Tensor, cfg.NumLayers)
	c.top[config.Embed] = inv.take(cfg, c.prefix, config.Embed, 0)
	c.top[config.FinalNorm] = inv.take(cfg, c.prefix, config.FinalNorm, 0)
	for l, kind := range cfg.Layers {
		for _, r := range cfg.LayerRoles(kind) {
			if r == config.ExpertsGateUp || r == config.ExpertsDown {
				continue
			}
			c.layers[l][r] = inv.take(cfg, c.prefix, r, l)
		}
		if cfg.MoE != nil {
			c.bindExperts(inv, l)
		}
	}
	if !cfg.TieWordEmbeddings {
		c.top[config.Head] = inv.take(cfg, "", config.Head, 0)
	}
	if err := c.complete(inv); err != nil {
		return err
	}
	if err := c.checkTie(inv); err != nil {
		return err
	}
	c.listUnused(inv)
	return nil
}

// findPrefix sees by the embedding's name what stands before the text model's names.
func (c *Checkpoint) findPrefix(inv *inventory) error {
	var found []string
	for _, p := range prefixes {
		if _, ok := inv.at[p+config.Embed.Name(0)]; ok {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		c.prefix = found[0]
		return nil
	case 0:
		return &inputerr.Error{File: c.dir.label, Field: "tensor names", Found: fmt.Sprintf("%d tensors and no embedding (such as %s)", len(inv.at), inv.example()),
			Want: prefixes[0] + config.Embed.Name(0) + ", or with the prefix model. or none", Do: "is this a whole Qwen3.5-family checkpoint, not an adapter or a single part of one?"}
	}
	return &inputerr.Error{File: c.dir.label, Field: "tensor names", Found: fmt.Sprintf("embeddings under the prefixes %q", found), Want: "one text model",
		Do: "use the original checkpoint; sibyl does not guess which model is meant"}
}

// example gives the first name in sorted order, for a message.
func (inv *inventory) example() string {
	first := ""
	for name := range inv.at {
		if first == "" || name < first {
			first = name
		}
	}
	return inputerr.Clip(first, 80)
}

// take finds a role's tensor and checks it; errors are kept, the first wrong one and all missing names.
func (inv *inventory) take(cfg *config.Config, prefix string, r config.Role, layer int) Tensor {
	return inv.takeNamed(prefix+r.Name(layer), r.Shape(cfg))
}

func (inv *inventory) takeNamed(name string, shape []int) Tensor {
	p, ok := inv.at[name]
	if !ok {
		inv.gone = append(inv.gone, name)
		return Tensor{}
	}
	inv.taken[name] = true
	field := "tensor " + inputerr.Clip(name, 120)
	switch {
	case inv.err != nil:
	case p.quant == nil && p.t.DType != F32 && p.t.DType != F16 && p.t.DType != BF16:
		inv.err = &inputerr.Error{File: p.file, Field: field + " dtype", Found: inputerr.Clip(string(p.t.DType), 32), Want: "F32, F16 or BF16",
			Do: "use the unquantized checkpoint; sibyl quantizes by itself"}
	case !slices.Equal(p.t.Shape, shape):
		inv.err = &inputerr.Error{File: p.file, Field: field + " shape", Found: fmt.Sprint(p.t.Shape), Want: fmt.Sprintf("%v by config.json", shape),
			Do: "config.json and weights belong to different models, or the file was converted for another program"}
	}
	return Tensor{Name: name, DType: p.t.DType, Shape: p.t.Shape, Data: p.t.Data, File: p.file, Quant: p.quant}
}

// bindExperts takes the layer's experts in the form the file has: packed, or one tensor per expert and projection.
func (c *Checkpoint) bindExperts(inv *inventory, l int) {
	base := fmt.Sprintf("%slayers.%d.mlp.experts.", c.prefix, l)
	if _, split := inv.at[base+"gate_proj"]; split && c.quant != nil {
		c.splitExperts(inv, l, base)
		return
	}
	_, packed := inv.at[c.prefix+config.ExpertsGateUp.Name(l)]
	_, single := inv.at[base+"0.gate_proj.weight"]
	if packed && single && inv.err == nil {
		inv.err = &inputerr.Error{File: c.dir.label, Field: fmt.Sprintf("layer %d experts", l), Found: "packed and single tensors", Want: "one form",
			Do: "use the original checkpoint; sibyl does not guess which of them counts"}
	}
	if !single {
		c.layers[l][config.ExpertsGateUp] = inv.take(c.cfg, c.prefix, config.ExpertsGateUp, l)
		c.layers[l][config.ExpertsDown] = inv.take(c.cfg, c.prefix, config.ExpertsDown, l)
		return
	}
	i, h := c.cfg.MoE.IntermediateSize, c.cfg.HiddenSize
	each := make([][3]Tensor, c.cfg.MoE.NumExperts)
	for e := range each {
		for k, proj := range []string{"gate", "up", "down"} {
			shape := []int{i, h}
			if proj == "down" {
				shape = []int{h, i}
			}
			t := inv.takeNamed(fmt.Sprintf("%s%d.%s_proj.weight", base, e, proj), shape)
			if first := each[0][k].DType; e > 0 && t.DType != first && t.Name != "" && inv.err == nil {
				inv.err = &inputerr.Error{File: t.File, Field: "tensor " + inputerr.Clip(t.Name, 120) + " dtype", Found: string(t.DType),
					Want: string(first) + " as expert 0 has", Do: "convert the experts of a layer to one dtype"}
			}
			each[e][k] = t
		}
	}
	c.experts[l] = each
}

// splitExperts takes the layer's experts as a quantized checkpoint has them: one tensor a projection.
func (c *Checkpoint) splitExperts(inv *inventory, l int, base string) {
	e, i, h := c.cfg.MoE.NumExperts, c.cfg.MoE.IntermediateSize, c.cfg.HiddenSize
	gate, up := inv.takeNamed(base+"gate_proj", []int{e, i, h}), inv.takeNamed(base+"up_proj", []int{e, i, h})
	down := inv.takeNamed(base+"down_proj", []int{e, h, i})
	if inv.err != nil || len(inv.gone) > 0 {
		return // views of what is not there would be out of range
	}
	c.experts[l] = make([][3]Tensor, e)
	for k := range c.experts[l] {
		c.experts[l][k] = [3]Tensor{gate.view(k*i*h, i, h), up.view(k*i*h, i, h), down.view(k*h*i, h, i)}
	}
}

// complete reports missing tensors all at once, then the first wrong one.
func (c *Checkpoint) complete(inv *inventory) error {
	if n := len(inv.gone); n > 0 {
		do := "the checkpoint is not complete, or config.json belongs to another model: download it again"
		if n == 1 && inv.gone[0] == config.Head.Name(0) {
			do = "tie_word_embeddings is false: set it to true only if the original model ties its head"
		}
		shown := inv.gone[:min(n, 5)]
		more := ""
		if n > len(shown) {
			more = fmt.Sprintf(" and %d more", n-len(shown))
		}
		return &inputerr.Error{File: c.dir.label, Field: "tensors", Found: fmt.Sprintf("%d missing: %s%s", n, strings.Join(shown, ", "), more),
			Want: "every tensor the config asks for", Do: do}
	}
	return inv.err
}

// checkTie compares the head with the embedding when the config ties them and the file stores both: two different
// tables are two different models. Only then are weights read while opening.
func (c *Checkpoint) checkTie(inv *inventory) error {
	p, ok := inv.at[config.Head.Name(0)]
	if !ok || !c.cfg.TieWordEmbeddings {
		return nil
	}
	inv.taken[config.Head.Name(0)] = true
	embed := c.top[config.Embed]
	if p.t.DType == embed.DType && slices.Equal(p.t.Shape, embed.Shape) && bytes.Equal(p.t.Data, embed.Data) {
		return nil
	}
	return &inputerr.Error{File: p.file, Field: "tensor " + config.Head.Name(0), Found: "other bytes than " + embed.Name, Want: "the same, because tie_word_embeddings is true",
		Do: "set tie_word_embeddings to false in config.json if the head is one of its own, or remove the tensor"}
}

// listUnused keeps the entries that no role took, in the order of their names.
func (c *Checkpoint) listUnused(inv *inventory) {
	for name, p := range inv.at {
		if !inv.taken[name] {
			c.unused = append(c.unused, Tensor{Name: name, DType: p.t.DType, Shape: p.t.Shape, Data: p.t.Data, File: p.file})
		}
	}
	slices.SortFunc(c.unused, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
}

// each calls f for every weight in use, in canonical order, under its name below the prefix and its packed shape.
func (w *weights) each(f func(name string, dtype DType, shape []int, parts []Tensor) error) error {
	one := func(r config.Role, l int) error {
		t, _ := w.get(r, l)
		return f(r.Name(l), t.DType, t.Shape, []Tensor{t})
	}
	if err := one(config.Embed, 0); err != nil {
		return err
	}
	for l, kind := range w.cfg.Layers {
		for _, r := range w.cfg.LayerRoles(kind) {
			var err error
			if each := w.experts[l]; each != nil && (r == config.ExpertsGateUp || r == config.ExpertsDown) {
				err = f(r.Name(l), each[0][0].DType, r.Shape(w.cfg), single(each, r))
			} else {
				err = one(r, l)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := one(config.FinalNorm, 0); err != nil || w.cfg.TieWordEmbeddings {
		return err
	}
	return one(config.Head, 0)
}

// single lists single experts' tensors in the order of the packed one.
func single(each [][3]Tensor, r config.Role) []Tensor {
	var parts []Tensor
	for _, e := range each {
		if r == config.ExpertsGateUp {
			parts = append(parts, e[0], e[1])
		} else {
			parts = append(parts, e[2])
		}
	}
	return parts
}
