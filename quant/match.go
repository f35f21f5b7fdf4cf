package quant

import (
	"fmt"
	"path"
	"strings"

	"sibyl/config"
	"sibyl/internal/inputerr"
	"sibyl/internal/strictyaml"
)

// matcher applies a scheme tensor by tensor and remembers which patterns were of use.
type matcher struct {
	s    *Scheme
	tied bool
	used [][]bool // by rule and pattern: whether it matched a tensor
	won  []bool   // by rule: whether it was the first to match one
}

func newMatcher(s *Scheme, tied bool) *matcher {
	m := &matcher{s: s, tied: tied, used: make([][]bool, len(s.rules)), won: make([]bool, len(s.rules))}
	for i, r := range s.rules {
		m.used[i] = make([]bool, len(r.match))
	}
	return m
}

// spec gives what the scheme says of a tensor: the first rule that matches.
func (m *matcher) spec(r config.Role, layer int) (Spec, error) {
	if m.s.rules == nil {
		return m.s.spec(r), nil
	}
	full, role := r.Name(layer), r.String()
	first := -1
	for i, rule := range m.s.rules {
		for k, p := range rule.match {
			if matches(p.Text, role) || matches(p.Text, full) {
				m.used[i][k] = true
				if first < 0 {
					first, m.won[i] = i, true
				}
			}
		}
	}
	if first < 0 && r == config.Head && m.tied {
		return m.spec(config.Embed, 0)
	}
	if first < 0 {
		return m.s.Rest, nil
	}
	spec := m.s.rules[first].spec
	if spec.Format.Quantized() && partOf(r) == rest {
		return Spec{}, &inputerr.Error{File: m.s.at(first, 0), Field: fmt.Sprintf("rules[%d]", first), Found: fmt.Sprintf("%s for %s", spec, full),
			Want: "projections, experts, lm_head or embed_tokens only", Do: `norms, conv1d, A_log, dt_bias, router and shared_expert_gate are never quantized: match "*_proj*", or put a rule with scheme fp16 before it`}
	}
	return spec, nil
}

// at is the line of a rule's pattern, for messages.
func (s *Scheme) at(rule, pattern int) string {
	return strictyaml.At(s.File, s.rules[rule].match[pattern].Line)
}

// matches is path.Match, with or without ".weight"; the patterns were checked and names hold no slash.
func matches(pattern, name string) bool {
	whole, _ := path.Match(pattern, name)
	short, _ := path.Match(pattern, strings.TrimSuffix(name, ".weight"))
	return whole || short
}

// unused reports the first pattern that matched nothing, or rule that came too late for all it matched.
func (m *matcher) unused(s *Scheme) error {
	for i, used := range m.used {
		for k, ok := range used {
			if !ok {
				return &inputerr.Error{File: s.at(i, k), Field: fmt.Sprintf("rules[%d].match", i), Found: inputerr.Clip(s.rules[i].match[k].Text, 80) + ", which matches no tensor of this model",
					Want: "a role or a name with wildcards", Do: `inspect --tensors lists names; leave the prefix "model.language_model." out`}
			}
		}
		if !m.won[i] {
			return &inputerr.Error{File: s.at(i, 0), Field: fmt.Sprintf("rules[%d]", i), Found: "a rule that is never the first to match", Want: "rules in the order of their precedence",
				Do: "put it before the wider ones, or remove it"}
		}
	}
	return nil
}
