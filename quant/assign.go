package quant

import (
	"fmt"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/inputerr"
)

// Assignment is a scheme that has met a model: the spec of every tensor. It may be used by several goroutines.
type Assignment struct {
	Scheme *Scheme
	// HeadUntied says that a tied head becomes a table of its own, because embedding and head get different specs.
	HeadUntied bool
	// Notes say where the scheme could not be followed, in the order of the math.
	Notes []Note

	cfg    *config.Config
	top    [config.NumRoles]Spec
	layers [][config.NumRoles]Spec
}

// Note is a tensor and what is to be said of it.
type Note struct {
	Tensor string `json:"tensor"` // name below the text model's prefix
	Text   string `json:"text"`
}

// String is a line for people.
func (n Note) String() string { return n.Tensor + ": " + n.Text }

// AssignTo is Assign for an open checkpoint or bundle, which must not be quantized already.
func (s *Scheme) AssignTo(src bundle.Source) (*Assignment, error) {
	if q := src.Quantization(); q != nil {
		what := "a checkpoint"
		if _, ok := src.(*bundle.Shipped); ok {
			what = "a bundle"
		}
		return nil, &inputerr.Error{File: src.Name(), Field: "scheme " + s.Name, Found: what + " that is already quantized (" + q.Scheme + ")",
			Want: "one that is not", Do: "leave the scheme out to read it as stored, or start from " + q.Source}
	}
	return s.Assign(src.Config())
}

// Assign gives every tensor of a model its spec. A recipe's rule that matches no tensor, or one that must not be
// quantized, is an *inputerr.Error; blocks that do not divide the axis are a Note.
func (s *Scheme) Assign(cfg *config.Config) (*Assignment, error) {
	a := &Assignment{Scheme: s, cfg: cfg, layers: make([][config.NumRoles]Spec, cfg.NumLayers)}
	m := newMatcher(s, cfg.TieWordEmbeddings)
	var err error
	a.top[config.Embed], err = a.decide(m, config.Embed, 0)
	for l, kind := range cfg.Layers {
		for _, r := range cfg.LayerRoles(kind) {
			if err == nil {
				a.layers[l][r], err = a.decide(m, r, l)
			}
		}
	}
	if err == nil {
		a.top[config.FinalNorm], err = a.decide(m, config.FinalNorm, 0)
	}
	if err == nil {
		a.top[config.Head], err = a.decide(m, config.Head, 0)
	}
	if err == nil {
		err = m.unused(s)
	}
	if err != nil {
		return nil, err
	}
	a.HeadUntied = cfg.TieWordEmbeddings && a.top[config.Head] != a.top[config.Embed]
	return a, nil
}

// decide gives a tensor's spec, after checking that its blocks fit.
func (a *Assignment) decide(m *matcher, r config.Role, layer int) (Spec, error) {
	spec, err := m.spec(r, layer)
	if err != nil || !spec.Format.Quantized() {
		return spec, err
	}
	rows, cols := a.dims(r)
	n := [2]int{rows, cols}[spec.Axis]
	why := ""
	switch {
	case n%spec.Block != 0:
		why = fmt.Sprintf("blocks of %d do not divide its axis of %d", spec.Block, n)
	case spec.Format != Int8 && cols%2 != 0:
		why = fmt.Sprintf("two values share a byte and it has %d columns", cols)
	default:
		return spec, nil
	}
	plain := a.Scheme.Rest
	a.Notes = append(a.Notes, Note{r.Name(layer), fmt.Sprintf("stays %s: %s", plain, why)})
	return plain, nil
}

// dims is the matrix that blocks lie in: [out, in] of a linear, of one expert's projection.
func (a *Assignment) dims(r config.Role) (rows, cols int) {
	switch r {
	case config.ExpertsGateUp: // gate and up are quantized one by one
		return a.cfg.MoE.IntermediateSize, a.cfg.HiddenSize
	case config.ExpertsDown:
		return a.cfg.HiddenSize, a.cfg.MoE.IntermediateSize
	}
	shape := r.Shape(a.cfg)
	return shape[0], shape[len(shape)-1]
}

// Spec is what happens to a role's tensor. layer is ignored for roles that are not per layer.
func (a *Assignment) Spec(r config.Role, layer int) Spec {
	if !r.PerLayer() {
		return a.top[r]
	}
	return a.layers[layer][r]
}
