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
}

// Forward writes the MLP of x [rows, H] to out [rows, H].
func (m *MLP) Forward(out, x []float32, batch *ragged.Batch) { m.rows(out, x, batch.Rows, batch) }

// rows is Forward for any number of rows: the experts of a MoE see only the tokens routed to them.
func (m *MLP) rows(out, x []float32, rows int, batch *ragged.Batch) {
	c, ar := m.Contract, batch.Arith
	mark := batch.Mark()
	defer batch.Release(mark)
	up, gate := batch.Buf(rows*m.Up.Rows), batch.Buf(rows*m.Gate.Rows)
	ar.Linear(batch.Pool, up, x, rows, m.Up)
	c.Round(precision.Linear, up)
	ar.Linear(batch.Pool, gate, x, rows, m.Gate)
	c.Round(precision.Linear, gate)
	batch.Pool.For(len(gate), 20, func(lo, hi int) { ar.SiLU(gate[lo:hi], gate[lo:hi]) })
	c.Round(precision.MLPSilu, gate)
	for i := range gate {
		gate[i] *= up[i]
	}
	c.Round(precision.MLPMul, gate)
	ar.Linear(batch.Pool, out, gate, rows, m.Down)
	c.Round(precision.Linear, out)
}
