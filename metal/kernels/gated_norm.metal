// Gated RMSNorm of the delta rule's out, per value head: o = R(x * rsqrt(mean(x*x) + eps)); o = R(o * w); o = R(o * silu(z)).
//   x, z, out [rows, n] with n = dv, w [n], gain as it is; grid (rows), threads a multiple of 32, red [threads / 32].
//   Order as in rmsnorm.
struct GatedNormArgs { uint n, round_normed, round_weight, round_out; float eps; };

kernel void gated_norm(device const float * x [[buffer(0)]], device const float * w [[buffer(1)]], device const float * z [[buffer(2)]],
        device float * out [[buffer(3)]], constant GatedNormArgs & a [[buffer(4)]], threadgroup float * red [[threadgroup(0)]],
        uint row [[threadgroup_position_in_grid]], uint tid [[thread_position_in_threadgroup]], uint threads [[threads_per_threadgroup]],
        uint lane [[thread_index_in_simdgroup]], uint sg [[simdgroup_index_in_threadgroup]]) {
    device const float * xr = x + ulong(row) * a.n;
    device const float * zr = z + ulong(row) * a.n;
    float s = 0.0f;
    for (uint i = tid; i < a.n; i += threads) { s += xr[i] * xr[i]; }
    s = row_sum(s, red, threads, lane, sg);
    const float r = precise::rsqrt(s / float(a.n) + a.eps);
    for (uint i = tid; i < a.n; i += threads) {
        float o = round_to(xr[i] * r, a.round_normed);
        o = round_to(o * w[i], a.round_weight);
        out[ulong(row) * a.n + i] = round_to(o * silu(zr[i]), a.round_out);
    }
}
