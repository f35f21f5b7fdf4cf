// Causal softmax attention of gated GQA, one way for decode and prefill: KV is cut into splits of 512 positions, each walked in tiles of
// 32 with an online softmax; attention_combine joins the splits and gates.
//   kv_store: keys and values [rows, nkv, hd] go to caches [slots, nkv, cap, hd] of float or half, at pos, pos + 1, ...
//   attention: q [rows, nq, hd]; a threadgroup of 32 threads serves a tile of up to 8 queries that share a KV head (all heads of a group
//   and, in prefill, neighbouring tokens), so that keys and values are read once for all of them.
//   tiles [grid.x] {row, tokens, seq, head0 | heads << 16}; grid (tiles, nkv, splits); tq [8 hd], tp [8 * 32]
//   part [rows, nq, splits, hd + 2]: maximum, sum, weighted values. hd <= 256.
//   Order: a score adds dot(4) upwards in d; the sum of a tile is simd_sum, tiles and splits ascend. Splits and tiles stand at fixed
//   positions, so a query's result does not depend on the path that led to it.
struct KVArgs { uint nkv, hd, cap; };
struct Tile { uint row, tokens, seq, heads; };
struct AttentionArgs { uint nq, nkv, hd, cap, splits, round_query; float scale; };

template <typename T> kernel void kv_store(device const float * k [[buffer(0)]], device const float * v [[buffer(1)]],
        device T * keys [[buffer(2)]], device T * values [[buffer(3)]], constant Seq * seqs [[buffer(4)]], constant KVArgs & a [[buffer(5)]],
        uint3 at [[thread_position_in_grid]]) {
    const uint seq = at.z;
    if (at.x >= a.nkv * a.hd || at.y >= seqs[seq].len) { return; }
    const ulong from = ulong(seqs[seq].row + at.y) * a.nkv * a.hd + at.x;
    const ulong to = ((ulong(seqs[seq].slot) * a.nkv + at.x / a.hd) * a.cap + seqs[seq].pos + at.y) * a.hd + at.x % a.hd;
    keys[to] = T(k[from]);
    values[to] = T(v[from]);
}
template [[host_name("kv_store_f32")]] [[kernel]] decltype(kv_store<float>) kv_store<float>;
template [[host_name("kv_store_f16")]] [[kernel]] decltype(kv_store<half>) kv_store<half>;

template <typename T> kernel void attention(device const float * q [[buffer(0)]], device const T * keys [[buffer(1)]],
        device const T * values [[buffer(2)]], device float * part [[buffer(3)]], constant Seq * seqs [[buffer(4)]],
        constant Tile * tiles [[buffer(5)]], constant AttentionArgs & a [[buffer(6)]], threadgroup float * tq [[threadgroup(0)]],
        threadgroup float * tp [[threadgroup(1)]], uint3 tg [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    const Tile tile = {tiles[tg.x].row, tiles[tg.x].tokens, tiles[tg.x].seq, tiles[tg.x].heads};
    const Seq sq = {seqs[tile.seq].row, seqs[tile.seq].len, seqs[tile.seq].pos, seqs[tile.seq].slot};
    const uint heads = tile.heads >> 16;
    const uint head0 = tg.y * (a.nq / a.nkv) + (tile.heads & 0xffffu);
    const uint n = tile.tokens * heads;
    for (uint i = 0u; i < n; i++) {
        device const float * from = q + (ulong(tile.row + i / heads) * a.nq + head0 + i % heads) * a.hd;
        for (uint d = lane; d < a.hd; d += 32u) { tq[i * a.hd + d] = round_to(from[d] * a.scale, a.round_query); }
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    const uint first = sq.pos + tile.row - sq.row; // the position of the tile's first token
    const uint begin = tg.z * 512u;
    const uint end = min(begin + 512u, first + tile.tokens);
    const ulong base = (ulong(sq.slot) * a.nkv + tg.y) * a.cap * a.hd;
    float top[8];
    float sum[8];
    float acc[64];
    for (uint i = 0u; i < 8u; i++) {
        top[i] = LOWEST;
        sum[i] = 0.0f;
    }
    for (uint i = 0u; i < 64u; i++) { acc[i] = 0.0f; }
    for (uint p0 = begin; p0 < end; p0 += 32u) {
        const uint p = p0 + lane;
        float score[8];
        for (uint i = 0u; i < 8u; i++) { score[i] = 0.0f; }
        if (p < end) {
            device const T * key = keys + base + ulong(p) * a.hd;
            uint d = 0u;
            for (; d + 4u <= a.hd; d += 4u) {
                const float4 k4 = float4(float(key[d]), float(key[d + 1u]), float(key[d + 2u]), float(key[d + 3u]));
                for (uint i = 0u; i < n; i++) {
                    threadgroup const float * x = tq + i * a.hd + d;
                    score[i] += dot(k4, float4(x[0], x[1], x[2], x[3]));
                }
            }
            for (; d < a.hd; d++) {
                for (uint i = 0u; i < n; i++) { score[i] += float(key[d]) * tq[i * a.hd + d]; }
            }
        }
        float fade[8];
        for (uint i = 0u; i < n; i++) {
            const bool seen = p < end && p <= first + i / heads;
            const float best = max(top[i], simd_max(seen ? score[i] : LOWEST));
            const float e = seen ? precise::exp(score[i] - best) : 0.0f;
            fade[i] = precise::exp(top[i] - best);
            sum[i] = sum[i] * fade[i] + simd_sum(e);
            top[i] = best;
            tp[i * 32u + lane] = e;
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint i = 0u; i < n; i++) {
            for (uint j = 0u; j < 8u; j++) { acc[i * 8u + j] *= fade[i]; }
        }
        for (uint r = 0u; r < 32u && p0 + r < end; r++) {
            device const T * value = values + base + ulong(p0 + r) * a.hd;
            for (uint j = 0u; j * 32u + lane < a.hd; j++) {
                const float v = float(value[j * 32u + lane]);
                for (uint i = 0u; i < n; i++) { acc[i * 8u + j] += tp[i * 32u + r] * v; }
            }
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    for (uint i = 0u; i < n; i++) {
        device float * to = part + ((ulong(tile.row + i / heads) * a.nq + head0 + i % heads) * a.splits + tg.z) * (a.hd + 2u);
        for (uint j = 0u; j * 32u + lane < a.hd; j++) { to[2u + j * 32u + lane] = acc[i * 8u + j]; }
        if (lane == 0u) {
            to[0] = top[i];
            to[1] = sum[i];
        }
    }
}
template [[host_name("attention_f32")]] [[kernel]] decltype(attention<float>) attention<float>;
template [[host_name("attention_f16")]] [[kernel]] decltype(attention<half>) attention<half>;

// out[row, head] = R(R(sum of the splits over their weight) * R(sigmoid(gate))); pre is the value before the gate.
//   qg [rows, nq, 2 hd]: q_proj's out, whose second half of each head is the gate. grid (nq, rows), 32 threads.
struct CombineArgs { uint nq, hd, splits, round_out, round_sigmoid, round_gated; };

kernel void attention_combine(device const float * part [[buffer(0)]], device const float * qg [[buffer(1)]], device float * pre [[buffer(2)]],
        device float * out [[buffer(3)]], constant CombineArgs & a [[buffer(4)]], uint2 tg [[threadgroup_position_in_grid]],
        uint lane [[thread_index_in_simdgroup]]) {
    const ulong head = ulong(tg.y) * a.nq + tg.x;
    device const float * from = part + head * a.splits * (a.hd + 2u);
    float top = LOWEST;
    for (uint s = 0u; s < a.splits; s++) { top = max(top, from[s * (a.hd + 2u)]); }
    float sum = 0.0f;
    for (uint s = 0u; s < a.splits; s++) { sum += from[s * (a.hd + 2u) + 1u] * precise::exp(from[s * (a.hd + 2u)] - top); }
    for (uint d = lane; d < a.hd; d += 32u) {
        float o = 0.0f;
        for (uint s = 0u; s < a.splits; s++) {
            o += from[s * (a.hd + 2u) + 2u + d] * precise::exp(from[s * (a.hd + 2u)] - top);
        }
        o = round_to(o / sum, a.round_out);
        const float g = round_to(sigmoid(qg[head * 2u * a.hd + a.hd + d]), a.round_sigmoid);
        pre[head * a.hd + d] = o;
        out[head * a.hd + d] = round_to(o * g, a.round_gated);
    }
}
