package suite

import (
	"slices"
	"strings"
	"testing"

	"sibyl/metal/gpu/gputest"
	"sibyl/metal/kernels"
	"sibyl/metal/msl"
	"sibyl/metal/ops"
)

// planted are mistakes of the kinds that kernels have, each one edit of one file. needs are the files it compiles with, ops the kernels
// that it is in: the suite's first failure must name one of them.
var planted = []struct {
	name, file, from, to string
	needs                string
	ops                  string
}{
	{"barrier removed", "rmsnorm", "threadgroup_barrier(mem_flags::mem_threadgroup);", "", "", "rmsnorm"},
	{"lane reduction short by one", "rmsnorm", "lane < threads / 32u ? red", "lane + 1u < threads / 32u ? red", "", "rmsnorm"},
	{"gain w instead of 1+w", "rmsnorm", "(a.one + w[i])", "w[i]", "", "rmsnorm"},
	{"eps left out", "rmsnorm", "/ float(a.n) + a.eps", "/ float(a.n) + 0.0f * a.eps", "", "rmsnorm"},
	{"rounding point left out", "gated_norm", "o = round_to(o * w[i], a.round_weight);", "o = o * w[i];", "rmsnorm", "gated_norm"},
	{"gate before the norm", "gated_norm", "xr[i] * r, a.round_normed", "xr[i] * r * silu(zr[i]), a.round_normed", "rmsnorm", "gated_norm"},
	{"wrong block scale", "common", "half s = as_type<half>(w.scale[i / 32]);\n        const half4 s4", "half s = as_type<half>(w.scale[i / 64]);\n        const half4 s4", "linear", "gemv_i8"},
	{"nibbles swapped", "common", "signed_nibble(p[0], 0u), signed_nibble(p[0], 1u)", "signed_nibble(p[0], 1u), signed_nibble(p[0], 0u)", "linear", "gemv_i4"},
	{"one of two roundings left out", "common", "to_bf16(to_bf16(s * q) + m)", "to_bf16(s * q + m)", "linear", "gemv_u4"},
	{"row index off by one", "linear", "const Eight v = F::eight(w, base + ulong(min(row0 + r, rows - 1u))", "const Eight v = F::eight(w, base + ulong(min(row0 + r + 1u, rows - 1u))", "", "gemv_f32"},
	{"last column left out", "linear", "for (uint c = lane; c < cols; c += 32u)", "for (uint c = lane; c + 1u < cols; c += 32u)", "", "gemv_f32"},
	{"rows beyond the last written", "linear", "lane == 0u && row0 + r < a.rows && token0 + t < a.tokens", "lane == 0u && token0 + t < a.tokens", "", "gemv_f32"},
	{"token stream shifted by one", "linear", "xa[t] = p[0];", "xa[t] = (t + 1u < T ? p[0] : p[1]);", "", "gemv_f32"},
	{"silu on the wrong factor", "swiglu", "round_to(round_to(silu(p), a.round_silu) * s, a.round_mul);", "round_to(round_to(silu(s), a.round_silu) * p, a.round_mul);", "linear", "swiglu_f32"},
	{"conv state not carried", "conv", "st[j] = round_to(win[j], a.round_state);", "st[j] = round_to(st[j], a.round_state);", "", "conv_silu"},
	{"taps reversed", "conv", "y += wc[j] * win[j];", "y += wc[a.taps - j] * win[j];", "", "conv_silu"},
	{"value heads tiled", "gdn_step", "const uint kh = h / (a.nv / a.nk);", "const uint kh = h % a.nk;", "", "gdn_step_f32"},
	{"recurrent state not carried", "gdn_step", "{ st[lane + 32u * i] = S(s[i]); }", "{ st[lane + 32u * i] = st[lane + 32u * i]; }", "", "gdn_step_f32"},
	{"state rounded once a call", "gdn_step", "s[i] = float(S(s[i]));", "", "", "gdn_step_f16"},
	{"decay after the update", "gdn_step", "s[i] *= decay;\n            mem += s[i] * k[i];", "mem += s[i] * k[i];\n            s[i] *= decay;", "", "gdn_step_f32"},
	{"rope pairs interleaved", "rope", "const float x2 = y[a.half_rot];", "const float x2 = y[1];", "", "rope"},
	{"race on threadgroup memory", "attention", "simdgroup_barrier(mem_flags::mem_threadgroup);\n        for (uint i = 0u; i < n; i++) {\n            for (uint j", "for (uint i = 0u; i < n; i++) {\n            for (uint j", "", "attention_f32"},
	{"query read before it is written", "attention", "simdgroup_barrier(mem_flags::mem_threadgroup);\n    const uint first", "const uint first", "", "attention_f32"},
	{"causal mask off by one", "attention", "p <= first + i / heads", "p <= first + i / heads + 1u", "", "attention_f32"},
	{"splits joined without their maxima", "attention", "from[s * (a.hd + 2u) + 2u + d] * precise::exp(from[s * (a.hd + 2u)] - top)", "from[s * (a.hd + 2u) + 2u + d]", "", "attention_f32 attention_combine"},
	{"highest id of a tie", "moe", "if (left[e] > best) {", "if (left[e] >= best) {", "linear", "router"},
	{"weights not renormalised", "moe", "weight[t * a.k + k] / total", "weight[t * a.k + k] / max(total, 1.0f)", "linear", "router"},
	{"expert of another token", "moe", "const ulong base = ulong(index[tg.y]) * a.stride", "const ulong base = ulong(index[tg.y / a.k]) * a.stride", "linear", "expert_swiglu_f32"},
	{"NaN below all", "head", "return is_nan(x) && (!is_nan(y) || i < j);", "return is_nan(y) && (!is_nan(x) || i < j);", "", "head"},
	{"candidate lost between chunks", "head", "uint ties = 0u;\n    float sum = 0.0f;\n    for (uint c = lane;", "uint ties = 0u;\n    float sum = 0.0f;\n    for (uint c = lane + 1u;", "", "head"},
}

// TestPlanted: TestOps, run as it is over the kernels with one mistake, fails, and its first failure names the kernel that has it.
func TestPlanted(t *testing.T) {
	t.Parallel()
	gputest.CPU(t) // or skips
	for i, p := range planted {
		if testing.Short() && i%10 != 0 {
			continue
		}
		t.Run(strings.ReplaceAll(p.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			dev := gputest.Device(t)
			lib, err := dev.Library(plant(t, p.file, p.from, p.to, p.needs))
			if err != nil {
				t.Fatal(err)
			}
			ran := 0
			for _, c := range Cases("") { // all of them, in their order: nothing is picked for the mistake
				r := c.Run(ops.With(dev, lib), seed)
				if strings.Contains(r.Failure, "has no kernel") {
					continue // of a file that this library was built without, to be quick
				}
				if ran++; r.Err == nil {
					continue
				}
				if !slices.Contains(strings.Fields(p.ops), c.Op()) {
					t.Errorf("the first failure is of %s, want one of %s: %v", c.Name(), p.ops, r.Err)
				}
				t.Logf("found by case %d, %s: %v", ran, c.Name(), r.Err)
				return
			}
			t.Errorf("all %d cases passed", ran)
		})
	}
}

// plant gives the kernels' files that a mistake needs, with the mistake.
func plant(t *testing.T, file, from, to, needs string) (out []msl.File) {
	t.Helper()
	keep := map[string]bool{"common.metal": true, file + ".metal": true, needs + ".metal": true}
	for _, f := range kernels.Files() {
		if !keep[f.Name] {
			continue
		}
		if f.Name == file+".metal" {
			if strings.Count(f.Text, from) != 1 {
				t.Fatalf("%s holds %q %d times, want once", f.Name, from, strings.Count(f.Text, from))
			}
			f.Text = strings.Replace(f.Text, from, to, 1)
		}
		out = append(out, f)
	}
	return out
}
