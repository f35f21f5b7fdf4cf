package enginetest

import (
	"context"
	"slices"

	"sibyl/engine"
)

// Together is a Fake that continues several prompts in the same steps. Asked, if not nil, is told of how many each time.
type Together struct {
	*Fake
	Asked func(prompts int)
}

var _ engine.Batcher = Together{}

// GenerateAll implements engine.Batcher: each prompt's tokens are made by Generate, and shown step by step.
func (f Together) GenerateAll(ctx context.Context, all []engine.Continuation, opt engine.Options, each func(*engine.Token) error) error {
	if f.Asked != nil {
		f.Asked(len(all))
	}
	tokens, failed, longest := make([][]engine.Token, len(all)), error(nil), 0
	for i, c := range all {
		err := f.Generate(ctx, c.Prompt, c.Options(opt), func(t *engine.Token) error {
			u := *t
			u.Seq, u.Ties, u.Top = i, slices.Clone(t.Ties), slices.Clone(t.Top)
			tokens[i] = append(tokens[i], u)
			return nil
		})
		if longest = max(longest, len(tokens[i])); err != nil {
			failed = &engine.PromptError{Seq: i, Err: err}
			break
		}
	}
	for k := range longest {
		for i := range tokens {
			if k >= len(tokens[i]) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := each(&tokens[i][k]); err != nil {
				return err
			}
		}
	}
	return failed
}
