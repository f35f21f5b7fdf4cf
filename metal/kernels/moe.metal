// Mixture of experts, chosen on the GPU.
//   router: probs = R(softmax of a row's logits); the k largest, lowest id first among equals; weight = R(p / sum of the k).
//   logits, probs [tokens, E], index, weight [tokens, k]; grid (tokens), 32 threads, left [E]. NaN counts as the lowest.
//   Order: lane l adds logits l, l + 32, ...; then simd_sum. The k are summed by falling probability.
struct RouterArgs { uint experts, k, round_prob, round_weight; };

kernel void router(device const float * logits [[buffer(0)]], device float * probs [[buffer(1)]], device int * index [[buffer(2)]],
        device float * weight [[buffer(3)]], constant RouterArgs & a [[buffer(4)]], threadgroup float * left [[threadgroup(0)]],
        uint t [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    device const float * x = logits + ulong(t) * a.experts;
    float top = LOWEST;
    for (uint e = lane; e < a.experts; e += 32u) { top = max(top, x[e]); }
    top = simd_max(top);
    float sum = 0.0f;
    for (uint e = lane; e < a.experts; e += 32u) { sum += precise::exp(x[e] - top); }
    sum = simd_sum(sum);
    for (uint e = lane; e < a.experts; e += 32u) {
        const float p = round_to(precise::exp(x[e] - top) / sum, a.round_prob);
        probs[ulong(t) * a.experts + e] = p;
        left[e] = is_nan(p) ? -1.0f : p; // -2: taken
    }
    float total = 0.0f;
    for (uint k = 0u; k < a.k; k++) {
        float best = -2.0f;
        uint at = a.experts;
        for (uint e = lane; e < a.experts; e += 32u) {
            if (left[e] > best) {
                best = left[e];
                at = e;
            }
        }
        const float most = simd_max(best);
        const uint chosen = simd_min(best == most ? at : a.experts);
        if (chosen % 32u == lane) { left[chosen] = -2.0f; }
        total += most;
        if (lane == 0u) {
            index[t * a.k + k] = int(chosen);
            weight[t * a.k + k] = most;
        }
    }
    if (lane == 0u) {
        for (uint k = 0u; k < a.k; k++) { weight[t * a.k + k] = round_to(weight[t * a.k + k] / total, a.round_weight); }
    }
}

// expert_swiglu: out[t, k, i] = R(R(silu(R(G . x))) * R(U . x)) of expert index[t, k]; G and U of all experts are one matrix each,
//   expert e from row e * stride on. x [tokens, cols], out [slots, rows]; grid (ceil(rows / 4), slots), 64 threads.
// expert_linear: out[s, r] = R(D[r] . x[s]) of expert index[s]; x [slots, cols]; grid (ceil(rows / 8), slots), 64 threads.
//   Lanes, alignment and order as in linear.
struct ExpertArgs { uint rows, cols, k, stride, grid, round, round_silu, round_mul; };

template <typename F> kernel void expert_swiglu(device const uchar * gq [[buffer(0)]], device const ushort * gscale [[buffer(1)]],
        device const ushort * gleast [[buffer(2)]], device const uchar * uq [[buffer(3)]], device const ushort * uscale [[buffer(4)]],
        device const ushort * uleast [[buffer(5)]], device const int * index [[buffer(6)]], device const float * x [[buffer(7)]],
        device float * out [[buffer(8)]], constant ExpertArgs & a [[buffer(9)]], uint2 tg [[threadgroup_position_in_grid]],
        uint lane [[thread_index_in_simdgroup]], uint sg [[simdgroup_index_in_threadgroup]]) {
    const Weight g = {gq, gscale, gleast, a.grid};
    const Weight u = {uq, uscale, uleast, a.grid};
    const uint row0 = (tg.x * 2u + sg) * 2u;
    const ulong base = ulong(index[tg.y]) * a.stride * a.cols;
    device const float * xt = x + ulong(tg.y / a.k) * a.cols;
    float gate[2];
    float up[2];
    partial<F, 2u, 1u>(g, base, xt, a.rows, a.cols, 1u, row0, 0u, lane, gate);
    partial<F, 2u, 1u>(u, base, xt, a.rows, a.cols, 1u, row0, 0u, lane, up);
    for (uint r = 0u; r < 2u; r++) {
        const float p = round_to(simd_sum(gate[r]), a.round);
        const float s = round_to(simd_sum(up[r]), a.round);
        if (lane == 0u && row0 + r < a.rows) {
            out[ulong(tg.y) * a.rows + row0 + r] = round_to(round_to(silu(p), a.round_silu) * s, a.round_mul);
        }
    }
}
template [[host_name("expert_swiglu_f32")]] [[kernel]] decltype(expert_swiglu<FormatF32>) expert_swiglu<FormatF32>;
template [[host_name("expert_swiglu_f16")]] [[kernel]] decltype(expert_swiglu<FormatF16>) expert_swiglu<FormatF16>;
template [[host_name("expert_swiglu_bf16")]] [[kernel]] decltype(expert_swiglu<FormatBF16>) expert_swiglu<FormatBF16>;
template [[host_name("expert_swiglu_i8")]] [[kernel]] decltype(expert_swiglu<FormatI8>) expert_swiglu<FormatI8>;
template [[host_name("expert_swiglu_i4")]] [[kernel]] decltype(expert_swiglu<FormatI4>) expert_swiglu<FormatI4>;
template [[host_name("expert_swiglu_u4")]] [[kernel]] decltype(expert_swiglu<FormatU4>) expert_swiglu<FormatU4>;

template <typename F> kernel void expert_linear(device const uchar * q [[buffer(0)]], device const ushort * scale [[buffer(1)]],
        device const ushort * least [[buffer(2)]], device const int * index [[buffer(3)]], device const float * x [[buffer(4)]],
        device float * out [[buffer(5)]], constant ExpertArgs & a [[buffer(6)]], uint2 tg [[threadgroup_position_in_grid]],
        uint lane [[thread_index_in_simdgroup]], uint sg [[simdgroup_index_in_threadgroup]]) {
    const Weight w = {q, scale, least, a.grid};
    const uint row0 = (tg.x * 2u + sg) * 4u;
    float acc[4];
    partial<F, 4u, 1u>(w, ulong(index[tg.y]) * a.stride * a.cols, x + ulong(tg.y) * a.cols, a.rows, a.cols, 1u, row0, 0u, lane, acc);
    for (uint r = 0u; r < 4u; r++) {
        const float s = simd_sum(acc[r]);
        if (lane == 0u && row0 + r < a.rows) { out[ulong(tg.y) * a.rows + row0 + r] = round_to(s, a.round); }
    }
}
template [[host_name("expert_linear_f32")]] [[kernel]] decltype(expert_linear<FormatF32>) expert_linear<FormatF32>;
template [[host_name("expert_linear_f16")]] [[kernel]] decltype(expert_linear<FormatF16>) expert_linear<FormatF16>;
template [[host_name("expert_linear_bf16")]] [[kernel]] decltype(expert_linear<FormatBF16>) expert_linear<FormatBF16>;
template [[host_name("expert_linear_i8")]] [[kernel]] decltype(expert_linear<FormatI8>) expert_linear<FormatI8>;
template [[host_name("expert_linear_i4")]] [[kernel]] decltype(expert_linear<FormatI4>) expert_linear<FormatI4>;
template [[host_name("expert_linear_u4")]] [[kernel]] decltype(expert_linear<FormatU4>) expert_linear<FormatU4>;

// moe_combine: routed = R(sum over k of R(weight * each)); out = R(routed + R(shared * R(sigmoid(gate)))).
//   each [tokens, k, H], shared, routed, out [tokens, H], gate [tokens]; grid (ceil(H / threads), tokens). Order: k ascending.
struct MoEArgs { uint hidden, k, round_weighted, round_sum, round_sigmoid, round_shared, round_out; };

kernel void moe_combine(device const float * each [[buffer(0)]], device const float * weight [[buffer(1)]], device const float * shared [[buffer(2)]],
        device const float * gate [[buffer(3)]], device float * routed [[buffer(4)]], device float * out [[buffer(5)]],
        constant MoEArgs & a [[buffer(6)]], uint2 at [[thread_position_in_grid]]) {
    if (at.x >= a.hidden) { return; }
    float s = 0.0f;
    for (uint k = 0u; k < a.k; k++) {
        s += round_to(each[(ulong(at.y) * a.k + k) * a.hidden + at.x] * weight[at.y * a.k + k], a.round_weighted);
    }
    s = round_to(s, a.round_sum);
    const ulong i = ulong(at.y) * a.hidden + at.x;
    routed[i] = s;
    const float g = round_to(sigmoid(gate[at.y]), a.round_sigmoid);
    out[i] = round_to(s + round_to(shared[i] * g, a.round_shared), a.round_out);
}
