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
	up, gate := batch.Room(rows*m.Up.Rows), batch.Room(rows*m.Gate.Rows)
	if m.Routed {
		m.linear(up, x, rows, m.Up, batch)
		m.linear(gate, x, rows, m.Gate, batch)
	} else {
		batch.Linears(m.Contract, x, kernels.Product{Out: up, W: m.Up}, kernels.Product{Out: gate, W: m.Gate})
	}
	m.swiglu(gate, up, batch)
	m.linear(out, gate, rows, m.Down, batch)
}

// linear is out [rows, w.Rows] = x [rows, w.Cols] w^T.
func (m *MLP) linear(out, x []float32, rows int, w *kernels.Matrix, batch *ragged.Batch) {
	product := batch.Arith.Linear
	if m.Routed {
		product = batch.Arith.Matmul
	}
	product(batch.Pool, out, x, rows, w)
	batch.Round(m.Contract, precision.Linear, out)
}

// swiglu is gate = silu(gate) * up, a piece at a time.
func (m *MLP) swiglu(gate, up []float32, batch *ragged.Batch) {
	batch.Elementwise(len(gate), 20, func(lo, hi int) {
		m.silu(gate[lo:hi], batch)
		m.multiply(gate[lo:hi], up[lo:hi])
	})
}

// silu is gate = silu(gate).
func (m *MLP) silu(gate []float32, batch *ragged.Batch) {
	batch.Arith.SiLU(gate, gate)
	m.Contract.Round(precision.MLPSilu, gate)
}

// multiply is gate = gate * up.
func (m *MLP) multiply(gate, up []float32) {
	kernels.Multiply(gate, up)
	m.Contract.Round(precision.MLPMul, gate)
}
