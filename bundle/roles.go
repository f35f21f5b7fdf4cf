package bundle

import (
	"fmt"
	"slices"

	"sibyl/bundle/aicode"
	"sibyl/config"
	"sibyl/internal/inputerr"
)

// A bundle stores no names of parameters. What a weight is follows from what the graph does with it: the walk goes
// along the residual stream, from the embedding to the head, and at each norm asks where its result flows. No
// checkpoint is needed, and no name of a graph, a file or a resource is asked.

// Form is how a graph stores what a checkpoint has as a weight w.
type Form uint8

// The forms. Folded ones were computed by the exporter and are used as they are stored, its faults included: it folds
// w + 1 of an fp16-subnormal w as if w were almost 0.
const (
	AsIs    Form = iota // w
	OnePlus             // float32(1 + w): the gain of a norm
	NegExp              // -exp(float32(w)): of A_log
	Upcast              // float32(w): of dt_bias
)

// String is the formula, as listings have it.
func (f Form) String() string {
	return [...]string{"w", "float32(1+w)", "-exp(float32(w))", "float32(w)"}[f]
}

// Span says that rows [From, From+N) of a stored matrix are rows [To, To+N) of a role's tensor.
type Span struct{ From, To, N int }

// Use is one weight of a graph in one role. A fused matrix has a Use for each of its parts, a tied table one as
// embedding and one as head, and equal constants, which exporters merge, one for each place.
type Use struct {
	Role  config.Role
	Layer int    // -1 for roles that are not per layer
	Proj  string // "gate", "up" or "down" of routed experts, which are stored one projection a tensor: [1, E, out, in]
	Spans []Span // nil: all rows are the role's
	Form  Form
	Shape []int // [out, in] or [1, E, out, in]; else as stored
	// Turned says that the bytes are those of the transpose, [in, out] or [1, E, in, out]: a plain weight only.
	Turned bool

	Data     *aicode.Op // the constant: the weight, or its q
	Dequant  *aicode.Op // blockwise_shift_scale (or lut_to_dense, which sibyl names and does not read); nil for a plain weight
	Consumer *aicode.Op // what reads it: a matmul, gather_nd, conv2d, a composite's call, ...
}

// Name is the tensor's name in a checkpoint, below the text model's prefix. Packed experts have their projection
// appended: "layers.3.mlp.experts.gate_up_proj (gate)".
func (u *Use) Name() string {
	name := u.Role.Name(max(u.Layer, 0))
	if u.Proj != "" {
		name += " (" + u.Proj + ")"
	}
	return name
}

// LayerFlow is where a layer stands in a function: values of the residual stream and of its two norms, for taps.
type LayerFlow struct {
	Kind                                                 config.LayerKind
	In, InputNorm, Mixer, AfterMixer, PostNorm, MLP, Out *aicode.Value
}

// Roles is what a function's weights are.
type Roles struct {
	Function string
	Uses     []Use // in the order of the math
	Layers   []LayerFlow
	// InvFreq is the constant of the rope's inverse frequencies [rotary/2], nil if none was found.
	InvFreq *aicode.Op
	// FinalNorm and Logits are the last values; nil in a function that has no head, as prefill.
	FinalNorm, Logits *aicode.Value
	// Problems are what was not recognised, in the order of the graph: each names the operation and the layer. What was
	// recognised besides is kept.
	Problems []error

	last int     // problems before the layer that is being read
	eps  float64 // of the norms, as their composites say
	topK int
}

// Err is the first problem.
func (r *Roles) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	return r.Problems[0]
}

// Find gives the use of a role in a layer (-1 for roles that are not per layer), nil if there is none. proj chooses
// among routed experts' projections.
func (r *Roles) Find(role config.Role, layer int, proj string) *Use {
	for i := range r.Uses {
		if u := &r.Uses[i]; u.Role == role && u.Layer == layer && u.Proj == proj {
			return u
		}
	}
	return nil
}

// Of lists the uses of a constant operation.
func (r *Roles) Of(data *aicode.Op) []*Use {
	var out []*Use
	for i := range r.Uses {
		if r.Uses[i].Data == data {
			out = append(out, &r.Uses[i])
		}
	}
	return out
}

// Roles recovers the roles of a public function's weights ("main", "prefill"). A bundle of an unknown profile and a
// function that is not there are errors; what is not recognised inside is in Problems.
func (b *Bundle) Roles(function string) (*Roles, error) {
	profile, _, err := b.signature()
	if err != nil {
		return nil, err
	}
	g := b.program.Graph(function)
	if g == nil || g.Private {
		return nil, &inputerr.Error{File: b.Asset.Path(), Field: "functions", Found: "no function " + inputerr.Clip(function, 60), Want: "one of the program's"}
	}
	return RecoverRoles(b.program, g, profile), nil
}

// RecoverRoles is Bundle.Roles for a decoded program, which may have been changed in memory.
func RecoverRoles(p *aicode.Program, g *aicode.Graph, profile Profile) *Roles {
	w := &walker{flow: newFlow(p, g), profile: profile, r: &Roles{Function: g.Name}, layer: -1}
	w.walk()
	if find(g.Outputs, "logits") == nil {
		// A function without a head keeps of its last layer only what the states need: what is missing there is no problem.
		w.r.Problems = w.r.Problems[:w.r.last]
	}
	return w.r
}

// walker goes along the residual stream of one function.
type walker struct {
	*flow
	profile Profile
	r       *Roles
	layer   int // the one being read, -1 before and after
}

// problem notes what was not recognised, at op.
func (w *walker) problem(op *aicode.Op, found, want string) {
	where := ""
	if op != nil {
		where = ", " + op.Where()
	}
	if w.layer >= 0 {
		where = fmt.Sprintf(", layer %d", w.layer) + where
	}
	w.r.Problems = append(w.r.Problems, &inputerr.Error{File: w.prog.File, Field: "function " + w.g.Name + where, Found: found, Want: want,
		Do: "this graph differs from the family's there; the graph engine runs it as it is"})
}

// add notes a use; a nil one was a problem already.
func (w *walker) add(u *Use, role config.Role) *Use {
	if u == nil {
		return nil
	}
	if u.Role, u.Layer = role, w.layer; !role.PerLayer() {
		u.Layer = -1
	}
	w.r.Uses = append(w.r.Uses, *u)
	return u
}

// walk reads the function from front to back: embedding, layers, final norm, head.
func (w *walker) walk() {
	w.rope()
	x := w.embedding()
	for x != nil {
		norm, ok := w.normOf(x)
		if !ok {
			if w.layer >= 0 || len(w.r.Layers) == 0 {
				w.problem(x.Def, "a residual stream that no norm reads", "rms_norm of it")
			}
			return
		}
		if _, more := w.residual(x, norm); !more && w.isFinal(norm) {
			w.layer = -1
			w.tail(norm)
			return
		}
		w.layer = len(w.r.Layers)
		w.r.Layers = append(w.r.Layers, LayerFlow{})
		w.r.last = len(w.r.Problems)
		x = w.oneLayer(x, norm)
	}
	w.layer = -1
}

// embedding finds the table that the ids choose rows of, and gives the residual stream's first value.
func (w *walker) embedding() *aicode.Value {
	for i, a := range w.g.Inputs {
		if a.Name != "input_ids" || i >= len(w.g.Body.Args) {
			continue
		}
		if u, ok := w.first(w.g.Body.Args[i], "gather_nd", "gather_along_axis"); ok && len(u.op.Operands) > 0 {
			w.add(w.weight(u.op.Operands[0], u.op, false), config.Embed)
			return result(u.op)
		}
	}
	w.problem(nil, "no table that input_ids chooses rows of", "gather_nd(embedding, input_ids)")
	return nil
}

// normOf is the rms_norm that reads the residual stream.
func (w *walker) normOf(x *aicode.Value) (*aicode.Op, bool) {
	u, ok := w.first(x, "rms_norm")
	return u.op, ok && u.operand == 0 && result(u.op) != nil
}

// residual is the sum that adds to x what was made of norm's result.
func (w *walker) residual(x *aicode.Value, norm *aicode.Op) (use, bool) {
	for _, u := range w.uses(x) {
		if w.kind(u.op) == "add" && u.op.Index > norm.Index && u.other() != nil {
			return u, true
		}
	}
	return use{}, false
}

// sumOf is the sum that reads a linear of one of the roles, where the residual stream is in none: a fault of the
// export, after which the walk can go on.
func (w *walker) sumOf(roles ...config.Role) (use, bool) {
	for _, role := range roles {
		u := w.r.Find(role, w.layer, "")
		if u == nil || result(u.Consumer) == nil {
			continue
		}
		for _, s := range w.uses(result(u.Consumer)) {
			if w.kind(s.op) == "add" && s.other() != nil && result(s.op) != nil {
				w.problem(s.op, "a sum that leaves the residual stream out", "the stream plus what the layer makes of it")
				return use{s.op, 1 - min(s.operand, 1)}, true
			}
		}
	}
	return use{}, false
}

// isFinal says whether a norm is the last: its result meets one matrix, whose result is the function's.
func (w *walker) isFinal(norm *aicode.Op) bool {
	lin := w.linears(result(norm))
	if len(lin) != 1 {
		return false
	}
	_, out := w.first(result(lin[0]), "output")
	return out
}

// tail is the final norm and the head.
func (w *walker) tail(norm *aicode.Op) {
	w.gain(norm, config.FinalNorm)
	w.r.FinalNorm = result(norm)
	lin := w.linears(result(norm))[0]
	w.add(w.weight(lin.Operands[1], lin, true), config.Head)
	w.r.Logits = result(lin)
}

// oneLayer reads a layer from its first norm and gives the stream after it; nil where the function ends in it.
func (w *walker) oneLayer(x *aicode.Value, norm *aicode.Op) *aicode.Value {
	f := &w.r.Layers[w.layer]
	f.In, f.InputNorm = x, result(norm)
	w.gain(norm, config.InputNorm)
	f.Kind = w.mixer(result(norm))
	sum, ok := w.residual(x, norm)
	if !ok {
		sum, ok = w.sumOf(config.OutProj, config.OProj)
	}
	if !ok {
		return nil // a function without a head drops what nothing reads
	}
	f.Mixer, f.AfterMixer = sum.other(), result(sum.op)
	post, ok := w.normOf(f.AfterMixer)
	if !ok {
		w.problem(sum.op, "a residual stream that no norm reads", "rms_norm of it")
		return nil
	}
	w.gain(post, config.PostAttnNorm)
	f.PostNorm = result(post)
	w.feedForward(f.PostNorm)
	if sum, ok = w.residual(f.AfterMixer, post); !ok {
		if sum, ok = w.sumOf(config.DownProj); !ok {
			return nil
		}
	}
	f.MLP, f.Out = sum.other(), result(sum.op)
	return f.Out
}

// linears lists the matrix products that read v as their rows, in order.
func (w *walker) linears(v *aicode.Value) []*aicode.Op {
	var out []*aicode.Op
	for _, u := range w.uses(v) {
		if w.kind(u.op) == "batch_matmul" && u.operand == 0 && len(u.op.Operands) == 2 && result(u.op) != nil && w.isWeight(u.op.Operands[1]) {
			out = append(out, u.op)
		}
	}
	return out
}

// isWeight says whether v is a stored matrix, plain or quantized.
func (w *walker) isWeight(v *aicode.Value) bool {
	op := back(v)
	return op != nil && (op.Const != nil || isDequant(op))
}

func isDequant(op *aicode.Op) bool {
	return slices.Contains([]string{"blockwise_shift_scale", "lut_to_dense"}, opName(op))
}

// gain notes the weight of a call of rms_norm, and its eps.
func (w *walker) gain(norm *aicode.Op, role config.Role) {
	if len(norm.Operands) < 2 {
		w.problem(norm, "a norm without a gain", "rms_norm(x, gain)")
		return
	}
	w.add(w.gainOf(norm), role)
	if c := w.composites[norm.Callee]; c != nil {
		eps, ok := c.OpAttrs["eps"].(float64)
		switch {
		case !ok:
			w.problem(norm, "a norm without eps", "eps among its attributes")
		case w.r.eps != 0 && w.r.eps != eps:
			w.problem(norm, fmt.Sprintf("a norm of eps %g", eps), fmt.Sprintf("%g, as the norms before it", w.r.eps))
		default:
			w.r.eps = eps
		}
	}
}

// gainOf is the constant of a gain: float32(1+w) as it is stored, or w of which the graph makes w or 1+w.
func (w *walker) gainOf(norm *aicode.Op) *Use {
	v := norm.Operands[1]
	plain := false
	if op := back(v); op != nil && w.kind(op) == "add" && len(op.Operands) == 2 {
		for i, o := range op.Operands {
			if n, ok := elements(o.Type); ok && n == 1 && constant(o) != nil {
				v, plain = op.Operands[1-i], true
			}
		}
	}
	u := w.weight(v, norm, false)
	if u != nil && !plain && u.Data.Const.Type.Elem == aicode.F32 {
		u.Form = OnePlus
	}
	return u
}

// weight is the stored matrix or vector that v is. matrix says that it stands on the right of a product, where
// [out, in] is transposed.
func (w *walker) weight(v *aicode.Value, consumer *aicode.Op, matrix bool) *Use {
	turned := false
	at := v
	for at != nil && at.Def != nil && shapeOps[opName(at.Def)] && len(at.Def.Operands) > 0 {
		turned = turned || opName(at.Def) == "transpose"
		at = at.Def.Operands[0]
	}
	if at == nil || at.Def == nil {
		w.problem(consumer, "a value that is computed where a weight is expected", "a constant")
		return nil
	}
	u := &Use{Data: at.Def, Consumer: consumer}
	if isDequant(at.Def) {
		u.Dequant = at.Def
		if len(at.Def.Operands) == 0 {
			u.Data = nil
		} else {
			u.Data = constant(at.Def.Operands[0])
		}
	}
	if u.Data == nil || u.Data.Const == nil || len(u.Data.Results) != 1 {
		w.problem(consumer, "a value that is computed where a weight is expected", "a constant")
		return nil
	}
	t := u.Data.Const.Type
	if n, ok := elements(t); !ok || n == 0 || len(t.Dims) == 0 {
		w.problem(u.Data, "a weight "+t.String(), "a vector or a matrix of some elements")
		return nil
	}
	for _, d := range t.Dims {
		u.Shape = append(u.Shape, int(d))
	}
	if matrix && !turned && !w.turn(u) {
		return nil
	}
	return u
}

// turn makes the shape of a weight that the exporter transposed once and for all, as it does with plain experts, that of
// its role.
func (w *walker) turn(u *Use) bool {
	n := len(u.Shape)
	switch {
	case n == 2 && (u.Shape[0] == 1 || u.Shape[1] == 1):
		u.Shape = []int{1, u.Shape[0] * u.Shape[1]} // [in, 1] and [1, in] are the same bytes
	case n < 2 || u.Dequant != nil:
		w.problem(u.Consumer, fmt.Sprintf("a weight %v that is stored [in, out]", u.Shape), "[out, in], transposed where it is used")
		return false
	default:
		u.Shape[n-2], u.Shape[n-1] = u.Shape[n-1], u.Shape[n-2]
		u.Turned = true
	}
	return true
}

// rope finds the inverse frequencies: the constant that positions are multiplied by before cos.
func (w *walker) rope() {
	for _, op := range w.g.Body.Ops {
		if w.kind(op) != "cos" || len(op.Operands) == 0 {
			continue
		}
		v := back(op.Operands[0])
		if v != nil && w.kind(v) == "concat" && len(v.Operands) > 1 {
			v = back(v.Operands[1])
		}
		if v == nil || w.kind(v) != "mul" {
			continue
		}
		for _, o := range v.Operands {
			if c := constant(o); c != nil && c.Const.Type.Elem == aicode.F32 && len(c.Const.Type.Dims) == 1 {
				w.r.InvFreq = c
				return
			}
		}
	}
	w.problem(nil, "no inverse frequencies", "cos(position * constant)")
}
