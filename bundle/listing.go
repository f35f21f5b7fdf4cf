package bundle

import (
	"fmt"
	"strings"

	"sibyl/bundle/aicode"
	"sibyl/config"
)

// Listing is what a bundle's program holds: every weight of every public function, with what is known of it without
// reading its bytes. Read adds what the bytes say.
type Listing struct {
	Program *aicode.Program
	Roles   map[string]*Roles // by function; nil where the graph is not of a known profile
	Weights []*Weight         // per function: quantized ones in the order of the operations, then plain ones
}

// Weight is a stored weight of one function. A function that shares a weight with another has a Weight of its own over the same bytes.
type Weight struct {
	Function string
	Use      string            // what its consumer is: linear, embedding, embedding+head, experts, norm, conv, bias, factor, shared, constant
	Chain    string            // operations from the weight to its consumer
	Quant    *aicode.Quantized // nil for a plain one
	Data     *aicode.Op        // the constant: the weight, or its q
	Parts    []*Use            // its roles, in the order of the math; nil where none was recognised

	Facts *Facts // nil until Read
}

// Facts are what a weight's bytes say.
type Facts struct {
	Scheme     string // "int8 symmetric", "u4 minval", "f16"
	QMin, QMax int64  // least and largest q of a quantized weight
	NaN, Inf   int64  // of a plain one, or of the scales
	SHA256     []Sum  // of data, scale, offset1, offset2 (or lut) as they are stored
	QThenScale string // sha256 of q, one byte a value row by row, then the scales: what the field's tools record
	Dequant    string // sha256 of the dense weight in the dtype it is computed in; "" where sibyl has no rule for it
	DequantAs  string // that dtype: "f16" or "bf16"
}

// Sum is the hash of a part of a weight.
type Sum struct{ Part, Hex string }

// Listing lists the weights. It reads no weight's bytes. A program of no known profile is listed without roles.
func (b *Bundle) Listing() (*Listing, error) {
	p, err := b.Program()
	if err != nil {
		return nil, err
	}
	l := &Listing{Program: p, Roles: map[string]*Roles{}}
	if profile, _, err := b.signature(); err == nil {
		for _, g := range p.Graphs {
			if !g.Private {
				l.Roles[g.Name] = RecoverRoles(p, g, profile)
			}
		}
	}
	for _, g := range p.Graphs {
		if err := l.graph(g); err != nil {
			return nil, b.Asset.fault(err)
		}
	}
	return l, nil
}

// graph lists a function's weights; of a composite only quantized ones, which exporters do not put there.
func (l *Listing) graph(g *aicode.Graph) error {
	c := chains{graphs: l.Program, top: map[*aicode.Op]bool{}}
	for _, op := range g.Body.Ops {
		c.top[op] = true
	}
	quantized := map[*aicode.Op]bool{}
	for _, op := range g.Body.Ops {
		q, err := op.Quantized()
		if err != nil {
			return err
		}
		if q == nil {
			continue
		}
		for _, v := range op.Operands {
			quantized[v.Def] = true
		}
		chain, use := c.follow(op)
		l.add(&Weight{Function: g.Name, Use: use, Chain: join(c.name(op), chain), Quant: q, Data: op.Operands[0].Def})
	}
	for _, op := range g.Body.Ops {
		if op.Const == nil || quantized[op] || g.Private || !op.Const.Type.Elem.IsFloat() || op.Const.Len() < 2 {
			continue
		}
		chain, use := c.follow(op)
		l.add(&Weight{Function: g.Name, Use: use, Chain: chain, Data: op})
	}
	return nil
}

func (l *Listing) add(w *Weight) {
	if r := l.Roles[w.Function]; r != nil {
		for _, u := range r.Of(w.Data) {
			if w.Quant == nil || u.Dequant == w.Quant.Op { // a tied table is two weights over the same bytes
				w.Parts = append(w.Parts, u)
			}
		}
	}
	l.Weights = append(l.Weights, w)
}

func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + " -> " + b
}

// chains follow weights to their consumers within a function's outermost operations.
type chains struct {
	graphs *aicode.Program
	top    map[*aicode.Op]bool
}

// name is an operation as chains print it; a call of a composite is named by that.
func (c *chains) name(op *aicode.Op) string {
	s := strings.TrimPrefix(strings.TrimPrefix(op.Name, "primitive."), "dataflow.")
	if s != "invoke_v1" {
		return s
	}
	if g := c.graphs.Graph(op.Callee); g != nil && g.Composite != "" {
		return "invoke " + g.Composite
	}
	return "invoke @" + op.Callee
}

// maxChain bounds a chain: real ones have three steps.
const maxChain = 6

// passing are operations that only rearrange a weight; the chain goes on behind them.
var passing = []string{"transpose", "reshape", "expand_dims", "blockwise", "cast"}

// follow goes from a weight through what only rearranges it to its consumer.
func (c *chains) follow(op *aicode.Op) (chain, use string) {
	use = "constant"
	var steps []string
	for range maxChain {
		if len(op.Results) == 0 {
			break
		}
		var users []*aicode.Op
		for _, u := range op.Results[0].Users {
			if c.top[u] {
				users = append(users, u)
			}
		}
		if len(users) == 0 {
			break
		}
		if len(users) > 1 {
			step, shared := c.several(users)
			steps = append(steps, step)
			if shared != "" {
				use = shared
			}
			break
		}
		op = users[0]
		name := c.name(op)
		steps = append(steps, name)
		if passes(name) {
			continue
		}
		if u := useOf(name); u != "" {
			use = u
		}
		break
	}
	return strings.Join(steps, " -> "), use
}

// several names the consumers of a weight that has more than one.
func (c *chains) several(users []*aicode.Op) (step, use string) {
	kinds, names := map[string]bool{}, []string{}
	for _, u := range users {
		kinds[c.name(u)] = true
		names = append(names, c.name(u))
	}
	switch {
	case kinds["gather_nd_v1"] && len(kinds) > 1:
		use = "embedding+head"
	case len(kinds) == 1:
		use = "shared"
	}
	return strings.Join(names, "|"), use
}

func passes(name string) bool {
	for _, p := range passing {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// useOf says what a consumer makes of a weight, "" if that is nothing special.
func useOf(name string) string {
	for _, c := range []struct{ prefix, use string }{
		{"broadcasting_batch_matmul", "linear"}, {"gather_nd", "embedding"}, {"conv2d", "conv"}, {"invoke gather_mm", "experts"},
		{"invoke", "norm"}, {"broadcasting_add", "bias"}, {"broadcasting_mul", "factor"},
	} {
		if strings.HasPrefix(name, c.prefix) {
			return c.use
		}
	}
	return ""
}

// Parameter is the weight's name in Apple's port, which fuses and renames some of a checkpoint's tensors; "" where no role was
// recognised. Source: apple/coreai-models, qwen3_5 (2026-09).
func (w *Weight) Parameter() string {
	if len(w.Parts) == 0 {
		return ""
	}
	u := w.Parts[0]
	layer := fmt.Sprintf("model.layers.%d.", u.Layer)
	fused := len(u.Spans) > 0
	switch {
	case u.Proj != "":
		return layer + "mlp.switch_mlp." + u.Proj + "_proj.weight"
	case u.Role == config.Conv1D && len(u.Shape) == 2:
		return layer + "linear_attn.conv_weight"
	case fused && u.Role >= config.InProjQKV && u.Role <= config.InProjA:
		return layer + "linear_attn.in_proj_all.weight"
	case fused && (u.Role == config.QNorm || u.Role == config.KNorm):
		return layer + "self_attn.qk_norm.weight"
	case fused:
		return layer + "self_attn.qkv_gate_proj.weight"
	case u.Role == config.Head:
		return "lm_head.weight"
	}
	return "model." + u.Name()
}
