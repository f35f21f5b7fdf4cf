// Package gdn is the GatedDeltaNet mixer: in projections, depthwise causal conv, gates, l2norm, the gated delta
// rule, gated RMSNorm and out projection. Source: transformers 5.23, models/qwen3_5/modeling_qwen3_5.py
// (Qwen3_5GatedDeltaNet.forward, torch_recurrent_gated_delta_rule, torch_chunk_gated_delta_rule).
//
// The formulas, once. x [T, H] is the normed residual stream; nk key heads of dk, nv value heads of dv; value head
// h uses key head h/(nv/nk).
//
//	qkv = x Wqkv^T; z = x Wz^T; b = x Wb^T; a = x Wa^T
//	[q|k|v] = silu(conv(qkv)),          conv[t, c] = sum_j w[c, j] * qkv[t-3+j, c], zeros before the sequence
//	q = q * rsqrt(sum(q*q) + 1e-6),     the same for k: a sum, not a mean
//	beta = sigmoid(b)
//	g = -exp(A_log) * softplus(a + dt_bias)
//	q = q * dk^-0.5
//	S = exp(g) * S                      per value head, S [dk, dv], decay first
//	S = S + k (x) (beta * (v - S^T k))
//	o = S^T q                           output after the update
//	y = (o * rsqrt(mean(o*o) + eps) * w) * silu(z), w [dv] as it is, not 1+w
//	out = y Wout^T
//
// The recurrent form (recurrent.go) is the definition. The chunk form (chunk.go) agrees with it while the decay
// summed over a chunk is small and is used only when asked for.
package gdn
