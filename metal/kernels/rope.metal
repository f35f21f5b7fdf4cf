// Partial mRoPE in place, from a table the host made: y1 = R(R(x1 cos) - R(x2 sin)); y2 = R(R(x2 cos) + R(x1 sin)).
//   x [rows, heads, hd], pairs (i, i + rot/2) of the first rot dims; cos, sin [rows, rot/2]; grid (ceil(rot/2 / threads), heads, rows).
struct RopeArgs { uint heads, hd, half_rot, round_product, round_out; };

kernel void rope(device float * x [[buffer(0)]], device const float * cosine [[buffer(1)]], device const float * sine [[buffer(2)]],
        constant RopeArgs & a [[buffer(3)]], uint3 at [[thread_position_in_grid]]) {
    if (at.x >= a.half_rot) { return; }
    device float * y = x + (ulong(at.z) * a.heads + at.y) * a.hd + at.x;
    const float c = cosine[ulong(at.z) * a.half_rot + at.x];
    const float s = sine[ulong(at.z) * a.half_rot + at.x];
    const float x1 = y[0];
    const float x2 = y[a.half_rot];
    y[0] = round_to(round_to(x1 * c, a.round_product) - round_to(x2 * s, a.round_product), a.round_out);
    y[a.half_rot] = round_to(round_to(x2 * c, a.round_product) + round_to(x1 * s, a.round_product), a.round_out);
}
