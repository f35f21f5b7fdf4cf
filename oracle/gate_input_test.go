package oracle

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/engine/enginetest"
	"sibyl/internal/inputerr"
)

var updateGate = flag.Bool("update-gate", false, "write testdata/gate/*.txt from what is rendered now")

func TestGateRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, why string
		change    func(s *Setup, p *Protocol)
		want      string
	}{
		{"no-prompt", "nothing to ask", func(s *Setup, _ *Protocol) { s.Prompts = nil }, "gate: --prompts: found no prompt, want at least one"},
		{"empty-prompt", "a prompt of no token has no position", func(s *Setup, _ *Protocol) { s.Prompts = []Prompt{{Name: "x", IDs: []int32{1}}, {Name: "y"}} },
			`gate: prompt 2 ("y"): found no token, want at least one; leave it out, or give it some text`},
		{"negative-margin", "every flip would be confident", func(_ *Setup, p *Protocol) { p.Margin = -1 }, "gate: --margin: found -1, want a number >= 0"},
		{"nan-margin", "NaN compares with nothing", func(_ *Setup, p *Protocol) { p.Margin = math.NaN() }, "gate: --margin: found NaN"},
		{"inf-margin", "no position would qualify", func(_ *Setup, p *Protocol) { p.Margin = math.Inf(1) }, "gate: --margin: found +Inf"},
		{"unit", "a margin has a unit", func(_ *Setup, p *Protocol) { p.Unit = "nats" }, `gate: --margin-unit: found "nats", want logit_gap or prob_gap`},
		{"prob-above-one", "no probability gap is above 1", func(_ *Setup, p *Protocol) { p.Unit, p.Margin = ProbGap, 1.5 }, "gate: --margin: found 1.5, want at most 1"},
		{"share", "a percentage by mistake", func(_ *Setup, p *Protocol) { p.MinQualified = 50 }, "gate: --min-qualified: found 50, want a share from 0 to 1"},
		{"tokens", "fewer than none", func(_ *Setup, p *Protocol) { p.MaxTokens = -1 }, "gate: --max-tokens: found -1"},
		{"top-k", "a margin needs two", func(_ *Setup, p *Protocol) { p.TopK = 1 }, "gate: top-k: found 1, want 2 to 1024"},
		{"top-k-huge", "an unchecked number would be allocated", func(_ *Setup, p *Protocol) { p.TopK = 1 << 40 }, "want 2 to 1024"},
		{"controls", "there are two places to run controls", func(_ *Setup, p *Protocol) { p.Controls = "somewhere" }, `gate: controls: found "somewhere", want at flips or everywhere`},
		{"accept", "a defect cannot be accepted", func(_ *Setup, p *Protocol) { p.Accept = []Verdict{Quant, Defect} }, `gate: --accept: found "DEFECT", want quant, rounding or both`},
		{"vocabulary", "REF's ids are not TEST's: two different models", func(s *Setup, _ *Protocol) {
			c := *fake(s.Test).Config
			c.VocabSize = 21
			fake(s.Test).Config = &c
		}, "the test engine, teacher forcing: prompt 0: ids[3]: found 21, want 0..20"},
		{"too-long", "more tokens than the model has positions", func(_ *Setup, p *Protocol) { p.MaxTokens = 100 }, "the reference, decoding after prompt a: prompt: length: found 3 tokens and 100 to generate, want at most 96 (max_position_embeddings of tiny/config.json)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, p := gateSetup(nil, nil)
			tt.change(&s, &p)
			_, err := Gate(t.Context(), s, p)
			var bad *inputerr.Error
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Gate = %v\nwant an input error with %q\nwhy: %s", err, tt.want, tt.why)
			}
		})
	}
}

// misbehaving wraps an engine and breaks what the gate relies on.
type misbehaving struct {
	engine.Engine
	score    func(each func(*engine.Position) error) func(*engine.Position) error
	generate func(each func(*engine.Token) error) func(*engine.Token) error
}

func (m misbehaving) Score(ctx context.Context, p []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
	if m.score != nil {
		each = m.score(each)
	}
	return m.Engine.Score(ctx, p, w, each)
}

func (m misbehaving) Generate(ctx context.Context, p engine.Prompt, o engine.Options, each func(*engine.Token) error) error {
	if m.generate != nil {
		each = m.generate(each)
	}
	return m.Engine.Generate(ctx, p, o, each)
}

func TestGateDistrustsEngines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, why string
		m         misbehaving
		want      string
	}{
		{"skips-a-position", "a missing position would pass unseen", misbehaving{score: func(each func(*engine.Position) error) func(*engine.Position) error {
			return func(p *engine.Position) error {
				if p.Seq == 1 && p.Pos == 3 {
					return nil
				}
				return each(p)
			}
		}}, "left out 1 positions"},
		{"out-of-turn", "positions that come in another order would be compared with the wrong ones", misbehaving{score: func(each func(*engine.Position) error) func(*engine.Position) error {
			return func(p *engine.Position) error {
				q := *p
				q.Pos ^= 1
				return each(&q)
			}
		}}, "showed position 1 of prompt 0 out of turn"},
		{"no-such-prompt", "an index from an engine is not to be trusted", misbehaving{score: func(each func(*engine.Position) error) func(*engine.Position) error {
			return func(p *engine.Position) error {
				q := *p
				q.Seq = 7
				return each(&q)
			}
		}}, "showed position 0 of prompt 7 out of turn"},
		{"ends-early", "a rollout that stops before REF's is no agreement", misbehaving{generate: func(each func(*engine.Token) error) func(*engine.Token) error {
			return func(t *engine.Token) error {
				if t.Index == 2 {
					return nil
				}
				return each(t)
			}
		}}, "ended after 2 of 3 tokens"},
		{"too-many", "or one that goes on after it: there is nothing to compare with", misbehaving{generate: func(each func(*engine.Token) error) func(*engine.Token) error {
			return func(t *engine.Token) error {
				if err := each(t); err != nil || t.Index < 2 {
					return err
				}
				u := *t
				u.Index++
				return each(&u)
			}
		}}, "showed token 3 where token 3 of 3 was next"},
		{"token-twice", "or one that counts a token again", misbehaving{generate: func(each func(*engine.Token) error) func(*engine.Token) error {
			return func(t *engine.Token) error {
				if err := each(t); err != nil {
					return err
				}
				return each(t)
			}
		}}, "showed token 0 where token 1 of 3 was next"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, p := gateSetup(nil, nil)
			tt.m.Engine = s.Test
			s.Test = tt.m
			r, err := Gate(t.Context(), s, p)
			if err != nil {
				t.Fatal(err)
			}
			if r.Decision != Inconclusive || !strings.Contains(r.Headline, tt.want) {
				t.Errorf("%s: %s, want INCONCLUSIVE with %q\nwhy: %s", r.Decision, r.Headline, tt.want, tt.why)
			}
		})
	}
}

func TestGateScoreNotShown(t *testing.T) {
	t.Parallel()
	s, p := gateSetup(nil, nil)
	s.Test = noScore{s.Test}
	r, err := Gate(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	// The rollout alone is evidence, of fewer positions: it decides, and the reader is told.
	if r.Decision != Pass || r.part(TeacherForced).Status != PartNotShown || len(r.Warnings) != 1 {
		t.Errorf("%s, %+v, warnings %q; want PASS by the rollout with a warning", r.Headline, r.Parts, r.Warnings)
	}
	p.MaxTokens = 0
	if r, err = Gate(t.Context(), s, p); err != nil || r.Decision != Inconclusive || !strings.Contains(r.Headline, "nothing was judged") {
		t.Errorf("%v, %v; want INCONCLUSIVE: nothing was judged", r.Headline, err)
	}
}

type noScore struct{ engine.Engine }

func (noScore) Score(context.Context, []engine.Prompt, engine.Want, func(*engine.Position) error) error {
	return fmt.Errorf("a transcript holds no teacher forcing: %w", engine.ErrNotShown)
}

func TestGateInterrupted(t *testing.T) {
	t.Parallel()
	// At the Nth row that TEST is asked for, ctx ends: Gate returns at once, with ctx's error, whichever part it is in.
	for _, n := range []int{1, 9, 10, 11, 12, 19} {
		s, p := gateSetup(nil, nil)
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		fake(s.Test).Fail = func(enginetest.At) error {
			if asked++; asked == n {
				cancel()
			}
			return nil
		}
		if r, err := Gate(ctx, s, p); !errors.Is(err, context.Canceled) || r != nil {
			t.Errorf("ended at row %d: Gate = %v (a result: %v); want no result and context.Canceled", n, err, r != nil)
		}
		if asked > n {
			t.Errorf("TEST was asked for %d rows after ctx had ended at %d", asked-n, n)
		}
		cancel()
	}
}

// TestRoundBF16: every pair of neighbours, at the value, halfway (to even) and just beside it.
func TestRoundBF16(t *testing.T) {
	t.Parallel()
	for lo := range uint32(0x7f7f) { // the positive finite values but the last
		a, b := lo<<16, (lo+1)<<16
		even := a
		if lo&1 == 1 {
			even = b
		}
		for in, want := range map[uint32]uint32{a: a, a | 0x7fff: a, a | 0x8000: even, a | 0x8001: b} {
			for _, sign := range []uint32{0, 1 << 31} {
				if got := math.Float32bits(roundBF16(math.Float32frombits(in | sign))); got != want|sign {
					t.Fatalf("roundBF16(%#08x) = %#08x, want %#08x", in|sign, got, want|sign)
				}
			}
		}
	}
	inf := float32(math.Inf(1))
	if roundBF16(inf) != inf || roundBF16(math.MaxFloat32) != inf || roundBF16(-inf) != -inf {
		t.Error("infinity, and what rounds to it")
	}
	if x := roundBF16(math.Float32frombits(0x7f800001)); x == x {
		t.Errorf("NaN became %v", x)
	}
}

// TestGateStateTypes: part 3 hands TEST the state rounded to its types, each by its own, and says what overflowed.
func TestGateStateTypes(t *testing.T) {
	t.Parallel()
	s, p := gateSetup(nil, nil)
	fake(s.Test).Describes.StateDTypes = engine.StateDTypes{Recurrent: "BF16", Conv: "F16", KV: "F32"}
	big := &bigState{fake(s.Ref)}
	s.Ref = big
	spy := &stateSpy{Fake: fake(s.Test)}
	s.Test = spy
	r, err := Gate(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	if r.part(StateStep).Positions != 2 || len(spy.took) != 2 {
		t.Fatalf("part 3 is %+v", r.part(StateStep))
	}
	for name, want := range map[string]float32{
		"cache.layer0.recurrent_state": 1.0078125,             // 1 + 2^-8 + 2^-20 to 8 bits: up to 1 + 2^-7
		"cache.layer0.conv_state":      1 + 1.0/256,           // 11 bits keep 2^-8 and drop 2^-20
		"cache.layer1.value":           1 + 1.0/256 + 0x1p-20, // as it was
	} {
		if got := spy.took[0].Tensors[name].Data[0]; got != want {
			t.Errorf("%s reached TEST as %v, want %v", name, got, want)
		}
	}
	if len(r.Warnings) == 0 || !strings.Contains(r.Warnings[0], "prompt 1: 1 values of the reference's state overflow") {
		t.Errorf("warnings = %q, want the overflow of 1e6 to fp16", r.Warnings)
	}

	spy.Describes.StateDTypes.KV = "F8"
	if r, err = Gate(t.Context(), s, p); err != nil || !strings.Contains(r.Headline, `state dtype "F8"`) || r.Decision != Inconclusive {
		t.Errorf("Gate = %v, %v; want INCONCLUSIVE naming F8", r.Headline, err)
	}
}

// bigState gives states with 1 + 2^-8 + 2^-20 at the front of each tensor and 1e6 at the end of the conv state.
type bigState struct{ *enginetest.Fake }

func (b *bigState) Prefill(ctx context.Context, p engine.Prompt, path engine.Path) (*engine.State, error) {
	s, err := b.Fake.Prefill(ctx, p, path)
	if err == nil {
		for name, t := range s.Tensors {
			if !strings.HasSuffix(name, ".key") {
				t.Data[0] = 1 + 1.0/256 + 0x1p-20
			}
		}
		conv := s.Tensors["cache.layer0.conv_state"].Data
		conv[len(conv)-1] = 1e6
	}
	return s, err
}

type stateSpy struct {
	*enginetest.Fake
	took []*engine.State
}

func (s *stateSpy) Step(ctx context.Context, state *engine.State, id int32, topK int) (*engine.Position, error) {
	s.took = append(s.took, state)
	return s.Fake.Step(ctx, state, id, topK)
}

// TestGateEvidence: the numbers beside a verdict, checked by hand.
func TestGateEvidence(t *testing.T) {
	t.Parallel()
	s, p := gateSetup(nil, gateFlipAll(1, 2))
	twin := control(ControlNoise, func(_ enginetest.At, row []float64) {
		for i := range row {
			row[i] += 0.25
		}
	})
	s.Controls = []Control{twin}
	r, err := Gate(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Noise.LogitRMS == nil || *r.Noise.LogitRMS != 0.25 || !strings.Contains(r.Noise.Source, "tiny@fp64 against tiny@fake") {
		t.Errorf("noise = %+v, want 0.25 between tiny@fp64 and tiny@fake", r.Noise)
	}
	e := r.ConfidentFlips()[0]
	prefix := []int32{1, 2}
	lead := gateLead(prefix)
	want := Evidence{Prompt: 0, Pos: 1, RefID: int32(lead), TestID: int32(gateSecond(lead))}
	if e.Prompt != want.Prompt || e.Pos != want.Pos || e.RefID != want.RefID || e.TestID != want.TestID {
		t.Errorf("flip at %+v, want %+v", e, want)
	}
	for _, n := range []struct {
		name string
		got  *float64
		want float64
	}{
		{"REF's gap: 4 - 2", e.LogitGap, 2},
		{"in ULPs of F16 at 4, which are 2^-8", e.GapULPs, 512},
		{"in units of 0.25", e.GapNoise, 8},
		{"TEST's own gap: 5 - 4", e.TestLogitGap, 1},
		{"TEST's id over REF's id in TEST", e.TestOverRef, 1},
	} {
		if n.got == nil || *n.got != n.want {
			t.Errorf("%s = %v, want %v", n.name, number(n.got, "%v"), n.want)
		}
	}
	// p1 - p2 over the whole row of REF.
	sum := 0.0
	row := gateRows(nil)(enginetest.At{Prefix: prefix})
	for _, l := range row {
		sum += math.Exp(l)
	}
	if p := (math.Exp(4) - math.Exp(2)) / sum; e.ProbGap == nil || math.Abs(*e.ProbGap-p) > 1e-12 {
		t.Errorf("REF's probability gap = %v, want %v", number(e.ProbGap, "%v"), p)
	}

	twin.Engine = enginetest.New(nil)
	fake(twin.Engine).Describes.LogitsDType = "F64"
	s.Controls = []Control{twin}
	if r, err = Gate(t.Context(), s, p); err != nil || r.Noise.LogitRMS != nil || !strings.Contains(r.Noise.Source, "not one fp32 and one fp64") {
		t.Errorf("noise of two fp64 engines = %+v, %v; want none", r.Noise, err)
	}
}

func TestGateUnavailable(t *testing.T) {
	t.Parallel()
	r := Unavailable("Qwen3.5-2B@coreai", errors.New("needs macOS"), DefaultProtocol())
	if want := "INCONCLUSIVE: Qwen3.5-2B@coreai is not available: needs macOS"; r.Headline != want || r.ExitCode() != 3 {
		t.Errorf("%q, exit %d; want %q, exit 3", r.Headline, r.ExitCode(), want)
	}
	gateInvariants(t, r)
}

// TestGateRender holds the rendering of four results to testdata/gate; -update-gate writes them.
func TestGateRender(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"same", "flips-in-decode", "quant-accepted", "nan", "engine-dies", "near"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tt gateCase
			for _, c := range gateCases {
				if c.name == name {
					tt = c
				}
			}
			s, p := gateSetup(tt.ref, tt.test)
			s.Warnings = []string{"lm_head.weight holds 3 NaN \u2192 \x1b[31m"}
			if tt.change != nil {
				tt.change(&s, &p)
			}
			r, err := Gate(t.Context(), s, p)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			if err := r.Render(&b, func(ids []int32) string { return fmt.Sprintf("t%d\u00e9", ids[0]) }); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "gate", name+".txt")
			if *updateGate {
				if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("rendered:\n%s\nwant %s:\n%s", b.String(), file, want)
			}
		})
	}
}

// TestGateJSON: names are stable, and what is not known is null.
func TestGateJSON(t *testing.T) {
	t.Parallel()
	s, p := gateSetup(gateMargin(0.05), gateFlipAll(1, 2))
	r, err := Gate(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var top map[string]any
	if err := json.Unmarshal(raw, &top); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"schema", "decision", "headline", "sentence", "reasons", "warnings", "ref", "test", "controls", "protocol", "parts", "verdicts", "ref_noise", "metrics", "prompts", "positions"} {
		if top[key] == nil {
			t.Errorf("%q is missing", key)
		}
	}
	pos := top["positions"].([]any)[1].(map[string]any)
	if pos["verdict"] != "NEAR" || pos["ref_logit_gap_noise_units"] != nil || math.Abs(pos["ref_logit_gap"].(float64)-0.05) > 1e-9 {
		t.Errorf("the flip in JSON is %v", pos)
	}
}

func TestDemoPrompts(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	chat := false
	for _, p := range DemoPrompts() {
		if p.Name == "" || p.Text == "" || names[p.Name] {
			t.Errorf("prompt %q is empty or there twice", p.Name)
		}
		names[p.Name] = true
		chat = chat || strings.HasPrefix(p.Text, "<|im_start|>user\n")
	}
	if !chat || len(names) < 3 {
		t.Errorf("%d prompts, ChatML among them: %v", len(names), chat)
	}
}
