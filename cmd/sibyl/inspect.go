package main

import (
	"context"
	"fmt"
	"io"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/demo"
)

// Inspect shows what is in a checkpoint or a trace file.
type Inspect struct {
	Model   string `arg:"" optional:"" name:"MODEL" help:"A checkpoint, or a trace file; left out, the demo model."`
	Tensors bool   `help:"List every tensor; the default folds those of one role."`
	Hash    bool   `help:"Compute the sha256 of the weights (reads all of them)."`
	Scan    bool   `default:"true" negatable:"" help:"Look for NaN and Inf in the weights (on by default; reads all of them)."`
	JSON
}

// Help is the part of the help below the flags.
func (*Inspect) Help() string {
	return `Sizes are as stored. "per token" is what decoding one token must read.
A NaN, an Inf or a trace whose data does not match its hash is exit code 1.

Examples:

  sibyl inspect
  sibyl inspect --tensors --hash
  sibyl inspect --json`
}

// inspection is what --json prints for a checkpoint.
type inspection struct {
	Name          string         `json:"name"`
	Kind          string         `json:"kind"`
	Path          string         `json:"path,omitempty"`
	Config        configInfo     `json:"config"`
	ConfigSHA256  string         `json:"config_sha256"`
	WeightsSHA256 string         `json:"weights_sha256,omitempty"`
	Parameters    int64          `json:"parameters"`
	Bytes         int64          `json:"bytes"`
	BytesPerToken int64          `json:"bytes_per_token"`
	Groups        []groupInfo    `json:"groups"`
	Tensors       []tensorInfo   `json:"tensors"`
	Unused        []tensorInfo   `json:"unused"`
	NonFinite     []nonFinite    `json:"non_finite"` // null: not looked for
	Findings      []string       `json:"findings"`   // what does not match
	dtypes        map[string]int // bytes by dtype, without A_log and the gated norm
}

// groupInfo is the size of a part of the model.
type groupInfo struct {
	Name     string `json:"name"`
	Bytes    int64  `json:"bytes"`
	PerToken int64  `json:"bytes_per_token"`
}

// tensorInfo is one tensor, or, folded, all of one role.
type tensorInfo struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
	Bytes int64  `json:"bytes"`
	File  string `json:"file"`
	role  string
}

// nonFinite counts what is no number in a tensor.
type nonFinite struct {
	Tensor string `json:"tensor"`
	NaN    int64  `json:"nan"`
	Inf    int64  `json:"inf"`
}

// Run is the verb.
func (v *Inspect) Run(ctx context.Context, a *App) (err error) {
	s, err := a.subject(v.Model)
	if err != nil {
		return err
	}
	if s.Trace != "" {
		return inspectTrace(a, s.Trace, v.JSON.JSON, v.Tensors)
	}
	ref, err := bundle.Resolve(s.Model)
	if err != nil {
		return err
	}
	c, err := bundle.Open(s.Model)
	if err != nil {
		return err
	}
	defer closing(c, &err)
	r := &inspection{Name: c.Name(), Kind: ref.Kind.String(), Path: ref.Path, Config: describeConfig(c.Config()),
		ConfigSHA256: c.ConfigSHA256(), Unused: []tensorInfo{}, Findings: []string{}, dtypes: map[string]int{}}
	if err := r.weights(c); err != nil {
		return err
	}
	if v.Hash {
		if r.WeightsSHA256, err = c.WeightsSHA256(ctx, a.Progress("hashing the weights")); err != nil {
			return err
		}
	}
	if v.Scan {
		if err := r.scan(ctx, c, a); err != nil {
			return err
		}
	}
	r.findings(c)
	if err := a.Emit(v.JSON.JSON, r, func(w io.Writer) error { return r.render(w, v.Tensors) }); err != nil {
		return err
	}
	if len(r.NonFinite) > 0 {
		return statusError(exitMismatch)
	}
	return nil
}

// weights lists tensors and sums them up; only headers are read.
func (r *inspection) weights(c *bundle.Checkpoint) error {
	sizes := c.Sizes()
	r.Bytes, r.BytesPerToken = sizes.Total(), sizes.TotalPerToken()
	for g := range bundle.NumGroups {
		if sizes.Stored[g]+sizes.PerToken[g] > 0 {
			r.Groups = append(r.Groups, groupInfo{g.String(), sizes.Stored[g], sizes.PerToken[g]})
		}
	}
	err := eachWeight(c, func(role config.Role, t bundle.Tensor) {
		r.Tensors = append(r.Tensors, tensorInfo{t.Name, string(t.DType), t.Shape, int64(len(t.Data)), t.File, role.String()})
		r.Parameters += int64(t.Elements())
		if role != config.ALog && role != config.GatedNorm { // F32 beside BF16 in Qwen3.5, by design
			r.dtypes[string(t.DType)] += len(t.Data)
		}
	})
	for _, t := range c.Unused() {
		r.Unused = append(r.Unused, tensorInfo{t.Name, string(t.DType), t.Shape, int64(len(t.Data)), t.File, ""})
	}
	return err
}

// eachWeight calls f for every tensor in use, in the order of the math.
func eachWeight(c *bundle.Checkpoint, f func(config.Role, bundle.Tensor)) error {
	cfg := c.Config()
	one := func(role config.Role, layer int) error {
		t, err := c.Tensor(role, layer)
		if err == nil {
			f(role, t)
			return nil
		}
		if role != config.ExpertsGateUp {
			if role == config.ExpertsDown { // stored one by one: they came with the gate and up
				return nil
			}
			return err
		}
		for e := range cfg.MoE.NumExperts {
			gate, up, down, err := c.Expert(layer, e)
			if err != nil {
				return err
			}
			f(role, gate)
			f(role, up)
			f(config.ExpertsDown, down)
		}
		return nil
	}
	if err := one(config.Embed, 0); err != nil {
		return err
	}
	for l, kind := range cfg.Layers {
		for _, role := range cfg.LayerRoles(kind) {
			if err := one(role, l); err != nil {
				return err
			}
		}
	}
	if err := one(config.FinalNorm, 0); err != nil || cfg.TieWordEmbeddings {
		return err
	}
	return one(config.Head, 0)
}

// scan looks for NaN and Inf.
func (r *inspection) scan(ctx context.Context, c *bundle.Checkpoint, a *App) error {
	found, err := c.NonFinite(ctx, a.Progress("looking for NaN and Inf"))
	r.NonFinite = []nonFinite{}
	for _, n := range found {
		r.NonFinite = append(r.NonFinite, nonFinite{n.Tensor, int64(n.NaN), int64(n.Inf)})
		r.Findings = append(r.Findings, "not finite: "+n.String())
	}
	return err
}

// about is a line on what the demo model is; other models have none.
func (r *inspection) about() string {
	if r.Kind == bundle.Demo.String() {
		return demo.Not + "\n"
	}
	return ""
}

// findings adds what does not match: the name's claims, mixed dtypes, tensors nobody uses.
func (r *inspection) findings(c *bundle.Checkpoint) {
	r.Findings = append(r.Findings, nameClaims(r.Name, r.Parameters, r.dtypes)...)
	if len(r.dtypes) > 1 {
		r.Findings = append(r.Findings, "weights of several dtypes: "+dtypesText(r.dtypes))
	}
	other := 0
	for _, t := range r.Unused {
		if !knownUnused(t.Name) {
			if other++; other <= 5 {
				r.Findings = append(r.Findings, fmt.Sprintf("%s (%s %s) is not used by the text model", t.Name, t.DType, shapeText(t.Shape)))
			}
		}
	}
	if other > 5 {
		r.Findings = append(r.Findings, fmt.Sprintf("and %d more tensors that are not used", other-5))
	}
	if c.Config().TieWordEmbeddings {
		for _, t := range r.Unused {
			if t.Name == "lm_head.weight" {
				r.Findings = append(r.Findings, "lm_head.weight is stored although the config ties it to the embedding (its bytes are the same)")
			}
		}
	}
}
