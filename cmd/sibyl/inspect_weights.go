package main

import (
	"context"
	"fmt"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/demo"
)

// weights lists tensors and sums them up; only headers are read.
func (r *inspection) weights(c *bundle.Checkpoint) error {
	sizes := c.Sizes()
	r.Bytes, r.BytesPerToken = sizes.Total(), sizes.TotalPerToken()
	for g := range bundle.NumGroups {
		if sizes.Stored[g]+sizes.PerToken[g] > 0 {
			r.Groups = append(r.Groups, groupInfo{Name: g.String(), Bytes: sizes.Stored[g], PerToken: sizes.PerToken[g]})
		}
	}
	err := eachWeight(c, func(role config.Role, t bundle.Tensor) {
		r.Tensors = append(r.Tensors, tensorInfo{Name: t.Name, DType: string(t.DType), Shape: t.Shape, Bytes: t.Bytes(), File: t.File,
			quantizedTensor: quantizedAs(t), role: role.String(), group: bundle.GroupOf(role)})
		r.Parameters += int64(t.Elements())
		if role != config.ALog && role != config.GatedNorm { // F32 beside BF16 in Qwen3.5, by design
			r.dtypes[string(t.DType)] += int(t.Bytes())
		}
	})
	for _, t := range c.Unused() {
		r.Unused = append(r.Unused, tensorInfo{Name: t.Name, DType: string(t.DType), Shape: t.Shape, Bytes: int64(len(t.Data)), File: t.File})
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
		if stacked := stackedExperts(c, layer); stacked != nil {
			f(role, stacked[0])
			f(role, stacked[1])
			f(config.ExpertsDown, stacked[2])
			return nil
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
func (r *inspection) findings() {
	r.Findings = append(r.Findings, nameClaims(r.Name, r.Parameters, r.dtypes)...)
	if len(r.dtypes) > 1 && r.Quantization == nil { // there it is the scheme's doing
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
}
