// The gated delta rule, recurrent form, token loop inside; l2norm, beta and g fused. For each token and value head h:
//   q, k = l2norm of the key head h / (nv / nk); q = R(q * dk^-0.5); beta = R(sigmoid(b)); g = R(-exp(A_log) softplus(a + dt_bias))
//   S *= exp(g); delta = (v - S^T k) * beta; S += k (x) delta; o = R(S^T q); S is then rounded to its own type.
//   l2norm: x2 = R(x*x); s = R(sum x2); s = R(s + eps); r = R(rsqrt(s)); R(x * r)
//   conv [rows, 2 nk dk + nv dv] (q | k | v after silu), a, b [rows, nv], rate = exp(A_log) and dt_bias [nv], out [rows, nv, dv]
//   state [slots, nv, dv, dk] of float or half: the transpose of the caches' [nv, dk, dv], so that a row is contiguous.
//   grid (ceil(dv / 4), nv, sequences), 128 threads: a simdgroup owns one state row; lane l holds columns l, l + 32, ... (dk <= 32 N)
//   Order: a lane adds its columns upwards, then simd_sum. Products and sums are not fused.
//   Taps, where want_taps is not 0: q_l2, k_l2 [rows, nk, dk], g, beta [rows, nv].
struct GdnArgs {
    uint nk, nv, dk, dv, three, want_taps;
    uint r_square, r_sum, r_eps, r_rsqrt, r_l2, r_qscale, r_beta, r_g, r_core;
    float eps, qscale;
};

template <uint N> inline void l2norm(thread float * x, constant GdnArgs & a) {
    float s = 0.0f;
    for (uint i = 0u; i < N; i++) { s += round_to(x[i] * x[i], a.r_square); }
    s = round_to(simd_sum(s), a.r_sum);
    s = round_to(s + a.eps, a.r_eps);
    const float r = round_to(precise::rsqrt(s), a.r_rsqrt);
    for (uint i = 0u; i < N; i++) { x[i] = round_to(x[i] * r, a.r_l2); }
}

template <typename S, uint N> kernel void gdn_step(device const float * conv [[buffer(0)]], device const float * av [[buffer(1)]],
        device const float * bv [[buffer(2)]], device const float * rate [[buffer(3)]], device const float * dt_bias [[buffer(4)]],
        device S * state [[buffer(5)]], device float * out [[buffer(6)]], device float * tap_q [[buffer(7)]], device float * tap_k [[buffer(8)]],
        device float * tap_g [[buffer(9)]], device float * tap_beta [[buffer(10)]], constant Seq * seqs [[buffer(11)]],
        constant GdnArgs & a [[buffer(12)]], uint3 tg [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]],
        uint sg [[simdgroup_index_in_threadgroup]]) {
    const uint e = tg.x * 4u + sg;
    const uint h = tg.y;
    if (e >= a.dv) { return; }
    const Seq sq = {seqs[tg.z].row, seqs[tg.z].len, seqs[tg.z].pos, seqs[tg.z].slot};
    const uint kh = h / (a.nv / a.nk);
    const uint width = 2u * a.nk * a.dk + a.nv * a.dv;
    device S * st = state + ((ulong(sq.slot) * a.nv + h) * a.dv + e) * a.dk;
    float s[N];
    for (uint i = 0u; i < N; i++) { s[i] = lane + 32u * i < a.dk ? float(st[lane + 32u * i]) : 0.0f; }
    for (uint t = 0u; t < sq.len; t++) {
        const ulong row = sq.row + t;
        device const float * c = conv + row * width;
        float q[N];
        float k[N];
        for (uint i = 0u; i < N; i++) {
            const uint d = lane + 32u * i;
            q[i] = d < a.dk ? c[kh * a.dk + d] : 0.0f;
            k[i] = d < a.dk ? c[(a.nk + kh) * a.dk + d] : 0.0f;
        }
        l2norm<N>(q, a);
        l2norm<N>(k, a);
        const float beta = round_to(sigmoid(bv[row * a.nv + h]), a.r_beta);
        const float g = round_to(-rate[h] * softplus(av[row * a.nv + h] + dt_bias[h], a.three), a.r_g);
        if (a.want_taps != 0u && e == 0u) {
            for (uint i = 0u; i < N; i++) {
                const uint d = lane + 32u * i;
                if (d < a.dk && h % (a.nv / a.nk) == 0u) {
                    tap_q[(row * a.nk + kh) * a.dk + d] = q[i];
                    tap_k[(row * a.nk + kh) * a.dk + d] = k[i];
                }
            }
            if (lane == 0u) {
                tap_g[row * a.nv + h] = g;
                tap_beta[row * a.nv + h] = beta;
            }
        }
        const float decay = precise::exp(g);
        float mem = 0.0f;
        for (uint i = 0u; i < N; i++) {
            s[i] *= decay;
            mem += s[i] * k[i];
        }
        mem = simd_sum(mem);
        const float delta = (c[2u * a.nk * a.dk + h * a.dv + e] - mem) * beta;
        float o = 0.0f;
        for (uint i = 0u; i < N; i++) {
            s[i] += k[i] * delta;
            o += s[i] * round_to(q[i] * a.qscale, a.r_qscale);
            s[i] = float(S(s[i]));
        }
        o = simd_sum(o);
        if (lane == 0u) { out[(row * a.nv + h) * a.dv + e] = round_to(o, a.r_core); }
    }
    for (uint i = 0u; i < N; i++) {
        if (lane + 32u * i < a.dk) { st[lane + 32u * i] = S(s[i]); }
    }
}
template [[host_name("gdn_step_f32_1")]] [[kernel]] decltype(gdn_step<float, 1>) gdn_step<float, 1>;
template [[host_name("gdn_step_f32_2")]] [[kernel]] decltype(gdn_step<float, 2>) gdn_step<float, 2>;
template [[host_name("gdn_step_f32_4")]] [[kernel]] decltype(gdn_step<float, 4>) gdn_step<float, 4>;
template [[host_name("gdn_step_f32_8")]] [[kernel]] decltype(gdn_step<float, 8>) gdn_step<float, 8>;
template [[host_name("gdn_step_f16_1")]] [[kernel]] decltype(gdn_step<half, 1>) gdn_step<half, 1>;
template [[host_name("gdn_step_f16_2")]] [[kernel]] decltype(gdn_step<half, 2>) gdn_step<half, 2>;
template [[host_name("gdn_step_f16_4")]] [[kernel]] decltype(gdn_step<half, 4>) gdn_step<half, 4>;
template [[host_name("gdn_step_f16_8")]] [[kernel]] decltype(gdn_step<half, 8>) gdn_step<half, 8>;
