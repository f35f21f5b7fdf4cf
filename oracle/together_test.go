package oracle

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/engine/enginetest"
)

// asTogether gives e, if it is a Fake, as one that continues prompts together.
func asTogether(e engine.Engine, asked *int) engine.Engine {
	if f, ok := e.(*enginetest.Fake); ok {
		return enginetest.Together{Fake: f, Asked: func(n int) { *asked = max(*asked, n) }}
	}
	return e
}

// TestGateTogether: a gate of engines that continue all prompts together has the result of one that goes prompt by prompt, to the
// byte, whatever TEST does.
func TestGateTogether(t *testing.T) {
	t.Parallel()
	for _, tt := range gateCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var results [2]string
			for i := range results {
				s, p := gateSetup(tt.ref, tt.test)
				if tt.change != nil {
					tt.change(&s, &p)
				}
				asked := 0
				if i == 1 {
					s.Ref, s.Test = asTogether(s.Ref, &asked), asTogether(s.Test, &asked)
				}
				r, err := Gate(t.Context(), s, p)
				if err != nil {
					t.Fatal(err)
				}
				data, err := json.Marshal(struct {
					Result *GateResult
					Shown  []Shown
				}{r, r.shown})
				if err != nil {
					t.Fatal(err)
				}
				if results[i] = string(data); i == 1 && asked != len(s.Prompts) && p.MaxTokens > 0 && len(s.Prompts) > 1 {
					if _, ok := s.Test.(enginetest.Together); ok && !s.Test.Info().Streams {
						t.Errorf("asked for %d prompts at once, want %d", asked, len(s.Prompts))
					}
				}
			}
			if results[0] != results[1] {
				t.Errorf("together:\n%s\nprompt by prompt:\n%s", results[1], results[0])
			}
		})
	}
}

// TestGateTogetherFails: the error of one prompt is told of that prompt, by either side, and what the gate itself finds wrong too.
func TestGateTogetherFails(t *testing.T) {
	t.Parallel()
	name := gatePrompts[1].Name
	atSecond := func(at enginetest.At) error {
		if at.Call == enginetest.Generate && slices.Equal(at.Prefix, gatePrompts[1].IDs) {
			return errors.New("the disk is gone")
		}
		return nil
	}
	for _, tt := range []struct {
		name, want string
		change     func(s *Setup)
	}{
		{"reference", "the reference, decoding after prompt " + name + ": the disk is gone", func(s *Setup) { fake(s.Ref).Fail = atSecond }},
		{"test", "the test engine, decoding after prompt " + name + ": the disk is gone", func(s *Setup) { fake(s.Test).Fail = atSecond }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for i := range 2 {
				s, p := gateSetup(nil, nil)
				tt.change(&s)
				if asked := 0; i == 1 {
					s.Ref, s.Test = asTogether(s.Ref, &asked), asTogether(s.Test, &asked)
				}
				r, err := Gate(t.Context(), s, p)
				if err != nil {
					t.Fatal(err)
				}
				if r.Decision != Inconclusive || !strings.Contains(strings.Join(r.Reasons, "\n"), tt.want) {
					t.Errorf("%s, %q, want a reason with %q", r.Decision, r.Reasons, tt.want)
				}
			}
		})
	}
}

// TestGateNoiseFails: the noise is measured beside the other parts, but its failure is told first, as the first part's, and what
// the others found stays.
func TestGateNoiseFails(t *testing.T) {
	t.Parallel()
	s, p := gateSetup(nil, nil)
	fake(s.Test).Fail = func(at enginetest.At) error {
		if at.Call == enginetest.Generate {
			return errors.New("the rollout is gone")
		}
		return nil
	}
	twin := enginetest.New(nil)
	twin.Fail = func(enginetest.At) error { return errors.New("the disk is gone") }
	s.Controls = []Control{{Kind: ControlNoise, Label: "noise", Engine: twin}}
	r, err := Gate(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Reasons) < 2 || !strings.Contains(r.Reasons[0], "control noise, teacher forcing: the disk is gone") || !strings.Contains(r.Reasons[1], "the rollout is gone") {
		t.Errorf("reasons %q, want that of the noise before that of the rollout", r.Reasons)
	}
	if got := r.part(Qualification).Status; got != PartBroke {
		t.Errorf("qualification %s, want %s", got, PartBroke)
	}
	if got := r.part(TeacherForced).Status; got != PartRan {
		t.Errorf("teacher forcing %s, want %s", got, PartRan)
	}
}
