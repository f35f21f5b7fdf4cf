package precision

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Part is a set of parts of the decoder: where a setting has an effect, and what the rules of a file choose among.
type Part uint16

// The parts, in the order of the math.
const (
	PartEmbed Part = 1 << iota
	PartInputNorm
	PartLinearAttn // the GatedDeltaNet mixer
	PartSelfAttn   // the attention mixer, its q and k norm among it
	PartPostAttnNorm
	PartMLP
	PartMoE
	PartFinalNorm
	PartHead

	partMixer      = PartLinearAttn | PartSelfAttn
	partMLPs       = PartMLP | PartMoE
	partEverywhere = PartEmbed | PartInputNorm | partMixer | PartPostAttnNorm | partMLPs | PartFinalNorm | PartHead
)

// partNames are the words for parts, larger sets before what they hold.
var partNames = []struct {
	part Part
	name string
}{
	{partEverywhere, "everywhere"}, {PartEmbed, "embed"}, {PartInputNorm, "input_norm"}, {partMixer, "mixer"},
	{PartLinearAttn, "linear_attn"}, {PartSelfAttn, "self_attn"}, {PartPostAttnNorm, "post_attn_norm"}, {partMLPs, "mlp"},
	{PartMLP, "dense_mlp"}, {PartMoE, "moe"}, {PartFinalNorm, "final_norm"}, {PartHead, "head"},
}

// String lists the parts: "mixer, mlp".
func (p Part) String() string {
	var out []string
	for _, n := range partNames {
		if p&n.part == n.part {
			out, p = append(out, n.name), p&^n.part
		}
	}
	return strings.Join(out, ", ")
}

// Setting is one line of a contract: a rounding point, a stored type or a choice between two forms.
type Setting struct {
	Name    string // in YAML and in the printed table
	Group   string // of which part of the math or kind it is, for tables
	Meaning string // one phrase
	Parts   Part   // where it has an effect

	round  func(*Contract) *Round
	flag   func(*Contract) *bool
	number func(*Contract) *float32
}

// pointParts: where each point is met. Source: the calls of Contract.Round in gdn, attention and model; a test of model
// switches each alone.
func pointParts(p Point) Part {
	switch {
	case p == Embed:
		return PartEmbed
	case p == Norm:
		return PartInputNorm | PartSelfAttn | PartPostAttnNorm | PartFinalNorm
	case p == Linear || p == Residual:
		return partMixer | partMLPs
	case p <= GatedOut:
		return PartLinearAttn
	case p <= AttnGated:
		return PartSelfAttn
	case p <= MLPMul:
		return partMLPs
	case p <= MoEOut:
		return PartMoE
	}
	return PartHead
}

// pointGroup heads a table's rows.
func pointGroup(p Point) string {
	switch {
	case p <= Linear:
		return "embedding, norms, linears"
	case p <= GatedOut:
		return "linear attention (GatedDeltaNet)"
	case p <= AttnGated:
		return "attention"
	case p <= MLPMul:
		return "residual stream, MLP"
	case p <= MoEOut:
		return "mixture of experts"
	}
	return "head"
}

var settings = makeSettings()

func makeSettings() (out []Setting) {
	for p := range NumPoints {
		out = append(out, Setting{Name: p.String(), Group: pointGroup(p), Meaning: p.Meaning(), Parts: pointParts(p),
			round: func(c *Contract) *Round { return &c.At[p] }})
	}
	const stored, forms = "weights and states as stored", "constants and forms"
	return append(out,
		Setting{Name: "weights", Group: stored, Meaning: "stored weights before use", Parts: partEverywhere,
			round: func(c *Contract) *Round { return &c.Weights }},
		Setting{Name: "state", Group: stored, Meaning: "recurrent state as stored", Parts: PartLinearAttn,
			round: func(c *Contract) *Round { return &c.State }},
		Setting{Name: "conv", Group: stored, Meaning: "conv state as stored", Parts: PartLinearAttn, round: func(c *Contract) *Round { return &c.Conv }},
		Setting{Name: "kv", Group: stored, Meaning: "keys and values as stored", Parts: PartSelfAttn, round: func(c *Contract) *Round { return &c.KV }},
		Setting{Name: "scale_round", Group: forms, Meaning: "the constant hd^-0.5 itself", Parts: PartSelfAttn,
			round: func(c *Contract) *Round { return &c.ScaleRound }},
		Setting{Name: "l2_eps_value", Group: forms, Meaning: "l2norm: the constant eps itself", Parts: PartLinearAttn,
			number: func(c *Contract) *float32 { return &c.L2Eps }},
		Setting{Name: "state_per_call", Group: forms, Meaning: "state rounded once a call, not a token", Parts: PartLinearAttn,
			flag: func(c *Contract) *bool { return &c.StatePerCall }},
		Setting{Name: "softplus3", Group: forms, Meaning: "softplus as three ops, log(1+exp(x))", Parts: PartLinearAttn,
			flag: func(c *Contract) *bool { return &c.Softplus3 }},
		Setting{Name: "q_divide", Group: forms, Meaning: "q / dk^0.5 instead of q * dk^-0.5", Parts: PartLinearAttn,
			flag: func(c *Contract) *bool { return &c.QDivide }},
		Setting{Name: "scale_scores", Group: forms, Meaning: "hd^-0.5 scales the scores, not q", Parts: PartSelfAttn,
			flag: func(c *Contract) *bool { return &c.ScaleScores }},
		Setting{Name: "softmax_late", Group: forms, Meaning: "divides after weights . v (flash form)", Parts: PartSelfAttn,
			flag: func(c *Contract) *bool { return &c.SoftmaxLate }},
		Setting{Name: "experts_by_id", Group: forms, Meaning: "experts summed by id, not in top-k order", Parts: PartMoE,
			flag: func(c *Contract) *bool { return &c.ExpertsByID }},
		Setting{Name: "softmax_chosen", Group: forms, Meaning: "router softmax over the chosen logits", Parts: PartMoE,
			flag: func(c *Contract) *bool { return &c.SoftmaxChosen }},
	)
}

// Settings lists what a contract says: the points in the order of the math, stored types, forms.
func Settings() []Setting { return settings }

// SettingNames lists the names of Settings.
func SettingNames() (out []string) {
	for i := range settings {
		out = append(out, settings[i].Name)
	}
	return out
}

func settingOf(name string) *Setting {
	i := slices.IndexFunc(settings, func(s Setting) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &settings[i]
}

// Value is the setting's value in c: a Round, a bool or a float32.
func (s *Setting) Value(c *Contract) any {
	switch {
	case s.round != nil:
		return *s.round(c)
	case s.flag != nil:
		return *s.flag(c)
	}
	return *s.number(c)
}

// Text is the setting's value in c as YAML writes it: "F16", "true", "1e-06".
func (s *Setting) Text(c *Contract) string { return fmt.Sprint(s.Value(c)) }

// Want says what values the setting takes.
func (s *Setting) Want() string {
	switch {
	case s.round != nil:
		return "F32, F16 or BF16"
	case s.flag != nil:
		return "true or false"
	}
	return "a number from 0 to 1"
}

// set reads text into c and says whether it is a value of the setting.
func (s *Setting) set(c *Contract, text string) bool {
	switch {
	case s.round != nil:
		for r := range BF16 + 1 {
			if text == r.String() {
				*s.round(c) = r
				return true
			}
		}
		return false
	case s.flag != nil:
		*s.flag(c) = text == "true"
		return text == "true" || text == "false"
	}
	v, err := strconv.ParseFloat(text, 32)
	if err != nil || !(v >= 0 && v <= 1) || math.Signbit(v) {
		return false
	}
	*s.number(c) = float32(v)
	return true
}

// Flip changes the setting in c to another value: F32 to BF16, a rounding to F32, a flag to its opposite, a number to
// a larger one. It is for tests that ask whether a setting matters.
func (s *Setting) Flip(c *Contract) {
	switch {
	case s.round != nil && *s.round(c) == F32:
		*s.round(c) = BF16
	case s.round != nil:
		*s.round(c) = F32
	case s.flag != nil:
		*s.flag(c) = !*s.flag(c)
	default:
		*s.number(c) = *s.number(c)*8 + 0x1p-10
	}
}
