package bundle

import "sibyl/config"

// Group is a part of the model for sums of bytes.
type Group uint8

// The groups, in the order of the math.
const (
	Embedding     Group = iota
	Norms               // input, post-attention and final norm, q_norm and k_norm, the gated norm
	GatedDeltaNet       // projections, conv, A_log, dt_bias
	Attention           // projections
	MLP                 // dense MLP, or router, shared expert and its gate
	Experts             // routed experts
	Head                // 0 when tied
	NumGroups
)

// String names the group as inspect prints it.
func (g Group) String() string {
	return [...]string{"embedding", "norms", "GatedDeltaNet", "attention", "MLP", "experts", "head"}[g]
}

// GroupOf says where a role is counted.
func GroupOf(r config.Role) Group {
	switch {
	case r == config.Embed:
		return Embedding
	case r == config.Head:
		return Head
	case r == config.FinalNorm, r == config.InputNorm, r == config.PostAttnNorm, r == config.GatedNorm, r == config.QNorm, r == config.KNorm:
		return Norms
	case r >= config.InProjQKV && r <= config.OutProj:
		return GatedDeltaNet
	case r >= config.QProj && r <= config.OProj:
		return Attention
	case r == config.ExpertsGateUp, r == config.ExpertsDown:
		return Experts
	}
	return MLP
}

// Sizes are bytes of weights in use as they are stored.
type Sizes struct {
	Stored [NumGroups]int64
	// PerToken is what decoding one token must read: one row of the embedding, the routed share of the experts,
	// and all of everything else; a tied head reads the whole embedding once more (under Head).
	PerToken [NumGroups]int64
}

// Total is the sum of Stored.
func (s Sizes) Total() int64 { return sum(s.Stored) }

// TotalPerToken is the sum of PerToken.
func (s Sizes) TotalPerToken() int64 { return sum(s.PerToken) }

func sum(x [NumGroups]int64) (n int64) {
	for _, v := range x {
		n += v
	}
	return n
}

// Sizes adds up the weights in use. It reads headers only.
func (w *weights) Sizes() Sizes {
	var s Sizes
	add := func(r config.Role, l int) {
		g := GroupOf(r)
		var n int64
		if t, ok := w.get(r, l); ok {
			n = t.Bytes()
		} else if g == Experts && w.experts[l] != nil {
			for _, p := range single(w.experts[l], r) {
				n += p.Bytes()
			}
		}
		s.Stored[g] += n
		switch g {
		case Embedding:
			n /= int64(w.cfg.VocabSize)
		case Experts:
			n = n / int64(w.cfg.MoE.NumExperts) * int64(w.cfg.MoE.TopK)
		}
		s.PerToken[g] += n
	}
	add(config.Embed, 0)
	for l, kind := range w.cfg.Layers {
		for _, r := range w.cfg.LayerRoles(kind) {
			add(r, l)
		}
	}
	add(config.FinalNorm, 0)
	add(config.Head, 0)
	if w.cfg.TieWordEmbeddings {
		s.PerToken[Head] = s.Stored[Embedding]
	}
	return s
}
