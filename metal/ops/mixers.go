package ops

import (
	"fmt"

	"sibyl/metal/gpu"
	"sibyl/precision"
)

// MaxTaps is the most taps of the conv that its kernel keeps in registers.
const MaxTaps = 8

// ConvRounds are the conv's rounding points.
type ConvRounds struct{ Sum, Out, State precision.Round }

// Conv is the depthwise conv with silu over sequences: x, pre, out [rows, channels], w [channels, taps], state [slots, channels,
// taps], which advances. pre is written where wantPre.
func (l *List) Conv(x, w, state, pre, out, seqs gpu.Slice, nseqs, channels, taps int, r ConvRounds, wantPre bool) {
	if taps < 1 || taps > MaxTaps {
		l.fail("conv_silu", "%d taps, want 1..%d", taps, MaxTaps)
		return
	}
	a := struct{ channels, taps, sum, out, state, want uint32 }{uint32(channels), uint32(taps), uint32(r.Sum), uint32(r.Out), uint32(r.State), flag(wantPre)}
	add(l, "conv_silu", &a, size{ceil(channels, 64), nseqs, 1}, size{64, 1, 1}, nil, x, w, state, pre, out, seqs)
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// GDNDims are the delta rule's sizes.
type GDNDims struct{ KeyHeads, ValueHeads, KeyDim, ValueDim int }

// GDNRounds are the delta rule's rounding points and constants.
type GDNRounds struct {
	Square, Sum, Eps, Rsqrt, L2, QScale, Beta, G, Core precision.Round
	L2Eps                                              float32
	Softplus3                                          bool
	State                                              precision.Round // F32 or F16: the state's own type
}

// GDNTensors are the delta rule's tensors: Conv [rows, 2 nk dk + nv dv], A, B [rows, nv], Rate = exp(A_log) and DtBias [nv], State
// [slots, nv, dv, dk], which advances, Out [rows, nv, dv]; taps QL2, KL2 [rows, nk, dk], G, Beta [rows, nv] where WantTaps.
type GDNTensors struct {
	Conv, A, B, Rate, DtBias, State, Out, QL2, KL2, G, Beta, Seqs gpu.Slice
	WantTaps                                                      bool
}

// MaxKeyDim is the widest state row that a simdgroup keeps in registers.
const MaxKeyDim = 256

// GDNStep runs the delta rule over the sequences' rows. scale is what the query is multiplied by, dk^-0.5.
func (l *List) GDNStep(t GDNTensors, nseqs int, d GDNDims, scale float32, r GDNRounds) {
	n := 1
	for n*32 < d.KeyDim {
		n *= 2
	}
	state, ok := stateType(r.State)
	if d.KeyDim > MaxKeyDim || !ok {
		l.fail("gdn_step", "key heads of %d and a state of %s, want at most %d and F32 or F16", d.KeyDim, r.State, MaxKeyDim)
		return
	}
	a := struct {
		nk, nv, dk, dv, three, taps                         uint32
		square, sum, eps1, rsqrt, l2, qscale, beta, g, core uint32
		eps, scale                                          float32
	}{uint32(d.KeyHeads), uint32(d.ValueHeads), uint32(d.KeyDim), uint32(d.ValueDim), flag(r.Softplus3), flag(t.WantTaps),
		uint32(r.Square), uint32(r.Sum), uint32(r.Eps), uint32(r.Rsqrt), uint32(r.L2), uint32(r.QScale), uint32(r.Beta), uint32(r.G), uint32(r.Core),
		r.L2Eps, scale}
	add(l, fmt.Sprintf("gdn_step_%s_%d", state, n), &a, size{ceil(d.ValueDim, 4), d.ValueHeads, nseqs}, size{128, 1, 1}, nil,
		t.Conv, t.A, t.B, t.Rate, t.DtBias, t.State, t.Out, t.QL2, t.KL2, t.G, t.Beta, t.Seqs)
}

// stateType is the kernels' suffix of a state or cache stored on a grid.
func stateType(r precision.Round) (string, bool) {
	switch r {
	case precision.F32:
		return "f32", true
	case precision.F16:
		return "f16", true
	}
	return "", false
}

// Rope turns x [rows, heads, hd] in place by the table cos, sin [rows, rot/2].
func (l *List) Rope(x, cos, sin gpu.Slice, rows, heads, hd, rot int, product, out precision.Round) {
	half := rot / 2
	a := struct{ heads, hd, half, product, out uint32 }{uint32(heads), uint32(hd), uint32(half), uint32(product), uint32(out)}
	add(l, "rope", &a, size{ceil(half, 32), heads, rows}, size{32, 1, 1}, nil, x, cos, sin)
}

// AttentionDims are the sizes of gated GQA and of its caches [slots, kv, Cap, hd].
type AttentionDims struct{ Heads, KVHeads, HeadDim, Cap int }

// MaxHeadDim is the widest head whose weighted values a simdgroup keeps in registers.
const MaxHeadDim = 256

// Split is how many positions of the cache a threadgroup walks.
const Split = 512

// KVStore puts k and v [rows, kv, hd] into the caches at the sequences' positions. longest is the longest sequence's rows.
func (l *List) KVStore(k, v, keys, values, seqs gpu.Slice, nseqs, longest int, d AttentionDims, kv precision.Round) {
	typ, ok := stateType(kv)
	if !ok {
		l.fail("kv_store", "a cache of %s, want F32 or F16", kv)
		return
	}
	a := struct{ nkv, hd, cap uint32 }{uint32(d.KVHeads), uint32(d.HeadDim), uint32(d.Cap)}
	add(l, "kv_store_"+typ, &a, size{ceil(d.KVHeads*d.HeadDim, 64), longest, nseqs}, size{64, 1, 1}, nil, k, v, keys, values, seqs)
}

// queries is how many queries share a reading of the cache.
const queries = 8

// Tile is a threadgroup's queries: Tokens rows from Row on of sequence Seq, for heads Heads & 0xffff on of each group, Heads >> 16 of them.
type Tile struct{ Row, Tokens, Seq, Heads uint32 }

// Tiles cuts a batch into tiles.
func Tiles(seqs []Seq, d AttentionDims) (out []Tile) {
	group := d.Heads / d.KVHeads
	heads := min(group, queries)
	for i, s := range seqs {
		for t := uint32(0); t < s.Len; {
			n := min(uint32(queries/heads), s.Len-t)
			for h := 0; h < group; h += heads {
				out = append(out, Tile{s.Row + t, n, uint32(i), uint32(h) | uint32(min(heads, group-h))<<16})
			}
			t += n
		}
	}
	return out
}

// Splits is how many parts the cache is walked in, for the longest sequence after this call.
func Splits(seqs []Seq) int {
	longest := 1
	for _, s := range seqs {
		longest = max(longest, int(s.Pos+s.Len))
	}
	return ceil(longest, Split)
}

// PartFloats is how many float32 Attention's part takes.
func PartFloats(rows, splits int, d AttentionDims) int {
	return rows * d.Heads * splits * (d.HeadDim + 2)
}

// Attention writes the splits' partial softmax of q [rows, heads, hd] over the caches to part [rows, heads, splits, hd + 2].
func (l *List) Attention(q, keys, values, part, seqs, tiles gpu.Slice, ntiles, splits int, d AttentionDims, scale float32, query, kv precision.Round) {
	typ, ok := stateType(kv)
	if !ok || d.HeadDim > MaxHeadDim {
		l.fail("attention", "heads of %d over a cache of %s, want at most %d and F32 or F16", d.HeadDim, kv, MaxHeadDim)
		return
	}
	a := struct {
		nq, nkv, hd, cap, splits, query uint32
		scale                           float32
	}{uint32(d.Heads), uint32(d.KVHeads), uint32(d.HeadDim), uint32(d.Cap), uint32(splits), uint32(query), scale}
	add(l, "attention_"+typ, &a, size{ntiles, d.KVHeads, splits}, size{32, 1, 1}, []int{queries * d.HeadDim * 4, queries * 32 * 4},
		q, keys, values, part, seqs, tiles)
}

// CombineRounds are the rounding points after the weighted sum.
type CombineRounds struct{ Out, Sigmoid, Gated precision.Round }

// Combine joins the splits: pre [rows, heads, hd] before the gate, out after it; qg [rows, heads, 2 hd] is q_proj's out.
func (l *List) Combine(part, qg, pre, out gpu.Slice, rows, splits int, d AttentionDims, r CombineRounds) {
	a := struct{ nq, hd, splits, out, sigmoid, gated uint32 }{uint32(d.Heads), uint32(d.HeadDim), uint32(splits), uint32(r.Out), uint32(r.Sigmoid), uint32(r.Gated)}
	add(l, "attention_combine", &a, size{d.Heads, rows, 1}, size{32, 1, 1}, nil, part, qg, pre, out)
}
