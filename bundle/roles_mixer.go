package bundle

import (
	"fmt"
	"slices"

	"sibyl/bundle/aicode"
	"sibyl/config"
)

// part is a linear's result, or a range of a fused linear's columns: rows [lo, hi) of its matrix.
type part struct {
	lin    *aicode.Op
	v      *aicode.Value
	lo, hi int // both 0 for the whole
}

// parts lists what n's linears make: zoo-s1 has a matrix for each, apple-q35 fused ones that are sliced.
func (w *walker) parts(n *aicode.Value) []part {
	var out []part
	for _, lin := range w.linears(n) {
		slices := w.cuts(lin)
		if len(slices) == 0 {
			slices = []part{{lin: lin, v: result(lin)}}
		}
		out = append(out, slices...)
	}
	return out
}

// cuts are the slices of a fused linear's columns, whichever axis they are on after a reshape into heads: lo and hi are
// columns of the product.
func (w *walker) cuts(lin *aicode.Op) []part {
	dims := result(lin).Type.Dims
	if len(dims) == 0 {
		return nil
	}
	cols := int(dims[len(dims)-1])
	var out []part
	for _, u := range w.uses(result(lin)) {
		in := u.op.Operands[0].Type.Dims
		if w.kind(u.op) != "slice" || u.operand != 0 || result(u.op) == nil || len(in) == 0 {
			continue
		}
		// [1, S, cols] is cut along its last axis, [1, heads, S, hd] along its heads.
		axis, unit := len(in)-1, 1
		if len(in) == 4 {
			axis, unit = 1, int(in[3])
		}
		if lo, hi, ok := span(u.op, axis); ok && hi*unit <= cols && unit > 0 {
			out = append(out, part{lin, result(u.op), lo * unit, hi * unit})
		}
	}
	return out
}

// use is the weight of a part: the matrix, or those of its rows that the part is.
func (w *walker) use(p part) *Use {
	u := w.weight(p.lin.Operands[1], p.lin, true)
	if u != nil && p.hi > 0 {
		u.Spans = []Span{{From: p.lo, To: 0, N: p.hi - p.lo}}
	}
	return u
}

// mixer reads a mixer from the norm's result n and says which kind it is.
func (w *walker) mixer(n *aicode.Value) config.LayerKind {
	parts := w.parts(n)
	for _, p := range parts {
		if _, ok := w.convolved(p.v); ok {
			w.deltaNet(parts)
			return config.GatedDeltaNet
		}
	}
	for _, p := range parts {
		if w.cached(p.v) {
			w.attention(parts)
			return config.FullAttention
		}
	}
	var op *aicode.Op
	if n != nil {
		op = n.Def
	}
	w.problem(op, fmt.Sprintf("a mixer of %d linears that reaches neither conv nor KV cache", len(parts)), "GatedDeltaNet or gated attention")
	return config.FullAttention
}

// convolved is the concatenation of v with the conv's history.
func (w *walker) convolved(v *aicode.Value) (*aicode.Op, bool) {
	u, ok := w.first(v, "concat")
	return u.op, ok && result(u.op) != nil
}

// cached says whether v is written to a cache as it is: the values of attention.
func (w *walker) cached(v *aicode.Value) bool {
	u, ok := w.first(v, "slice_update")
	return ok && u.operand != 0
}

// deltaNet tells the parts of GatedDeltaNet apart: qkv goes to the conv, b through sigmoid, z through silu, a is added to
// dt_bias.
func (w *walker) deltaNet(parts []part) {
	roles := map[config.Role]int{}
	var z, a *aicode.Value
	for _, p := range parts {
		role := config.NumRoles
		if _, ok := w.convolved(p.v); ok {
			role = config.InProjQKV
		} else if _, ok := w.first(p.v, "sigmoid"); ok {
			role = config.InProjB
		} else if _, ok := w.first(p.v, "silu"); ok {
			role, z = config.InProjZ, p.v
		} else if _, ok := w.first(p.v, "add"); ok {
			role, a = config.InProjA, p.v
		}
		if role == config.NumRoles {
			w.problem(p.lin, "a linear of unknown use in GatedDeltaNet", "one of in_proj_qkv, _z, _b, _a")
			continue
		}
		if roles[role]++; roles[role] > 1 {
			w.problem(p.lin, "a second "+role.String(), "one")
			continue
		}
		w.add(w.use(p), role)
		if role == config.InProjQKV {
			w.conv(p.v)
		}
	}
	for _, role := range []config.Role{config.InProjQKV, config.InProjZ, config.InProjB, config.InProjA} {
		if roles[role] == 0 && len(parts) > 0 {
			w.problem(parts[0].lin, "no "+role.String()+" beside this linear", "one")
		}
	}
	w.decay(a)
	w.gatedNorm(z)
}

// conv is the depthwise conv that reads the rows of qkv behind their history: one operation, or a product for each tap.
func (w *walker) conv(qkv *aicode.Value) {
	cat, _ := w.convolved(qkv)
	if u, ok := w.first(result(cat), "conv2d"); ok && len(u.op.Operands) > 1 {
		w.add(w.weight(u.op.Operands[1], u.op, false), config.Conv1D)
		return
	}
	for _, s := range w.uses(result(cat)) {
		if w.kind(s.op) != "slice" {
			continue
		}
		u, ok := w.first(result(s.op), "mul")
		if !ok || u.other() == nil {
			continue
		}
		if tap := back(u.other()); tap != nil && w.kind(tap) == "slice" && constant(operand(tap, 0)) != nil {
			w.add(w.weight(tap.Operands[0], u.op, false), config.Conv1D)
			return
		}
	}
	w.problem(cat, "rows behind their history that meet no weight", "the depthwise conv")
}

// decay finds dt_bias, which a is added to, and A_log, which softplus of the sum is multiplied by.
func (w *walker) decay(a *aicode.Value) {
	if a == nil {
		return
	}
	sum, _ := w.first(a, "add")
	bias := w.weight(sum.other(), sum.op, false)
	if bias != nil && bias.Data.Const.Type.Elem == aicode.F32 {
		bias.Form = Upcast
	}
	steps := []string{"exp", "add", "log", "greater", "where", "mul", "maximum"}
	seen := map[*aicode.Op]bool{}
	for todo := []*aicode.Value{result(sum.op)}; len(todo) > 0; todo = todo[1:] {
		for _, u := range w.uses(todo[0]) {
			if !slices.Contains(steps, w.kind(u.op)) || seen[u.op] {
				continue
			}
			if seen[u.op] = true; w.kind(u.op) == "mul" {
				if log := w.rate(u); log != nil {
					w.add(log, config.ALog)
					w.add(bias, config.DtBias)
					return
				}
			}
			todo = append(todo, result(u.op))
		}
	}
	w.add(bias, config.DtBias)
	w.problem(sum.op, "a sum with dt_bias that meets no A_log", "softplus(a + dt_bias) * -exp(A_log)")
}

// rate is the constant beside softplus: -exp(A_log) folded, or A_log of which the graph makes it.
func (w *walker) rate(u use) *Use {
	v := u.other()
	if v == nil {
		return nil
	}
	if c := constant(v); c != nil {
		if n, _ := elements(c.Const.Type); n < 2 {
			return nil
		}
		out := w.weight(v, u.op, false)
		if out != nil {
			out.Form = NegExp
		}
		return out
	}
	if neg := back(v); neg != nil && (w.kind(neg) == "mul" || w.kind(neg) == "neg") {
		for _, o := range neg.Operands {
			if exp := back(o); exp != nil && w.kind(exp) == "exp" && constant(operand(exp, 0)) != nil {
				return w.weight(exp.Operands[0], u.op, false)
			}
		}
	}
	return nil
}

// gatedNorm goes from z through silu to the product with the norm of the recurrence's out, and on to out_proj.
func (w *walker) gatedNorm(z *aicode.Value) {
	if z == nil {
		return
	}
	silu, _ := w.first(z, "silu")
	u, ok := w.first(result(silu.op), "mul")
	if !ok {
		w.problem(silu.op, "silu(z) that is multiplied with nothing", "the gated norm")
		return
	}
	if norm := back(u.other()); norm != nil && w.kind(norm) == "rms_norm" && len(norm.Operands) > 1 {
		w.gainLike(norm, config.GatedNorm)
	} else {
		w.problem(u.op, "silu(z) beside something that is no norm", "rms_norm(core, w) * silu(z)")
	}
	w.outProj(u.op, config.OutProj)
}

// gainLike is gain for the one norm whose gain is w itself.
func (w *walker) gainLike(norm *aicode.Op, role config.Role) {
	n := len(w.r.Uses)
	w.gain(norm, role)
	if len(w.r.Uses) > n {
		w.r.Uses[n].Form = AsIs
	}
}

// outProj is the linear that reads what op makes.
func (w *walker) outProj(op *aicode.Op, role config.Role) {
	if lin := w.linears(result(op)); len(lin) > 0 {
		w.add(w.weight(lin[0].Operands[1], lin[0], true), role)
		return
	}
	w.problem(op, "a mixer's result that meets no weight", role.String())
}

// attention tells the parts of gated attention apart: v is cached as it is, what is normed is q or k, the gate goes
// through sigmoid. The cache says how many kv heads there are, and of which width.
func (w *walker) attention(parts []part) {
	cache := state(w.g, "keyCache") // Recognise saw it
	kv, hd := int(cache.Type.Of.Dims[2]), int(cache.Type.Of.Dims[4])
	if kv < 1 || hd < 1 {
		w.problem(parts[0].lin, "a cache "+cache.Type.Of.String(), "[layers, 1, kv heads, tokens, head_dim]")
		return
	}
	if parts[0].hi > 0 {
		w.fusedAttention(parts, kv, hd)
	} else {
		w.plainAttention(parts)
	}
	sdpa := w.sdpa(parts)
	if sdpa == nil {
		return
	}
	gated, ok := w.first(result(sdpa), "mul")
	if !ok {
		w.problem(sdpa, "attention whose result is multiplied with nothing", "out * sigmoid(gate)")
		return
	}
	w.outProj(gated.op, config.OProj)
}

// sdpa is the call of attention that the cached values reach: the first one after the mixer's linears.
func (w *walker) sdpa(parts []part) *aicode.Op {
	for _, op := range w.g.Body.Ops[parts[0].lin.Index:] {
		if w.kind(op) == "scaled_dot_product_attention" && len(op.Operands) >= 3 && result(op) != nil {
			return op
		}
	}
	w.problem(parts[0].lin, "values that are cached and no attention after them", "scaled_dot_product_attention")
	return nil
}

// plainAttention is zoo-s1's: three linears.
func (w *walker) plainAttention(parts []part) {
	roles := map[config.Role]bool{}
	take := func(p part, role config.Role) {
		if roles[role] {
			w.problem(p.lin, "a second "+role.String(), "one")
			return
		}
		roles[role] = true
		w.add(w.use(p), role)
	}
	for _, p := range parts {
		if s, ok := w.first(p.v, "split"); ok {
			take(p, config.QProj)
			for _, half := range s.op.Results {
				if norm, ok := w.first(half, "rms_norm"); ok {
					w.gain(norm.op, config.QNorm)
				}
			}
		} else if norm, ok := w.first(p.v, "rms_norm"); ok {
			take(p, config.KProj)
			w.gain(norm.op, config.KNorm)
		} else if w.cached(p.v) {
			take(p, config.VProj)
		} else {
			w.problem(p.lin, "a linear of unknown use in attention", "one of q_proj, k_proj, v_proj")
		}
	}
	for _, role := range []config.Role{config.QProj, config.KProj, config.VProj} {
		if !roles[role] {
			w.problem(parts[0].lin, "no "+role.String()+" beside this linear", "one")
		}
	}
}

// fusedAttention is apple-q35's: rows [query of all heads | keys | values | gate of all heads], where q_proj of a
// checkpoint has query and gate head by head. One norm serves queries and keys.
func (w *walker) fusedAttention(parts []part, kv, hd int) {
	heads := 0
	for _, p := range parts {
		if norm, ok := w.first(p.v, "rms_norm"); ok && (p.hi-p.lo)%hd == 0 && (p.hi-p.lo)/hd > kv && heads == 0 {
			heads = (p.hi-p.lo)/hd - kv
			w.queriesAndKeys(p, norm.op, heads, kv, hd)
		}
	}
	for _, p := range parts {
		rows := p.hi - p.lo
		if _, ok := w.first(p.v, "rms_norm"); ok {
			continue
		} else if w.cached(p.v) && rows == kv*hd {
			w.add(w.use(p), config.VProj)
		} else if _, ok := w.first(p.v, "sigmoid"); ok && rows == heads*hd {
			w.gate(p, heads, hd)
		} else {
			w.problem(p.v.Def, fmt.Sprintf("rows %d..%d of unknown use in attention", p.lo, p.hi), "queries and keys, values or gates")
		}
	}
	if heads == 0 {
		w.problem(parts[0].lin, "no rows that are normed as queries and keys", fmt.Sprintf("heads of %d, %d of them keys", hd, kv))
	}
}

// queriesAndKeys are the rows that one norm serves.
func (w *walker) queriesAndKeys(p part, norm *aicode.Op, heads, kv, hd int) {
	q, k := w.use(p), w.use(p)
	if q == nil {
		return
	}
	q.Spans, k.Spans = nil, []Span{{From: p.lo + heads*hd, To: 0, N: kv * hd}}
	for h := range heads {
		q.Spans = append(q.Spans, Span{From: p.lo + h*hd, To: 2 * h * hd, N: hd})
	}
	w.add(q, config.QProj)
	w.add(k, config.KProj)
	w.headNorms(norm, heads, kv)
}

// gate completes q_proj, whose query rows were met before.
func (w *walker) gate(p part, heads, hd int) {
	q := w.r.Find(config.QProj, w.layer, "")
	if q == nil {
		w.problem(p.v.Def, "gates without queries", "queries beside them")
		return
	}
	for h := range heads {
		q.Spans = append(q.Spans, Span{From: p.lo + h*hd, To: (2*h + 1) * hd, N: hd})
	}
}

// headNorms is the norm over queries and keys: gains [heads+kv, 1, hd].
func (w *walker) headNorms(norm *aicode.Op, heads, kv int) {
	n := len(w.r.Uses)
	w.gain(norm, config.QNorm)
	if len(w.r.Uses) == n {
		return
	}
	q := &w.r.Uses[n]
	if len(q.Shape) != 3 || q.Shape[0] != heads+kv {
		w.problem(norm, fmt.Sprintf("gains %v of queries and keys", q.Shape), fmt.Sprintf("[%d, 1, head_dim]", heads+kv))
		return
	}
	k := *q
	q.Spans = []Span{{From: 0, N: heads}}
	k.Spans = []Span{{From: heads, N: kv}}
	w.add(&k, config.KNorm)
}
