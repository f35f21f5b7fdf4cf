package faults

import (
	"math/rand/v2"

	"sibyl/internal/ragged"
	"sibyl/model"
)

var headFaults = []*Fault{
	{
		Name: "head-tied", Part: Whole, Partial: "the head lies between its own and the embedding",
		Mistake: "head tied when it is not",
		decoder: func(s *subject, strength float32) error {
			if s.d.Config.TieWordEmbeddings {
				return bad("head-tied", "a model with tied embeddings", "one with a head of its own")
			}
			embed := rowsOf(s.d.Embed)
			edit(&s.d.Head, func(rows [][]float32) [][]float32 { return between(rows, embed, strength) })
			return nil
		},
	},
	{
		Name: "head-untied", Part: Whole, Partial: "the head lies between the embedding and the random one",
		Mistake: "head not tied when it is: a head that nobody loaded, with the weights it was initialised to",
		decoder: func(s *subject, strength float32) error {
			if !s.d.Config.TieWordEmbeddings {
				return bad("head-untied", "a model with a head of its own", "one with tied embeddings")
			}
			rng := rand.New(rand.NewPCG(1, 2))
			edit(&s.d.Head, func(rows [][]float32) [][]float32 {
				init := make([][]float32, len(rows))
				for i := range init {
					init[i] = make([]float32, len(rows[i]))
					for j := range init[i] {
						init[i][j] = float32(0.02 * rng.NormFloat64()) // transformers' initializer_range
					}
				}
				return between(rows, init, strength)
			})
			return nil
		},
	},
}

func between(rows, wrong [][]float32, s float32) [][]float32 {
	for i := range rows {
		mix(rows[i], wrong[i], s)
	}
	return rows
}

var moeFaults = []*Fault{
	{
		Name: "router-not-renormalised", Part: MoE, Partial: "that power of the sum is not divided by",
		Mistake: "router weights not renormalised",
		layer: func(s *subject, l int, strength float32) error {
			layer := &s.d.Layers[l]
			layer.MLP = &notRenormalised{layer.MLP, strength}
			return nil
		},
	},
	{
		Name: "experts-reordered", Part: MoE,
		Mistake: "experts summed in another order",
		Why:     "the order moves a sum of 8 terms by some of its last bits: it is a rounding",
		layer: func(s *subject, l int, _ float32) error {
			m := s.d.Layers[l].MLP.(*model.MoE)
			c := *m.Contract
			c.ExpertsByID = !c.ExpertsByID
			m.Contract = &c
			return nil
		},
	},
}

// notRenormalised makes the sum that router weights are divided by sum^(1-s). A MoE asks for the sums of all rows first.
type notRenormalised struct {
	inner    model.FeedForward
	strength float32
}

// Forward implements model.FeedForward.
func (n *notRenormalised) Forward(out, x []float32, batch *ragged.Batch) {
	sound := batch.Arith
	own, calls := *sound, 0
	own.Sum = func(x []float32) float32 {
		sum := sound.Sum(x)
		if calls++; calls <= batch.Rows {
			return pow(sum, 1-n.strength)
		}
		return sum
	}
	batch.Arith = &own
	n.inner.Forward(out, x, batch)
	batch.Arith = sound
}
