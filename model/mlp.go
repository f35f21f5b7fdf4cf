package model

import (
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
)

// MLP is the dense feed-forward: down(silu(gate(x)) * up(x)). Source: Qwen3_5MLP.forward, transformers 5.23.
type MLP struct {
	Gate, Up *kernels.Matrix // [I, H]
	Down     *kernels.Matrix // [H, I]
	Contract *precision.Contract
	Routed   bool // an expert of a MoE: its weights are one of a batch (kernels.Arith.Matmul)
}

// Forward writes the MLP of x [rows, H] to out [rows, H].
func (m *MLP) Forward(out, x []float32, batch *ragged.Batch) { m.rows(out, x, batch.Rows, batch) }

// rows is Forward for any number of rows: the experts of a MoE see only the tokens routed to them.
func (m *MLP) rows(out, x []float32, rows int, batch *ragged.Batch) {
	mark := batch.Mark()
	defer batch.Release(mark)
	up, gate := batch.Buf(rows*m.Up.Rows), batch.Buf(rows*m.Gate.Rows)
	m.linear(up, x, rows, m.Up, batch)
	m.linear(gate, x, rows, m.Gate, batch)
	m.silu(gate, batch)
	m.multiply(gate, up)
	m.linear(out, gate, rows, m.Down, batch)
}

// linear is out [rows, w.Rows] = x [rows, w.Cols] w^T.
func (m *MLP) linear(out, x []float32, rows int, w *kernels.Matrix, batch *ragged.Batch) {
	product := batch.Arith.Linear
	if m.Routed {
		product = batch.Arith.Matmul
	}
	product(batch.Pool, out, x, rows, w)
	m.Contract.Round(precision.Linear, out)
}

// silu is gate = silu(gate).
func (m *MLP) silu(gate []float32, batch *ragged.Batch) {
	batch.Pool.For(len(gate), 20, func(lo, hi int) { batch.Arith.SiLU(gate[lo:hi], gate[lo:hi]) })
	m.Contract.Round(precision.MLPSilu, gate)
}

// multiply is gate = gate * up.
func (m *MLP) multiply(gate, up []float32) {
	for i := range gate {
		gate[i] *= up[i]
	}
	m.Contract.Round(precision.MLPMul, gate)
}
