// Residual: x = R(x + y), n elements; grid (ceil(n / threads)).
struct ResidualArgs { uint n, round; };

kernel void residual(device float * x [[buffer(0)]], device const float * y [[buffer(1)]], constant ResidualArgs & a [[buffer(2)]],
        uint i [[thread_position_in_grid]]) {
    if (i < a.n) { x[i] = round_to(x[i] + y[i], a.round); }
}
