// Package graph is the engine that executes a bundle's own functions, operation by operation: what was shipped, not what
// was meant. It knows nothing of Qwen's layers: the graph says what is computed, package aicode how it is written down.
//
// An operation's elements are computed to float32 and rounded to the result's dtype. The arithmetic is a parameter:
//
//   - exact: every operation is R32 of the exact result of its inputs, then the dtype. This is contract coreai-fp16 on a
//     zoo-s1 bundle and coreai-bf16 on an apple-q35 bundle, and must give the CPU engine's bits.
//   - coreai-cpu: the order of roundings of Apple's CPU runtime for Linux, and must give that runtime's bits.
//     Source: docs/contracts.md, coreai-cpu and coreai-cpu-bf16.
//
// Composites (private graphs that an exporter marks as one operation) run through their decomposition. There is one
// exception: in exact arithmetic scaled_dot_product_attention is one operation where its declaration carries the scale,
// since that is what a fused kernel is given and what coreai-fp16 says: no rounding between scores, softmax and P.V. The
// declaration of apple-q35 has no scale, and coreai-bf16 rounds step by step, as the decomposition does.
//
// Operations that carry a decomposition of their own in a region (silu, softmax, broadcasting_add, ...) are executed as
// what they are named: the runtime does so too, and its bits say so. A region is run only for an operation that the table
// does not have; how often is counted and shown in Info.Fallbacks.
package graph
