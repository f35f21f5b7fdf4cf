// Embedding gather: out[t, c] = R(E[ids[t], c]).
//   E [vocab, cols] in any format, ids [tokens], out [tokens, cols]
//   grid (ceil(cols / threads), tokens), any number of threads. The caller has checked the ids.
struct EmbedArgs { uint cols, grid, round; };

template <typename F> kernel void embed(device const uchar * q [[buffer(0)]], device const ushort * scale [[buffer(1)]],
        device const ushort * least [[buffer(2)]], device const int * ids [[buffer(3)]], device float * out [[buffer(4)]],
        constant EmbedArgs & a [[buffer(5)]], uint2 at [[thread_position_in_grid]]) {
    if (at.x >= a.cols) { return; }
    const Weight w = {q, scale, least, a.grid};
    out[ulong(at.y) * a.cols + at.x] = round_to(F::one(w, ulong(ids[at.y]) * a.cols + at.x), a.round);
}
template [[host_name("embed_f32")]] [[kernel]] decltype(embed<FormatF32>) embed<FormatF32>;
template [[host_name("embed_f16")]] [[kernel]] decltype(embed<FormatF16>) embed<FormatF16>;
template [[host_name("embed_bf16")]] [[kernel]] decltype(embed<FormatBF16>) embed<FormatBF16>;
template [[host_name("embed_i8")]] [[kernel]] decltype(embed<FormatI8>) embed<FormatI8>;
template [[host_name("embed_i4")]] [[kernel]] decltype(embed<FormatI4>) embed<FormatI4>;
template [[host_name("embed_u4")]] [[kernel]] decltype(embed<FormatU4>) embed<FormatU4>;
