package kernels

import "math"

// Attention is causal softmax attention of one key/value head for some rows of one sequence: each of Group query heads at
// each of Rows positions is
//
//	out = sum_j softmax_j(Scale * q . k_j) * v_j       over the keys that its position sees
//
// The first row sees Visible keys, each row after it one more.
type Attention struct {
	Rows, Group, HeadDim int
	Visible              int
	Scale                float32
	Q, Out               []float32 // head g of row t at [t*Stride + g*HeadDim]
	Stride               int
	K, V                 []float32 // key j at [j*KVStride]
	KVStride             int
}

// head gives query head i%Group of row i/Group, its place in Out, and how many keys it sees.
func (a *Attention) head(i int) (q, out []float32, visible int) {
	t, g := i/a.Group, i%a.Group
	at := t*a.Stride + g*a.HeadDim
	return a.Q[at:][:a.HeadDim], a.Out[at:][:a.HeadDim], a.Visible + t
}

// attendGo is the definition of the fast form: a query head at a time, all its scores before their softmax.
func attendGo(a *Attention) {
	scores := make([]float32, a.Visible+a.Rows)
	for i := range a.Rows * a.Group {
		a.row(i, scores, dotFastGo, softmaxFastGo, weightedRowsFastGo)
	}
}

func (a *Attention) row(i int, scores []float32, dot dotFunc, softmax func([]float32), weighted columnsFunc) {
	q, out, visible := a.head(i)
	s := scores[:visible]
	for j := range s {
		s[j] = a.Scale * dot(q, a.K[j*a.KVStride:][:a.HeadDim])
	}
	softmax(s)
	weighted(out, s, a.V, a.KVStride)
}

// expSumGo replaces x by e^(x-m), where x <= m, and gives their sum. What is below e^-87 may come out as that.
func expSumGo(x []float32, m float32) (sum float32) {
	for i, v := range x {
		e := exp1(v - m)
		x[i] = e
		sum += e
	}
	return sum
}

func isFinite(x float32) bool { return x-x == 0 }

func allFinite(x []float32) bool {
	var s float32
	for _, v := range x {
		s += v - v
	}
	return s == 0
}

var float32NaN = float32(math.NaN())
