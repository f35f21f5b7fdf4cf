package model

import (
	"sibyl/config"
	"sibyl/engine"
	"sibyl/precision"
)

// parts are the modules as a contract's rules know them; the mixer's and the MLP's depend on layer and model.
var parts = [...]precision.Part{ModEmbed: precision.PartEmbed, ModInputNorm: precision.PartInputNorm, ModMixer: precision.PartLinearAttn,
	ModPostAttnNorm: precision.PartPostAttnNorm, ModMLP: precision.PartMLP, ModFinalNorm: precision.PartFinalNorm, ModHead: precision.PartHead}

// places lists every module of a model, twice: as the plan and as a contract's rules know it.
func places(cfg *config.Config) (mine []Place, theirs []precision.Place) {
	add := func(layer int, m Module, part precision.Part) {
		mine, theirs = append(mine, Place{layer, m}), append(theirs, precision.Place{Layer: layer, Part: part})
	}
	add(-1, ModEmbed, parts[ModEmbed])
	for l, kind := range cfg.Layers {
		mixer, mlp := parts[ModMixer], parts[ModMLP]
		if kind == config.FullAttention {
			mixer = precision.PartSelfAttn
		}
		if cfg.MoE != nil {
			mlp = precision.PartMoE
		}
		add(l, ModInputNorm, parts[ModInputNorm])
		add(l, ModMixer, mixer)
		add(l, ModPostAttnNorm, parts[ModPostAttnNorm])
		add(l, ModMLP, mlp)
	}
	add(-1, ModFinalNorm, parts[ModFinalNorm])
	add(-1, ModHead, parts[ModHead])
	return mine, theirs
}

// UseContract makes the plan that of a contract with its exceptions. Rules that do not fit the model give an
// *inputerr.Error.
func (p *Plan) UseContract(cfg *config.Config, c *precision.Custom) error {
	mine, theirs := places(cfg)
	contracts, err := c.Map(theirs)
	if err != nil {
		return err
	}
	p.Contract, p.Contracts, p.chosen = c.Contract, nil, c
	for i, at := range contracts {
		if at == c.Contract {
			continue
		}
		if p.Contracts == nil {
			p.Contracts = map[Place]*precision.Contract{}
		}
		p.Contracts[mine[i]] = at
	}
	return nil
}

// label is what Info calls the plan's contract, and how the command line names it.
func (p *Plan) label() (label, part string) {
	switch {
	case p.chosen == nil:
		return p.Contract.Name, p.Contract.Name
	case p.chosen.File != "":
		return p.chosen.Label(), "contract:" + p.chosen.File
	}
	return p.chosen.Label(), p.chosen.Contract.Name
}

// stateDTypes says how the states are stored. Where layers differ it is F32: who sets a state then rounds nothing, and
// Import rounds each layer's as that layer stores it.
func (p *Plan) stateDTypes(cfg *config.Config) engine.StateDTypes {
	merge := func(kind config.LayerKind, of func(*precision.Contract) precision.Round) string {
		out := ""
		for l, k := range cfg.Layers {
			if k != kind {
				continue
			}
			if dtype := of(p.At(l, ModMixer)).String(); out == "" || out == dtype {
				out = dtype
			} else {
				return precision.F32.String()
			}
		}
		if out == "" { // no layer of the kind
			return of(p.Contract).String()
		}
		return out
	}
	return engine.StateDTypes{
		Recurrent: merge(config.GatedDeltaNet, func(c *precision.Contract) precision.Round { return c.State }),
		Conv:      merge(config.GatedDeltaNet, func(c *precision.Contract) precision.Round { return c.Conv }),
		KV:        merge(config.FullAttention, func(c *precision.Contract) precision.Round { return c.KV }),
	}
}

// callsMatter says whether some layer rounds its recurrent state where a call ends and not after every token.
func (p *Plan) callsMatter(cfg *config.Config) bool {
	for l, kind := range cfg.Layers {
		if c := p.At(l, ModMixer); kind == config.GatedDeltaNet && c.StatePerCall && c.State != precision.F32 {
			return true
		}
	}
	return false
}
