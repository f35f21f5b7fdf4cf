package coreai

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"sibyl/engine"
	"sibyl/precision"
)

// position reduces one row of logits [vocab] to what engines show. A NaN counts as the maximum, so that it cannot hide.
func position(pos int, logits []float32, topK int) *engine.Position {
	p := &engine.Position{Pos: pos, Top: largest(logits, max(2, topK)), LSE: logSumExp(logits)}
	p.ID = p.Top[0].ID
	p.Ties = []int32{p.ID}
	for i := int(p.ID) + 1; i < len(logits); i++ {
		if logits[i] == logits[p.ID] {
			p.Ties = append(p.Ties, int32(i))
		}
	}
	return p
}

// before orders candidates: NaN, then the larger logit, then the lower id.
func before(a, b engine.Candidate) int {
	switch an, bn := math.IsNaN(a.Logit), math.IsNaN(b.Logit); {
	case an && !bn:
		return -1
	case bn && !an:
		return 1
	case an && bn:
		return cmp.Compare(a.ID, b.ID)
	}
	return cmp.Or(cmp.Compare(b.Logit, a.Logit), cmp.Compare(a.ID, b.ID))
}

// largest gives the first k candidates in order.
func largest(logits []float32, k int) []engine.Candidate {
	k = min(k, len(logits))
	if 4*k > len(logits) { // most of the row: sorting is cheaper than inserting
		all := make([]engine.Candidate, len(logits))
		for i, v := range logits {
			all[i] = engine.Candidate{ID: int32(i), Logit: float64(v)}
		}
		slices.SortFunc(all, before)
		return all[:k]
	}
	top := make([]engine.Candidate, 0, k+1)
	for i, v := range logits {
		c := engine.Candidate{ID: int32(i), Logit: float64(v)}
		if len(top) == k && before(top[k-1], c) < 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(top, c, before)
		top = slices.Insert(top, at, c)
		top = top[:min(k, len(top))]
	}
	return top
}

// logSumExp is log(sum exp(logits)) in float64, in index order.
func logSumExp(logits []float32) float64 {
	top := math.Inf(-1)
	for _, v := range logits {
		if v != v {
			return math.NaN()
		}
		top = max(top, float64(v))
	}
	if math.IsInf(top, 0) {
		return top
	}
	var sum float64
	for _, v := range logits {
		sum += precision.Exp64(float64(v) - top)
	}
	return top + precision.Log64(sum)
}

// decode reads little-endian values of a dtype; the length was checked.
func decode(dtype string, raw []byte) []float32 {
	size := dtypeBytes[dtype]
	out := make([]float32, len(raw)/size)
	for i := range out {
		switch b := raw[i*size:]; dtype {
		case "F16":
			out[i] = precision.F16ToF32(binary.LittleEndian.Uint16(b))
		case "BF16":
			out[i] = precision.BF16ToF32(binary.LittleEndian.Uint16(b))
		case "F32":
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b))
		}
	}
	return out
}

// encode writes values in a dtype, each rounded to the nearest, ties to even.
func encode(dtype string, x []float32) []byte {
	out := make([]byte, 0, len(x)*dtypeBytes[dtype])
	for _, v := range x {
		switch dtype {
		case "F16":
			out = binary.LittleEndian.AppendUint16(out, precision.F32ToF16(v))
		case "BF16":
			out = binary.LittleEndian.AppendUint16(out, precision.F32ToBF16(v))
		case "F32":
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
		}
	}
	return out
}
