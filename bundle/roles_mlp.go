package bundle

import (
	"sibyl/bundle/aicode"
	"sibyl/config"
)

// feedForward reads the MLP or the mixture of experts that n, the second norm's result, goes into.
func (w *walker) feedForward(n *aicode.Value) {
	if router := w.router(n); router != nil {
		w.add(w.weight(router.Operands[1], router, true), config.Router)
		w.experts(n)
		w.gatedMLP(n, router, config.SharedGateProj, config.SharedUpProj, config.SharedDownProj)
		return
	}
	w.gatedMLP(n, nil, config.GateProj, config.UpProj, config.DownProj)
}

// router is the linear whose result chooses experts, nil in a dense layer. It notes how many are chosen.
func (w *walker) router(n *aicode.Value) *aicode.Op {
	for _, lin := range w.linears(n) {
		v := result(lin)
		if s, ok := w.first(v, "softmax"); ok {
			v = result(s.op)
		}
		chosen, ok := w.first(v, "argsort", "topk")
		if !ok {
			continue
		}
		if cut, ok := w.first(result(chosen.op), "slice"); ok {
			if dims := result(cut.op).Type.Dims; len(dims) > 0 && dims[len(dims)-1] > 0 {
				w.r.topK = int(dims[len(dims)-1])
				return lin
			}
		}
		w.problem(chosen.op, "experts in order of which none are chosen", "the first of them")
		return lin
	}
	return nil
}

// gatedMLP is down(silu(gate(x)) * up(x)): gate is what meets silu, up what meets its result.
func (w *walker) gatedMLP(n *aicode.Value, router *aicode.Op, gate, up, down config.Role) {
	var gates, ups, scalar []*aicode.Op
	for _, lin := range w.linears(n) {
		if lin == router {
			continue
		}
		if _, ok := w.first(result(lin), "silu"); ok {
			gates = append(gates, lin)
		} else if _, ok := w.first(result(lin), "sigmoid"); ok {
			scalar = append(scalar, lin)
		} else if _, ok := w.first(result(lin), "mul"); ok {
			ups = append(ups, lin)
		} else {
			w.problem(lin, "a linear of unknown use in the MLP", "gate_proj or up_proj")
		}
	}
	if len(gates) != 1 || len(ups) != 1 {
		w.problem(n.Def, "an MLP without one gate and one up projection after this norm", "silu(gate(x)) * up(x)")
		return
	}
	w.add(w.weight(gates[0].Operands[1], gates[0], true), gate)
	w.add(w.weight(ups[0].Operands[1], ups[0], true), up)
	product, _ := w.first(result(ups[0]), "mul")
	w.outProj(product.op, down)
	switch {
	case router == nil:
	case len(scalar) == 1:
		w.add(w.weight(scalar[0].Operands[1], scalar[0], true), config.SharedExpertGate)
	default:
		w.problem(n.Def, "a mixture of experts without one gate of the shared expert", "sigmoid(shared_expert_gate(x))")
	}
}

// experts are the routed ones: products with the chosen matrices of [1, E, out, in].
func (w *walker) experts(n *aicode.Value) {
	var gate, up *aicode.Op
	for _, u := range w.uses(n) {
		if w.kind(u.op) != "gather_mm" || u.operand != 0 || len(u.op.Operands) < 3 {
			continue
		}
		if _, ok := w.first(result(u.op), "silu"); ok {
			gate = u.op
		} else {
			up = u.op
		}
	}
	if gate == nil || up == nil {
		w.problem(n.Def, "experts without gate and up projections after this norm", "silu(gate(x)) * up(x) of the chosen")
		return
	}
	w.expert(gate, config.ExpertsGateUp, "gate")
	w.expert(up, config.ExpertsGateUp, "up")
	product, ok := w.first(result(up), "mul")
	if !ok {
		w.problem(up, "an up projection that is multiplied with nothing", "silu(gate(x)) * up(x)")
		return
	}
	if down, ok := w.first(result(product.op), "gather_mm"); ok && down.operand == 0 && len(down.op.Operands) > 1 {
		w.expert(down.op, config.ExpertsDown, "down")
		return
	}
	w.problem(product.op, "experts' products that meet no weight", "experts.down_proj")
}

func (w *walker) expert(op *aicode.Op, role config.Role, proj string) {
	u := w.weight(op.Operands[1], op, true)
	if u == nil {
		return
	}
	if len(u.Shape) != 4 || u.Shape[0] != 1 {
		w.problem(op, "experts that are not stored [1, E, out, in]", "one projection of all experts")
		return
	}
	u.Proj = proj
	w.add(u, role)
}
