// Matrix times vectors: out[t, r] = R(sum_c W[r, c] x[t, c]), float32 accumulation, for one token (gemv) or tiles of four (gemm).
//   W [rows, cols] in any format (cols a multiple of 32 for the quantized), x [tokens, cols], out [tokens, rows]
//   grid (ceil(rows / 8), ceil(tokens / T)), 64 threads: two simdgroups of four rows each, which share what they read of x.
//   Where cols is a multiple of 8 lane l takes columns 8l .. 8l+7, then 256 further on (four lanes a block of 32): x must be aligned
//   to 16 bytes, W to 8. Otherwise lane l takes columns l, l + 32, ...
//   Order: a lane adds dot(4) + dot(4) a step; then simd_sum. It is the same for gemv and gemm, so their results are.
struct LinearArgs { uint rows, cols, tokens, grid, round; };

// ROWS rows from row0 on against T tokens from token0 on, into acc before simd_sum.
template <typename F, uint ROWS, uint T>
inline void partial(Weight w, ulong base, device const float * x, uint rows, uint cols, uint tokens, uint row0, uint token0, uint lane,
        thread float * acc) {
    for (uint i = 0u; i < ROWS * T; i++) { acc[i] = 0.0f; }
    if (cols % 8u == 0u) {
        for (uint c = lane * 8u; c < cols; c += 256u) {
            float4 xa[T];
            float4 xb[T];
            for (uint t = 0u; t < T; t++) {
                device const float4 * p = (device const float4 *)(x + ulong(min(token0 + t, tokens - 1u)) * cols + c);
                xa[t] = p[0];
                xb[t] = p[1];
            }
            for (uint r = 0u; r < ROWS; r++) {
                const Eight v = F::eight(w, base + ulong(min(row0 + r, rows - 1u)) * cols + c);
                for (uint t = 0u; t < T; t++) { acc[r * T + t] += dot(v.a, xa[t]) + dot(v.b, xb[t]); }
            }
        }
        return;
    }
    for (uint c = lane; c < cols; c += 32u) {
        for (uint r = 0u; r < ROWS; r++) {
            const float v = F::one(w, base + ulong(min(row0 + r, rows - 1u)) * cols + c);
            for (uint t = 0u; t < T; t++) { acc[r * T + t] += v * x[ulong(min(token0 + t, tokens - 1u)) * cols + c]; }
        }
    }
}

template <typename F, uint T> kernel void linear(device const uchar * q [[buffer(0)]], device const ushort * scale [[buffer(1)]],
        device const ushort * least [[buffer(2)]], device const float * x [[buffer(3)]], device float * out [[buffer(4)]],
        constant LinearArgs & a [[buffer(5)]], uint2 tg [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]],
        uint sg [[simdgroup_index_in_threadgroup]]) {
    const Weight w = {q, scale, least, a.grid};
    const uint row0 = (tg.x * 2u + sg) * 4u;
    const uint token0 = tg.y * T;
    float acc[4u * T];
    partial<F, 4u, T>(w, 0, x, a.rows, a.cols, a.tokens, row0, token0, lane, acc);
    for (uint r = 0u; r < 4u; r++) {
        for (uint t = 0u; t < T; t++) {
            const float s = simd_sum(acc[r * T + t]);
            if (lane == 0u && row0 + r < a.rows && token0 + t < a.tokens) {
                out[ulong(token0 + t) * a.rows + row0 + r] = round_to(s, a.round);
            }
        }
    }
}
template [[host_name("gemv_f32")]] [[kernel]] decltype(linear<FormatF32, 1>) linear<FormatF32, 1>;
template [[host_name("gemv_f16")]] [[kernel]] decltype(linear<FormatF16, 1>) linear<FormatF16, 1>;
template [[host_name("gemv_bf16")]] [[kernel]] decltype(linear<FormatBF16, 1>) linear<FormatBF16, 1>;
template [[host_name("gemv_i8")]] [[kernel]] decltype(linear<FormatI8, 1>) linear<FormatI8, 1>;
template [[host_name("gemv_i4")]] [[kernel]] decltype(linear<FormatI4, 1>) linear<FormatI4, 1>;
template [[host_name("gemv_u4")]] [[kernel]] decltype(linear<FormatU4, 1>) linear<FormatU4, 1>;
template [[host_name("gemm_f32")]] [[kernel]] decltype(linear<FormatF32, 4>) linear<FormatF32, 4>;
template [[host_name("gemm_f16")]] [[kernel]] decltype(linear<FormatF16, 4>) linear<FormatF16, 4>;
template [[host_name("gemm_bf16")]] [[kernel]] decltype(linear<FormatBF16, 4>) linear<FormatBF16, 4>;
template [[host_name("gemm_i8")]] [[kernel]] decltype(linear<FormatI8, 4>) linear<FormatI8, 4>;
template [[host_name("gemm_i4")]] [[kernel]] decltype(linear<FormatI4, 4>) linear<FormatI4, 4>;
template [[host_name("gemm_u4")]] [[kernel]] decltype(linear<FormatU4, 4>) linear<FormatU4, 4>;
