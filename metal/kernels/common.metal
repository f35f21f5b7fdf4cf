// What all kernels share: rounding, scalar functions, weights as they are stored. First of the one unit that the device compiles.
#include <metal_stdlib>
#pragma METAL fp contract(off)
using namespace metal;

// Seq is one sequence's part of a ragged batch: rows row .. row+len-1, which stand at pos, pos+1, ... of the state in slot.
struct Seq { uint row, len, pos, slot; };

// round_to gives x on a grid, nearest even: 0 float32, 1 binary16, 2 bfloat16. A contract is such a number for every point.
inline float to_bf16(float x) {
    const uint u = as_type<uint>(x);
    return as_type<float>((u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u);
}
inline float round_to(float x, uint grid) {
    if (grid == 1u) { return float(half(x)); }
    return grid == 2u ? to_bf16(x) : x;
}
inline float4 round4(float4 x, uint grid) {
    if (grid == 1u) { return float4(half4(x)); }
    return grid == 2u ? float4(to_bf16(x.x), to_bf16(x.y), to_bf16(x.z), to_bf16(x.w)) : x;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + precise::exp(-x)); }
inline float silu(float x) { return x / (1.0f + precise::exp(-x)); }
// softplus is log(1 + e^x), x beyond 20. In one operation it keeps what 1 + e^x drops (Kahan's log1p); in three it does not.
inline float softplus(float x, uint three) {
    if (x > 20.0f) { return x; }
    const float e = precise::exp(x);
    const float u = 1.0f + e;
    if (three != 0u) { return precise::log(u); }
    return u == 1.0f ? e : precise::log(u) * (e / (u - 1.0f));
}
inline bool is_nan(float x) { return (as_type<uint>(x) & 0x7fffffffu) > 0x7f800000u; }
// LOWEST stands where a maximum starts.
#define LOWEST -3.402823466e+38f

// Weight is a matrix [rows, cols], row-major, as it is stored: plain elements, or q with a scale (and a minimum) for every 32
// neighbours of a row. An element is rounded to grid when it is read.
struct Weight {
    device const uchar * q;
    device const ushort * scale;
    device const ushort * least;
    uint grid;
};
// Eight neighbours of a row, the first of which has an index that is a multiple of 8. q lies wherever a file has it, at a multiple of an
// element's size: so vectors are read packed.
struct Eight { float4 a, b; };

struct FormatF32 {
    static inline Eight eight(Weight w, ulong i) {
        device const packed_float4 * p = (device const packed_float4 *)(w.q + i * 4);
        return {round4(float4(p[0]), w.grid), round4(float4(p[1]), w.grid)};
    }
    static inline float one(Weight w, ulong i) { return round_to(((device const float *)w.q)[i], w.grid); }
};
struct FormatF16 {
    static inline Eight eight(Weight w, ulong i) {
        device const packed_half4 * p = (device const packed_half4 *)(w.q + i * 2);
        return {round4(float4(half4(p[0])), w.grid), round4(float4(half4(p[1])), w.grid)};
    }
    static inline float one(Weight w, ulong i) { return round_to(float(((device const half *)w.q)[i]), w.grid); }
};
inline float4 from_bf16(ushort4 u) {
    const uint4 v = uint4(u) << 16;
    return as_type<float4>(v);
}
struct FormatBF16 {
    static inline Eight eight(Weight w, ulong i) {
        device const packed_ushort4 * p = (device const packed_ushort4 *)(w.q + i * 2);
        return {round4(from_bf16(ushort4(p[0])), w.grid), round4(from_bf16(ushort4(p[1])), w.grid)};
    }
    static inline float one(Weight w, ulong i) { return round_to(as_type<float>(uint(((device const ushort *)w.q)[i]) << 16), w.grid); }
};
// int8, int4: R16(q * scale), scale fp16: the value that the published graphs compute, not the product.
struct FormatI8 {
    static inline Eight eight(Weight w, ulong i) {
        device const packed_char4 * p = (device const packed_char4 *)(w.q + i);
        const half s = as_type<half>(w.scale[i / 32]);
        const half4 s4 = half4(s, s, s, s);
        return {round4(float4(half4(char4(p[0])) * s4), w.grid), round4(float4(half4(char4(p[1])) * s4), w.grid)};
    }
    static inline float one(Weight w, ulong i) {
        return round_to(float(half(((device const char *)w.q)[i]) * as_type<half>(w.scale[i / 32])), w.grid);
    }
};
// two four-bit numbers a byte, the even column in the low half.
inline float nibble(uchar b, uint odd) { return float(odd != 0u ? b >> 4 : b & 15); }
inline float signed_nibble(uchar b, uint odd) {
    const float v = nibble(b, odd);
    return v > 7.0f ? v - 16.0f : v;
}
struct FormatI4 {
    static inline float4 four(device const uchar * p, half s) {
        const float4 v = float4(signed_nibble(p[0], 0u), signed_nibble(p[0], 1u), signed_nibble(p[1], 0u), signed_nibble(p[1], 1u));
        return float4(half4(v) * half4(s, s, s, s));
    }
    static inline Eight eight(Weight w, ulong i) {
        const half s = as_type<half>(w.scale[i / 32]);
        return {round4(four(w.q + i / 2, s), w.grid), round4(four(w.q + i / 2 + 2, s), w.grid)};
    }
    static inline float one(Weight w, ulong i) {
        return round_to(float(half(signed_nibble(w.q[i / 2], uint(i & 1))) * as_type<half>(w.scale[i / 32])), w.grid);
    }
};
// u4: B(B(scale * q) + minimum), both bf16.
struct FormatU4 {
    static inline float value(float q, float s, float m) { return to_bf16(to_bf16(s * q) + m); }
    static inline Eight eight(Weight w, ulong i) {
        const float s = as_type<float>(uint(w.scale[i / 32]) << 16);
        const float m = as_type<float>(uint(w.least[i / 32]) << 16);
        device const uchar * p = w.q + i / 2;
        return {round4(float4(value(nibble(p[0], 0u), s, m), value(nibble(p[0], 1u), s, m), value(nibble(p[1], 0u), s, m), value(nibble(p[1], 1u), s, m)), w.grid),
                round4(float4(value(nibble(p[2], 0u), s, m), value(nibble(p[2], 1u), s, m), value(nibble(p[3], 0u), s, m), value(nibble(p[3], 1u), s, m)), w.grid)};
    }
    static inline float one(Weight w, ulong i) {
        const float s = as_type<float>(uint(w.scale[i / 32]) << 16);
        const float m = as_type<float>(uint(w.least[i / 32]) << 16);
        return round_to(value(nibble(w.q[i / 2], uint(i & 1)), s, m), w.grid);
    }
};
