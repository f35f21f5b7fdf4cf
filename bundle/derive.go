package bundle

import (
	"fmt"
	"math"
	"slices"

	"sibyl/bundle/aicode"
	"sibyl/config"
	"sibyl/internal/inputerr"
)

// deriver finds the configuration that a graph says.
type deriver struct {
	b       *Bundle
	profile Profile
	states  *States
	r       *Roles
	err     error
}

// unbounded stands for the positions of a bundle that says no limit: beyond it float32 does not tell positions apart.
const unbounded = 1 << 24

func (d *deriver) fail(field, found, want string) {
	if d.err == nil {
		d.err = &inputerr.Error{File: d.b.Asset.Path(), Field: field, Found: found, Want: want, Do: "this graph is not of the family, or was exported wrongly; the graph engine runs it as it is"}
	}
}

// shape is the stored shape of a role in the first layer that has it, nil if none does.
func (d *deriver) shape(role config.Role, proj string) []int {
	for i := range d.r.Uses {
		if u := &d.r.Uses[i]; u.Role == role && u.Proj == proj {
			if u.Spans == nil {
				return u.Shape
			}
			n := 0
			for _, s := range u.Spans {
				n += s.N
			}
			return append([]int{n}, u.Shape[1:]...)
		}
	}
	d.fail(role.String(), "no weight of that role", "one")
	return []int{1, 1, 1, 1}
}

// static is a state's dimension, which must not be dynamic.
func (d *deriver) static(a *aicode.Arg, i int) int {
	n := a.Type.Of.Dims[i]
	if n < 1 || n > 1<<20 {
		d.fail("state "+a.Name, a.Type.Of.String(), fmt.Sprintf("a fixed dimension %d of 1 or more", i))
		return 1
	}
	return int(n)
}

// config derives the configuration from states, shapes and constants.
func (d *deriver) config() (*config.Config, error) {
	s := d.states
	c := &config.Config{File: d.b.Asset.Path(), ModelType: "qwen3_5", NumLayers: len(d.r.Layers), RMSNormEps: shortest(d.r.eps), MRopeInterleaved: true}
	embed := d.shape(config.Embed, "")
	c.VocabSize, c.HiddenSize = embed[0], embed[len(embed)-1]
	full := 0
	for _, l := range d.r.Layers {
		if c.Layers = append(c.Layers, l.Kind); l.Kind == config.FullAttention {
			full++
		}
	}
	c.NumKVHeads, c.HeadDim = d.static(s.Key, 2), d.static(s.Key, 4)
	c.NumHeads = d.shape(config.QProj, "")[0] / (2 * c.HeadDim)
	c.ValueHeads, c.KeyDim, c.ValueDim = d.static(s.Recurrent, 2), d.static(s.Recurrent, 3), d.static(s.Recurrent, 4)
	channels := d.static(s.Conv, 2)
	conv := d.shape(config.Conv1D, "")
	c.ConvKernel = conv[len(conv)-1]
	if !d.profile.Step {
		channels, c.ConvKernel = d.static(s.Conv, 3), conv[0]
	}
	c.KeyHeads = (channels - c.ValueHeads*c.ValueDim) / (2 * c.KeyDim)
	for _, n := range []struct {
		a    *aicode.Arg
		want int
	}{{s.Key, full}, {s.Recurrent, c.NumLayers - full}, {s.Conv, c.NumLayers - full}} {
		if got := d.static(n.a, 0); got != n.want {
			d.fail("state "+n.a.Name, fmt.Sprintf("%d rows", got), fmt.Sprintf("%d, one for each layer of its kind", n.want))
		}
	}
	c.RotaryDim = 2 * len(d.invFreq())
	c.MRopeSection = [3]int{c.RotaryDim / 2, 0, 0} // positions have one axis
	c.RopeTheta = d.theta(c.RotaryDim)
	d.feedForward(c)
	c.TieWordEmbeddings = d.tied()
	c.MaxPositions = unbounded
	if d.b.Language != nil {
		c.MaxPositions = d.b.Language.MaxContext
		if v := d.b.Language.VocabSize; v != c.VocabSize && d.err == nil {
			d.err = &inputerr.Error{File: d.b.dir.show(metadataFile), Field: "language.vocab_size", Found: fmt.Sprint(v), Want: fmt.Sprintf("%d, the rows of the graph's embedding", c.VocabSize),
				Do: "metadata and .aimodel belong to different models: export the bundle again"}
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	return c, c.Check()
}

func (d *deriver) feedForward(c *config.Config) {
	if d.r.topK == 0 {
		c.IntermediateSize = d.shape(config.GateProj, "")[0]
		return
	}
	c.ModelType = "qwen3_5_moe"
	gate := d.shape(config.ExpertsGateUp, "gate")
	c.MoE = &config.MoE{NumExperts: gate[1], TopK: d.r.topK, IntermediateSize: gate[2], SharedIntermediateSize: d.shape(config.SharedGateProj, "")[0]}
}

// tied says whether embedding and head are the same bytes of the file.
func (d *deriver) tied() bool {
	embed, head := d.r.Find(config.Embed, -1, ""), d.r.Find(config.Head, -1, "")
	if embed == nil || head == nil {
		d.fail("head", "none", "a matrix that makes the logits")
		return false
	}
	a, b := embed.consts(), head.consts()
	return slices.EqualFunc(a, b, func(x, y *aicode.Const) bool {
		return x.Offset == y.Offset && len(x.Data) == len(y.Data)
	})
}

// invFreq are the inverse frequencies as stored.
func (d *deriver) invFreq() []float32 {
	if d.r.InvFreq == nil {
		d.fail("rope", "no inverse frequencies", "cos(position * constant)")
		return nil
	}
	k := d.r.InvFreq.Const
	out := make([]float32, 0, len(k.Data)/4)
	for i := range min(k.Len(), 1<<12) {
		out = append(out, float32(k.Float(i)))
	}
	return out
}

// theta is the base of the stored frequencies as far as they tell: 1/f[j] = theta^(2j/rot), and the last is the
// largest power; 0 where there is no second one. It is shown, and never computed with.
func (d *deriver) theta(rot int) float64 {
	f := d.invFreq()
	if len(f) < 2 || f[len(f)-1] <= 0 {
		return 0
	}
	n := len(f) - 1
	theta := math.Pow(1/float64(f[n]), float64(rot)/float64(2*n))
	round := math.Pow(10, math.Floor(math.Log10(theta))-3)
	return math.Round(theta/round) * round
}

// shortest is the shortest decimal that float32 rounds to the same value: 1e-6 for the float32 nearest to it.
func shortest(x float64) float64 {
	var out float64
	if _, err := fmt.Sscan(fmt.Sprint(float32(x)), &out); err != nil {
		return x
	}
	return out
}
