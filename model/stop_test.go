package model

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"sibyl/engine"
	"sibyl/internal/kernels"
)

// endAt makes the n-th product of e's arithmetic find that the context has ended, and counts the products that are made
// whole after that.
func endAt(e *Engine, n int, end func()) (after *int) {
	own, begun, ended := *kernels.Exact, 0, 0
	if e.arith.Name == kernels.Fast.Name {
		own = *kernels.Fast
	}
	wrap := func(f func(*kernels.Pool, []float32, []float32, int, *kernels.Matrix)) func(*kernels.Pool, []float32, []float32, int, *kernels.Matrix) {
		return func(p *kernels.Pool, out, x []float32, rows int, w *kernels.Matrix) {
			if begun++; begun == n {
				end()
			}
			f(p, out, x, rows, w)
			if begun >= n {
				ended++
			}
		}
	}
	own.Linear, own.Matmul, own.Linears = wrap(own.Linear), wrap(own.Matmul), nil
	e.arith = &own
	return &ended
}

// TestStopsInsideAProduct: when its context ends, a pass ends inside the product it is at, wherever that is, with the
// context's error; the engine computes on as if nothing had been.
func TestStopsInsideAProduct(t *testing.T) {
	t.Parallel()
	ids := make([]int32, 40)
	for i := range ids {
		ids[i] = int32(i*7 + 1)
	}
	for _, mode := range []string{"exact", "fast"} {
		for _, threads := range []int{1, 4} {
			for _, stream := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/stream=%v", mode, threads, stream), func(t *testing.T) {
					t.Parallel()
					spec := engine.Spec{Model: "", Mode: mode, Threads: threads, Stream: stream}
					want := run1(t, openSpec(t, spec), engine.Prompt{IDs: ids}, engine.Path{})
					e := openSpec(t, spec)
					plain := e.arith
					for _, n := range []int{1, 2, 11, 40} {
						for what, run := range map[string]func(context.Context) error{
							"Score": func(ctx context.Context) error {
								return e.Score(ctx, []engine.Prompt{{IDs: ids}}, engine.Want{}, func(*engine.Position) error {
									return errors.New("a position was shown")
								})
							},
							"Generate": func(ctx context.Context) error {
								return e.Generate(ctx, engine.Prompt{IDs: ids}, engine.Options{MaxTokens: 3}, func(*engine.Token) error {
									return errors.New("a token was shown")
								})
							},
						} {
							ctx, cancel := context.WithCancel(t.Context())
							after := endAt(e, n, cancel)
							if err := run(ctx); !errors.Is(err, context.Canceled) {
								t.Errorf("%s, product %d: %v, want %v", what, n, err, context.Canceled)
							}
							if *after > 0 {
								t.Errorf("%s, product %d: %d products after the end of the context", what, n, *after)
							}
							e.arith = plain
						}
					}
					if got := run1(t, e, engine.Prompt{IDs: ids}, engine.Path{}); !sameTaps(got, want) {
						t.Error("a pass after broken ones gives other values")
					}
				})
			}
		}
	}
}
