package graph

import (
	"maps"
	"slices"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/config"
	"sibyl/engine"
	"sibyl/trace"
)

// The names of package trace that dataflow identifies in main. A name is given to the value that the graph makes there, in
// its dtype; where the graph has no such value (apple-q35 has no softmax over all experts) the name is not shown.

// opTaps are the first results of main's operations, as far as a token has a row of them: "op.N", N as messages count.
func opTaps(f *function, step bool) []*tap {
	var out []*tap
	for _, i := range f.body.ops {
		if i.constant || len(i.op.Results) == 0 || i.op.Results[0].Type.Kind != aicode.Tensor {
			continue
		}
		dynamic := 0
		for _, d := range i.op.Results[0].Type.Dims {
			dynamic += int(truth(d == aicode.Dynamic))
		}
		if step && dynamic == 0 || !step && dynamic == 1 {
			out = append(out, &tap{trace.OpResult.Name(i.op.Index), whole(i.op.Results[0])})
		}
	}
	return out
}

// OpTaps lists the operations' results that can be asked for by name, in the order of main.
func (e *Engine) OpTaps() []trace.Entry {
	out := make([]trace.Entry, len(e.ops))
	for i, t := range e.ops {
		v := t.parts[0].v
		out[i] = trace.Entry{Tap: trace.OpResult, Layer: v.Def.Index, Name: t.name, Width: int(rowWidth(v.Type))}
	}
	return out
}

// ShownTaps keeps of entries those that this graph has.
func (e *Engine) ShownTaps(entries []trace.Entry) []trace.Entry {
	has := map[string]bool{logitsName: true, trace.InputIDs.Name(-1): true}
	for _, t := range slices.Concat(e.taps, e.ops) {
		has[t.name] = true
	}
	return slices.DeleteFunc(slices.Clone(entries), func(x trace.Entry) bool { return !has[x.Name] && !x.Tap.Cache() })
}

// tap is a name and the values of main it is made of.
type tap struct {
	name  string
	parts []part
}

// part is a value's row of a token: blocks of unit elements, lo, lo+step, ... n of them; unit 0 is the whole row. Several
// parts alternate block by block.
type part struct {
	v           *aicode.Value
	via         *aicode.Op // the call in main in whose graph v is; nil for main itself
	unit        int
	lo, n, step int
}

func whole(v *aicode.Value) []part { return []part{{v: v}} }

// finder names the values of one program.
type finder struct {
	flow
	roles   *bundle.Roles
	profile bundle.Profile
	taps    []*tap
	layer   int
	l2      func(v *aicode.Value, via *aicode.Op) []part // how l2norm's heads are shown
}

// findTaps lists what is recognised, in the order of the math.
func findTaps(p *aicode.Program, main *function, roles *bundle.Roles, profile bundle.Profile) []*tap {
	f := &finder{flow: flow{p, main.g}, roles: roles, profile: profile, layer: -1}
	if len(roles.Layers) > 0 {
		f.add(trace.Embed, whole(roles.Layers[0].In)...)
	}
	for l := range roles.Layers {
		f.layer = l
		f.oneLayer(&roles.Layers[l])
	}
	f.layer = -1
	f.add(trace.FinalNorm, whole(roles.FinalNorm)...)
	return f.taps
}

// add notes a tap, unless a part of it was not found.
func (f *finder) add(t trace.Tap, parts ...part) {
	for _, p := range parts {
		if p.v == nil || p.v.Def == nil {
			return
		}
	}
	f.taps = append(f.taps, &tap{t.Name(max(f.layer, 0)), parts})
}

func (f *finder) oneLayer(l *bundle.LayerFlow) {
	f.add(trace.InputNorm, whole(l.InputNorm)...)
	if l.Kind == config.GatedDeltaNet {
		f.deltaNet(l)
	} else {
		f.attention(l)
	}
	f.add(trace.AfterMixer, whole(l.AfterMixer)...)
	f.add(trace.PostAttnNorm, whole(l.PostNorm)...)
	f.experts(l)
	f.add(trace.MLPOut, whole(l.MLP)...)
	f.add(trace.LayerOut, whole(l.Out)...)
}

// linear is the product with a role's weight, or the columns of a fused one.
func (f *finder) linear(role config.Role) *aicode.Value {
	u := f.roles.Find(role, f.layer, "")
	if u == nil {
		return nil
	}
	v := result(u.Consumer)
	if len(u.Spans) != 1 || v == nil {
		return v
	}
	return f.columns(v, u.Spans[0].From, u.Spans[0].N)
}

// columns is the slice of a fused product that takes columns [lo, lo+n) of its last axis.
func (f *finder) columns(v *aicode.Value, lo, n int) *aicode.Value {
	for _, op := range v.Users {
		if f.kind(op) != "slice" || len(op.Operands) < 3 || op.Operands[0] != v {
			continue
		}
		begin, end := ints(op.Operands[1]), ints(op.Operands[2])
		last := len(v.Type.Dims) - 1
		if last < len(begin) && last < len(end) && begin[last] == int64(lo) && min(end[last], v.Type.Dims[last]) == int64(lo+n) {
			return result(op)
		}
	}
	return nil
}

// ints are the elements of a constant of whole numbers, nil if v is none.
func ints(v *aicode.Value) []int64 {
	if v == nil || v.Def == nil || v.Def.Const == nil {
		return nil
	}
	x, _ := v.Def.Const.Ints()
	return x
}

// products are what a norm's result n is multiplied with weights to give, up to the value to: a fused product's slices.
func (f *finder) products(n, to *aicode.Value) []*aicode.Value {
	var out []*aicode.Value
	for _, op := range f.between(n, to, "batch_matmul") {
		if f.source(operand(op, 0), true) != n {
			continue
		}
		v := result(op)
		cut := false
		for _, u := range v.Users {
			if f.kind(u) == "slice" {
				out, cut = append(out, result(u)), true
			}
		}
		if !cut {
			out = append(out, v)
		}
	}
	return out
}

// gdnParts tells the four projections apart by what an export fault leaves alone: qkv is joined with the conv's history, z
// is as wide as the values, and of the two of one number a head a goes through softplus.
func (f *finder) gdnParts(l *bundle.LayerFlow) (qkv, z, b, a *aicode.Value) {
	states := f.recurrentDims()
	if states == nil {
		return
	}
	for _, v := range f.products(l.InputNorm, l.AfterMixer) {
		width := v.Type.Dims[len(v.Type.Dims)-1]
		switch {
		case f.next(v, []string{"concat"}) != nil && width != states[2]:
			qkv = v
		case width == states[2]*states[4]:
			z = v
		case f.next(v, []string{"log"}, "add", "exp") != nil:
			a = v
		default:
			b = v
		}
	}
	return qkv, z, b, a
}

func (f *finder) deltaNet(l *bundle.LayerFlow) {
	qkv, z, b, a := f.gdnParts(l)
	f.add(trace.GDNInProjQKV, whole(qkv)...)
	f.add(trace.GDNInProjZ, whole(z)...)
	f.add(trace.GDNInProjB, whole(b)...)
	f.add(trace.GDNInProjA, whole(a)...)

	split := f.next(qkv, []string{"split"}, "concat", "conv2d", "slice", "mul", "add", "silu", "sigmoid")
	if out := f.source(operand(split, 0), false); out != nil {
		f.add(trace.GDNConvPreSilu, whole(operand(out.Def, 0))...)
		f.add(trace.GDNConvOut, whole(out)...)
	}
	f.recurrence(l, split, a)
	if split != nil && len(split.Results) == 3 {
		f.add(trace.GDNV, whole(split.Results[2])...)
	}
	f.add(trace.GDNBeta, whole(result(f.first(b)))...)
	// Of the mixer's calls, only the gated norm is an rms_norm, and its operand is what the delta rule gives.
	if norms := f.between(l.InputNorm, l.AfterMixer, "rms_norm"); len(norms) == 1 {
		f.add(trace.GDNCoreOut, whole(operand(norms[0], 0))...)
	}
	f.lastLinear(l, trace.GDNGatedNorm, trace.GDNOutProj)
}

// lastLinear is the mixer's last product: what goes into it, and what it gives.
func (f *finder) lastLinear(l *bundle.LayerFlow, in, out trace.Tap) {
	if v := f.source(l.Mixer, false); v != nil && f.kind(v.Def) == "batch_matmul" {
		f.add(in, whole(operand(v.Def, 0))...)
	}
	f.add(out, whole(l.Mixer)...)
}

// recurrence names l2norm's results and the decay: in main where the graph has the rule there (zoo-s1), else in the
// composite gated_delta_update. Heads are repeated before the norm: each is shown once.
func (f *finder) recurrence(l *bundle.LayerFlow, split *aicode.Op, a *aicode.Value) {
	if split == nil || len(split.Results) != 3 {
		return
	}
	states := f.recurrentDims()
	if states == nil {
		return
	}
	nv, dk := int(states[2]), int(states[3])
	width := split.Results[0].Type.Dims[len(split.Results[0].Type.Dims)-1] // key heads * dk
	if dk < 1 || width < 1 || width%int64(dk) != 0 || nv%int(width/int64(dk)) != 0 {
		return
	}
	heads := int(width) / dk
	f.l2 = func(v *aicode.Value, via *aicode.Op) []part {
		p := part{v: v, via: via}
		if v != nil && v.Def != nil && rowWidth(v.Type) == int64(nv*dk) && nv > heads {
			p.unit, p.n, p.step = dk, heads, nv/heads
		}
		return []part{p}
	}
	if call := f.between(l.InputNorm, l.AfterMixer, "gated_delta_update"); len(call) == 1 {
		f.inComposite(call[0])
		return
	}
	for i, t := range []trace.Tap{trace.GDNQL2, trace.GDNKL2} {
		root := f.next(split.Results[i], []string{"rsqrt"}, "mul", "reduce_sum", "add")
		f.add(t, f.l2(result(f.next(result(root), []string{"mul"})), nil)...)
	}
	// exp of the decay is the factor of the state: g is what it is taken of.
	where := f.next(a, []string{"where"}, "add", "exp", "log", "greater")
	g := result(f.next(result(where), []string{"mul"}))
	f.add(trace.GDNG, whole(g)...)
}

// inComposite names what gated_delta_update computes first of its operands (query, key, value, g, beta, initial_state).
func (f *finder) inComposite(call *aicode.Op) {
	g := f.p.Graph(call.Callee)
	if g == nil || len(g.Body.Args) < 4 || len(call.Operands) < 4 {
		return
	}
	in := &flow{f.p, g}
	for i, t := range []trace.Tap{trace.GDNQL2, trace.GDNKL2} {
		root := in.next(g.Body.Args[i], []string{"rsqrt"}, "mul", "reduce_sum", "add")
		v := result(in.next(result(root), []string{"mul"}))
		f.add(t, f.l2(v, call)...)
	}
	f.add(trace.GDNG, whole(call.Operands[3])...)
}

// recurrentDims are the dimensions of the recurrent state [layers, 1, value heads, dk, dv].
func (f *finder) recurrentDims() []int64 {
	for _, a := range f.g.Inputs {
		if a.Type.Kind == aicode.Handle && (a.State == "recState" || a.State == "recurrentStates") {
			return a.Type.Of.Dims
		}
	}
	return nil
}

// rowWidth is how many elements a token has: the product of all fixed dimensions.
func rowWidth(t *aicode.Type) int64 {
	n := int64(1)
	for _, d := range t.Dims {
		if d > 0 {
			n *= d
		}
	}
	return n
}

func (f *finder) attention(l *bundle.LayerFlow) {
	calls := f.between(l.InputNorm, l.AfterMixer, "scaled_dot_product_attention")
	if len(calls) != 1 {
		f.lastLinear(l, trace.AttnOutGated, trace.AttnOProj)
		return
	}
	q := operand(calls[0], 0)
	hd := int(q.Type.Dims[len(q.Type.Dims)-1])
	norms := f.between(l.InputNorm, l.AfterMixer, "rms_norm")
	if u := f.roles.Find(config.QProj, f.layer, ""); u != nil && len(u.Spans) > 0 {
		f.fused(u, norms, hd, rowWidth(q.Type)/int64(max(1, hd)))
	} else {
		f.add(trace.AttnQProj, whole(f.linear(config.QProj))...)
		if len(norms) == 2 {
			f.add(trace.AttnQNorm, whole(result(norms[0]))...)
			f.add(trace.AttnKNorm, whole(result(norms[1]))...)
		}
		f.add(trace.AttnKProj, whole(f.linear(config.KProj))...)
		f.add(trace.AttnVProj, whole(f.linear(config.VProj))...)
	}
	f.add(trace.AttnQRope, whole(q)...)
	for _, op := range f.between(l.InputNorm, calls[0].Results[0], "slice_update") {
		if f.updates(op) == "keyCache" {
			f.add(trace.AttnKRope, whole(operand(op, 4))...)
		}
	}
	f.add(trace.AttnOutPreGate, whole(result(calls[0]))...)
	f.lastLinear(l, trace.AttnOutGated, trace.AttnOProj)
}

// fused is apple-q35's one product [1, 2H+2K, S, hd]: queries, keys, values, gates; a checkpoint's q_proj has a head's query
// and its gate together.
func (f *finder) fused(u *bundle.Use, norms []*aicode.Op, hd int, heads int64) {
	fused := result(f.next(result(u.Consumer), []string{"slice"}))
	if fused == nil || len(norms) != 1 {
		return
	}
	all := fused.Def.Operands[0] // [1, 2H+2K, S, hd]
	H := int(heads)
	K := int(all.Type.Dims[1])/2 - H
	if K < 1 || len(all.Type.Dims) != 4 {
		return
	}
	block := func(v *aicode.Value, lo, n int) part { return part{v: v, unit: hd, lo: lo, n: n, step: 1} }
	f.add(trace.AttnQProj, block(all, 0, H), block(all, H+2*K, H))
	f.add(trace.AttnQNorm, block(result(norms[0]), 0, H))
	f.add(trace.AttnKProj, block(all, H, K))
	f.add(trace.AttnKNorm, block(result(norms[0]), H, K))
	f.add(trace.AttnVProj, block(all, H+K, K))
}

// experts names the parts of a mixture of experts; a dense layer has none.
func (f *finder) experts(l *bundle.LayerFlow) {
	router := f.roles.Find(config.Router, f.layer, "")
	if router == nil {
		return
	}
	logits := result(router.Consumer)
	f.add(trace.MoERouterLogitsRaw, whole(logits)...)
	soft := f.next(logits, []string{"softmax"}, "sort", "slice")
	if soft != nil && f.source(operand(soft, 0), true) == logits {
		f.add(trace.MoERouterProbs, whole(result(soft))...)
		f.add(trace.MoETopKWeights, whole(result(f.next(result(soft), []string{"divide"}, "sort", "slice")))...)
	} else {
		f.add(trace.MoETopKWeights, whole(result(soft))...)
	}
	if sorted := f.next(logits, []string{"argsort"}, "softmax"); sorted != nil {
		f.add(trace.MoETopKIndex, whole(result(f.next(result(sorted), []string{"slice"})))...)
	}
	if down := f.roles.Find(config.ExpertsDown, f.layer, "down"); down != nil {
		f.add(trace.MoEExpertsOut, whole(result(f.next(result(down.Consumer), []string{"reduce_sum"}, "mul")))...)
	}
	f.add(trace.MoESharedOutUngated, whole(f.linear(config.SharedDownProj))...)
	f.add(trace.MoESharedGateLogit, whole(f.linear(config.SharedExpertGate))...)
}

var logitsName = trace.Logits.Name(-1)

// put hands rows to a sink that wants them.
func put(sink engine.Sink, name string, seq, pos, rows int, x []float32) error {
	if sink == nil || !sink.Wants(name) {
		return nil
	}
	return sink.Put(name, seq, pos, rows, x)
}

func sortedNames(st *engine.State) []string { return slices.Sorted(maps.Keys(st.Tensors)) }
