// What decoding asks of a row of logits [rows, n], each in two stages: chunks of 2048 first, then the chunks of a row.
//   argmax: the largest value and its id, the lowest id of a tie; NaN counts as the largest. ties: how many ids have that value.
//   lse: log-sum-exp = log(sum exp(x - max)) + max.
//   stage 1: grid (chunks, rows), 32 threads; best [rows, chunks] {id, value's bits, ties, sum's bits}
//   stage 2: grid (1, rows), 32 threads; out [rows] {id, value's bits, ties, lse's bits}
//   Order: lane l takes elements l, l + 32, ...; then simd reductions; chunks likewise.
struct HeadArgs { uint n, chunks; };

// above says whether value x of id i stands before value y of id j.
inline bool above(float x, uint i, float y, uint j) {
    if (is_nan(x) || is_nan(y)) { return is_nan(x) && (!is_nan(y) || i < j); }
    return x > y || (x == y && i < j);
}

// first gives the lane whose (x, id) stands before all others to every lane. Ids are distinct or NONE.
#define NONE 0xffffffffu
inline void first_of(thread float * x, thread uint * id) {
    for (ushort m = 16; m > 0; m = ushort(m / 2)) {
        const float y = simd_shuffle_xor(x[0], m);
        const uint j = simd_shuffle_xor(id[0], m);
        if (j != NONE && (id[0] == NONE || above(y, j, x[0], id[0]))) {
            x[0] = y;
            id[0] = j;
        }
    }
}

kernel void head_chunks(device const float * logits [[buffer(0)]], device uint4 * best [[buffer(1)]], constant HeadArgs & a [[buffer(2)]],
        uint2 tg [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    device const float * x = logits + ulong(tg.y) * a.n;
    const uint end = min((tg.x + 1u) * 2048u, a.n);
    float value[1] = {0.0f};
    uint id[1] = {NONE};
    for (uint i = tg.x * 2048u + lane; i < end; i += 32u) {
        if (id[0] == NONE || above(x[i], i, value[0], id[0])) {
            value[0] = x[i];
            id[0] = i;
        }
    }
    first_of(value, id);
    uint ties = 0u;
    float sum = 0.0f;
    for (uint i = tg.x * 2048u + lane; i < end; i += 32u) {
        ties += x[i] == value[0] || i == id[0] ? 1u : 0u;
        sum += precise::exp(x[i] - value[0]);
    }
    ties = simd_sum(ties);
    sum = simd_sum(sum);
    if (lane == 0u) { best[ulong(tg.y) * a.chunks + tg.x] = uint4(id[0], as_type<uint>(value[0]), ties, as_type<uint>(sum)); }
}

kernel void head_rows(device const uint4 * best [[buffer(0)]], device uint4 * out [[buffer(1)]], constant HeadArgs & a [[buffer(2)]],
        uint2 tg [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    device const uint4 * row = best + ulong(tg.y) * a.chunks;
    float value[1] = {0.0f};
    uint id[1] = {NONE};
    for (uint c = lane; c < a.chunks; c += 32u) {
        const float v = as_type<float>(row[c].y);
        if (id[0] == NONE || above(v, row[c].x, value[0], id[0])) {
            value[0] = v;
            id[0] = row[c].x;
        }
    }
    first_of(value, id);
    uint ties = 0u;
    float sum = 0.0f;
    for (uint c = lane; c < a.chunks; c += 32u) {
        const float v = as_type<float>(row[c].y);
        ties += v == value[0] || row[c].x == id[0] ? row[c].z : 0u;
        sum += as_type<float>(row[c].w) * precise::exp(v - value[0]);
    }
    ties = simd_sum(ties);
    sum = simd_sum(sum);
    if (lane == 0u) { out[tg.y] = uint4(id[0], as_type<uint>(value[0]), ties, as_type<uint>(precise::log(sum) + value[0])); }
}

// topk: the k largest of every chunk of a row, largest first, lowest id first among equals; NaN counts as the largest.
//   values, ids [rows, n] (ids only where by_id is not 0; an id of NONE is no candidate); outv, outi [rows, chunks, k]
//   grid (chunks, rows), 32 threads, k <= 64. Run on the outs of a first run, with one chunk, it gives the row's.
struct TopKArgs { uint n, chunks, chunk, k, by_id; };

kernel void topk(device const float * values [[buffer(0)]], device const uint * ids [[buffer(1)]], device float * outv [[buffer(2)]],
        device uint * outi [[buffer(3)]], constant TopKArgs & a [[buffer(4)]], uint2 tg [[threadgroup_position_in_grid]],
        uint lane [[thread_index_in_simdgroup]]) {
    device const float * x = values + ulong(tg.y) * a.n;
    device const uint * names = ids + ulong(tg.y) * a.n;
    const uint end = min((tg.x + 1u) * a.chunk, a.n);
    const ulong to = (ulong(tg.y) * a.chunks + tg.x) * a.k;
    float last = 0.0f;
    uint last_id = NONE;
    for (uint k = 0u; k < a.k; k++) {
        float value[1] = {0.0f};
        uint id[1] = {NONE};
        for (uint i = tg.x * a.chunk + lane; i < end; i += 32u) {
            const uint name = a.by_id != 0u ? names[i] : i;
            if (name == NONE || (k > 0u && (last_id == NONE || !above(last, last_id, x[i], name)))) { continue; }
            if (id[0] == NONE || above(x[i], name, value[0], id[0])) {
                value[0] = x[i];
                id[0] = name;
            }
        }
        first_of(value, id);
        last = value[0];
        last_id = id[0];
        if (lane == 0u) {
            outv[to + k] = last;
            outi[to + k] = last_id;
        }
    }
}
