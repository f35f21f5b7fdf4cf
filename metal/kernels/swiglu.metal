// Gate and up of an MLP, fused: out[t, i] = R(R(silu(R(G[i] . x[t]))) * R(U[i] . x[t])).
//   G, U [rows, cols] in one format, x [tokens, cols], out [tokens, rows]; grid (ceil(rows / 4), ceil(tokens / T)), 64 threads: two
//   simdgroups of two rows of each matrix. Lanes, alignment and order as in linear.
struct SwigluArgs { uint rows, cols, tokens, grid, round, round_silu, round_mul; };

template <typename F, uint T> kernel void swiglu(device const uchar * gq [[buffer(0)]], device const ushort * gscale [[buffer(1)]],
        device const ushort * gleast [[buffer(2)]], device const uchar * uq [[buffer(3)]], device const ushort * uscale [[buffer(4)]],
        device const ushort * uleast [[buffer(5)]], device const float * x [[buffer(6)]], device float * out [[buffer(7)]],
        constant SwigluArgs & a [[buffer(8)]], uint2 tg [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]],
        uint sg [[simdgroup_index_in_threadgroup]]) {
    const Weight g = {gq, gscale, gleast, a.grid};
    const Weight u = {uq, uscale, uleast, a.grid};
    const uint row0 = (tg.x * 2u + sg) * 2u;
    const uint token0 = tg.y * T;
    float gate[2u * T];
    float up[2u * T];
    partial<F, 2u, T>(g, 0, x, a.rows, a.cols, a.tokens, row0, token0, lane, gate);
    partial<F, 2u, T>(u, 0, x, a.rows, a.cols, a.tokens, row0, token0, lane, up);
    for (uint r = 0u; r < 2u; r++) {
        for (uint t = 0u; t < T; t++) {
            const float p = round_to(simd_sum(gate[r * T + t]), a.round);
            const float s = round_to(simd_sum(up[r * T + t]), a.round);
            if (lane == 0u && row0 + r < a.rows && token0 + t < a.tokens) {
                out[ulong(token0 + t) * a.rows + row0 + r] = round_to(round_to(silu(p), a.round_silu) * s, a.round_mul);
            }
        }
    }
}
template [[host_name("swiglu_f32")]] [[kernel]] decltype(swiglu<FormatF32, 1>) swiglu<FormatF32, 1>;
template [[host_name("swiglu_f16")]] [[kernel]] decltype(swiglu<FormatF16, 1>) swiglu<FormatF16, 1>;
template [[host_name("swiglu_bf16")]] [[kernel]] decltype(swiglu<FormatBF16, 1>) swiglu<FormatBF16, 1>;
template [[host_name("swiglu_i8")]] [[kernel]] decltype(swiglu<FormatI8, 1>) swiglu<FormatI8, 1>;
template [[host_name("swiglu_i4")]] [[kernel]] decltype(swiglu<FormatI4, 1>) swiglu<FormatI4, 1>;
template [[host_name("swiglu_u4")]] [[kernel]] decltype(swiglu<FormatU4, 1>) swiglu<FormatU4, 1>;
template [[host_name("swiglu4_f32")]] [[kernel]] decltype(swiglu<FormatF32, 4>) swiglu<FormatF32, 4>;
template [[host_name("swiglu4_f16")]] [[kernel]] decltype(swiglu<FormatF16, 4>) swiglu<FormatF16, 4>;
template [[host_name("swiglu4_bf16")]] [[kernel]] decltype(swiglu<FormatBF16, 4>) swiglu<FormatBF16, 4>;
template [[host_name("swiglu4_i8")]] [[kernel]] decltype(swiglu<FormatI8, 4>) swiglu<FormatI8, 4>;
template [[host_name("swiglu4_i4")]] [[kernel]] decltype(swiglu<FormatI4, 4>) swiglu<FormatI4, 4>;
template [[host_name("swiglu4_u4")]] [[kernel]] decltype(swiglu<FormatU4, 4>) swiglu<FormatU4, 4>;

// The same of two matrices that stand apart, where their formats differ: gate = R(R(silu(gate)) * up), n of them.
struct SiluMulArgs { uint n, round_silu, round_mul; };
kernel void silu_mul(device float * gate [[buffer(0)]], device const float * up [[buffer(1)]], constant SiluMulArgs & a [[buffer(2)]],
        uint i [[thread_position_in_grid]]) {
    if (i < a.n) { gate[i] = round_to(round_to(silu(gate[i]), a.round_silu) * up[i], a.round_mul); }
}
