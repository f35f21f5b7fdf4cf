package metal

import (
	"fmt"
	"strings"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/precision"
)

// plan is the contract of every module.
type plan struct {
	chosen *precision.Custom
	at     map[precision.Place]*precision.Contract
}

// newPlan maps a contract to the model's modules and refuses what the kernels do not compute: they round results at named points,
// and never inside a sum.
func newPlan(c *config.Config, chosen *precision.Custom, subject string) (*plan, error) {
	var places []precision.Place
	add := func(layer int, part precision.Part) {
		places = append(places, precision.Place{Layer: layer, Part: part})
	}
	add(-1, precision.PartEmbed)
	for l, kind := range c.Layers {
		add(l, precision.PartInputNorm)
		add(l, mixerPart(kind))
		add(l, precision.PartPostAttnNorm)
		add(l, mlpPart(c))
	}
	add(-1, precision.PartFinalNorm)
	add(-1, precision.PartHead)
	contracts, err := chosen.Map(places)
	if err != nil {
		return nil, err
	}
	p := &plan{chosen, map[precision.Place]*precision.Contract{}}
	for i, at := range contracts {
		if what := notComputed(at); len(what) > 0 {
			return nil, &inputerr.Error{File: subject, Field: "contract", Found: at.Name + ", which asks for " + strings.Join(what, ", "),
				Want: "one that the kernels compute: hf-fp32, coreai-fp16, coreai-eager or its variants with an fp32 state",
				Do:   "choose one of these, or engine cpu, which computes every contract"}
		}
		p.at[places[i]] = at
	}
	return p, nil
}

func mixerPart(kind config.LayerKind) precision.Part {
	if kind == config.FullAttention {
		return precision.PartSelfAttn
	}
	return precision.PartLinearAttn
}

func mlpPart(c *config.Config) precision.Part {
	if c.MoE != nil {
		return precision.PartMoE
	}
	return precision.PartMLP
}

// notComputed names what of a contract no kernel does.
func notComputed(c *precision.Contract) (out []string) {
	for _, p := range []precision.Point{precision.ConvProduct, precision.ConvPartial, precision.Score, precision.ScoreScaled, precision.ScoreMasked,
		precision.Softmax, precision.ExpertPartial, precision.LogitsCast} {
		if c.At[p] != precision.F32 {
			out = append(out, fmt.Sprintf("%s at %s", c.At[p], p))
		}
	}
	for _, f := range []struct {
		on   bool
		name string
	}{{c.Arithmetic != "", "an arithmetic of its own"}, {c.StatePerCall, "a state rounded once a call"}, {c.ScaleScores, "scaled scores"},
		{c.QDivide, "a divided query"}, {c.ExpertsByID, "experts summed by id"}, {c.SoftmaxChosen, "a softmax of the chosen experts"},
		{c.SoftmaxLate, "a late division in attention"}, {c.State == precision.BF16 || c.KV == precision.BF16, "states in BF16"}} {
		if f.on {
			out = append(out, f.name)
		}
	}
	return out
}

func (p *plan) contract(layer int, part precision.Part) *precision.Contract {
	return p.at[precision.Place{Layer: layer, Part: part}]
}

// label is what Info calls the contract, and how the command line names it.
func (p *plan) label() (label, part string) {
	if p.chosen.File != "" {
		return p.chosen.Label(), "contract:" + p.chosen.File
	}
	return p.chosen.Label(), p.chosen.Contract.Name
}

// stateDTypes says how states are stored; F32 where layers differ, so that who sets a state rounds nothing.
func (p *plan) stateDTypes(c *config.Config) engine.StateDTypes {
	merge := func(kind config.LayerKind, of func(*precision.Contract) precision.Round) string {
		out := ""
		for l, k := range c.Layers {
			if k != kind {
				continue
			}
			if dtype := of(p.contract(l, mixerPart(kind))).String(); out == "" || out == dtype {
				out = dtype
			} else {
				return precision.F32.String()
			}
		}
		if out == "" { // no layer of the kind
			return of(p.chosen.Contract).String()
		}
		return out
	}
	return engine.StateDTypes{
		Recurrent: merge(config.GatedDeltaNet, func(c *precision.Contract) precision.Round { return c.State }),
		Conv:      merge(config.GatedDeltaNet, func(c *precision.Contract) precision.Round { return c.Conv }),
		KV:        merge(config.FullAttention, func(c *precision.Contract) precision.Round { return c.KV }),
	}
}
