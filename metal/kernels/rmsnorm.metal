// RMSNorm with gain 1+w (one 0: the gain is stored): out = R(x * rsqrt(mean(x*x) + eps) * (one + w)), one threadgroup a row of n.
//   Row r is x[(r / heads) * token + (r % heads) * head ..]: rows of a matrix, or heads within q_proj's out.
//   w [n], out [rows, n]; grid (rows), threads a multiple of 32 up to 1024, red [threads / 32].
//   Order: thread i sums elements i, i + threads, ...; then simd_sum over lanes, then over simdgroups.
struct NormArgs { uint n, heads, token, head, round; float eps, one; };

// row_sum adds s over all threads of the threadgroup.
inline float row_sum(float s, threadgroup float * red, uint threads, uint lane, uint sg) {
    s = simd_sum(s);
    if (lane == 0u) { red[sg] = s; }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return simd_sum(lane < threads / 32u ? red[lane] : 0.0f);
}

kernel void rmsnorm(device const float * x [[buffer(0)]], device const float * w [[buffer(1)]], device float * out [[buffer(2)]],
        constant NormArgs & a [[buffer(3)]], threadgroup float * red [[threadgroup(0)]], uint row [[threadgroup_position_in_grid]],
        uint tid [[thread_position_in_threadgroup]], uint threads [[threads_per_threadgroup]], uint lane [[thread_index_in_simdgroup]],
        uint sg [[simdgroup_index_in_threadgroup]]) {
    device const float * xr = x + ulong(row / a.heads) * a.token + (row % a.heads) * a.head;
    device float * y = out + ulong(row) * a.n;
    float s = 0.0f;
    for (uint i = tid; i < a.n; i += threads) { s += xr[i] * xr[i]; }
    s = row_sum(s, red, threads, lane, sg);
    const float r = precise::rsqrt(s / float(a.n) + a.eps);
    for (uint i = tid; i < a.n; i += threads) { y[i] = round_to(xr[i] * r * (a.one + w[i]), a.round); }
}
