// Depthwise causal convolution of K taps with silu, the state's shift fused: pre[t, c] = R(sum_j w[c, j] x[t-K+1+j, c]);
// out = R(silu(pre)). Columns before the sequence come from the state, which then holds the last K columns, rounded.
//   x, pre, out [rows, C], w [C, K] with w[:, K-1] for the current token, state [slots, C, K], oldest column first; seqs [grid.y]
//   grid (ceil(C / threads), sequences), a thread a channel, K <= 8; pre is written where want_pre is not 0.
//   Order: taps ascending, one product and one sum a tap.
struct ConvArgs { uint channels, taps, round_sum, round_out, round_state, want_pre; };

kernel void conv_silu(device const float * x [[buffer(0)]], device const float * w [[buffer(1)]], device float * state [[buffer(2)]],
        device float * pre [[buffer(3)]], device float * out [[buffer(4)]], constant Seq * seqs [[buffer(5)]],
        constant ConvArgs & a [[buffer(6)]], uint2 at [[thread_position_in_grid]]) {
    if (at.x >= a.channels) { return; }
    const Seq s = {seqs[at.y].row, seqs[at.y].len, seqs[at.y].pos, seqs[at.y].slot};
    device float * st = state + (ulong(s.slot) * a.channels + at.x) * a.taps;
    device const float * wc = w + ulong(at.x) * a.taps;
    float win[8];
    for (uint j = 0u; j < a.taps; j++) { win[j] = st[j]; }
    for (uint t = 0u; t < s.len; t++) {
        const ulong i = ulong(s.row + t) * a.channels + at.x;
        for (uint j = 1u; j < a.taps; j++) { win[j - 1u] = win[j]; }
        win[a.taps - 1u] = x[i];
        float y = wc[0] * win[0];
        for (uint j = 1u; j < a.taps; j++) { y += wc[j] * win[j]; }
        y = round_to(y, a.round_sum);
        if (a.want_pre != 0u) { pre[i] = y; }
        out[i] = round_to(silu(y), a.round_out);
    }
    for (uint j = 0u; j < a.taps; j++) { st[j] = round_to(win[j], a.round_state); }
}
