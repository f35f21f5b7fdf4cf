package oracle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/engine/enginetest"
	"sibyl/internal/inputerr"
)

// written is the transcript of a gate, as a file would hold it.
func written(t testing.TB, r *GateResult) []byte {
	t.Helper()
	tr, err := NewTranscript(r, TranscriptOptions{Arch: "qwen3_5", File: "t.json"})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tr.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func parsed(t testing.TB, data []byte) *Transcript {
	t.Helper()
	tr, err := ParseTranscript("t.json", data)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestEvidenceHolds: of every result the gate's own tests know, the transcript holds all that its decision rests on:
// written, read and judged again it gives the same, and running the same engines again confirms it.
func TestEvidenceHolds(t *testing.T) {
	t.Parallel()
	for _, tt := range gateCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, p := gateSetup(tt.ref, tt.test)
			if tt.change != nil {
				tt.change(&s, &p)
			}
			r, err := Gate(t.Context(), s, p)
			if err != nil {
				t.Fatal(err)
			}
			data := written(t, r)
			tr := parsed(t, data)
			if got, problems := tr.CheckEvidence(); got != tt.decision || len(problems) > 0 {
				t.Fatalf("the evidence gives %s, want %s; problems: %q", got, tt.decision, problems)
			}
			var again bytes.Buffer
			if err := tr.Write(&again); err != nil || !bytes.Equal(again.Bytes(), data) {
				t.Errorf("written again it is another file (%v)", err)
			}
			live := Live{Ref: s.Ref, Test: s.Test, Control: func(_ context.Context, c ControlInfo) (engine.Engine, string, error) {
				for _, have := range s.Controls {
					if have.Label == c.Label && have.Engine != nil {
						return have.Engine, "", nil
					}
				}
				return nil, "not here", nil
			}}
			rr, err := tr.Replay(t.Context(), live)
			if err != nil {
				t.Fatal(err)
			}
			if !rr.Confirmed || rr.ExitCode() != r.ExitCode() {
				t.Errorf("run again: %s, exit %d; want it confirmed, exit %d", rr.Headline, rr.ExitCode(), r.ExitCode())
			}
		})
	}
}

// flipped is a gate with one confident flip in decode that nothing explains, and a second prompt without.
func flippedGate(t testing.TB) (Setup, *GateResult) {
	t.Helper()
	s, p := gateSetup(nil, func(at enginetest.At, row []float64) {
		if gateAt(at, 1, 4, enginetest.Generate) {
			gateFlip(at.Prefix, row, 1)
		}
	})
	r, err := Gate(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	return s, r
}

// edited applies an edit to the JSON of a transcript.
func edited(t testing.TB, data []byte, edit func(top map[string]any)) []byte {
	t.Helper()
	var top map[string]any
	if err := json.Unmarshal(data, &top); err != nil {
		t.Fatal(err)
	}
	edit(top)
	out, err := json.Marshal(top)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// at walks into decoded JSON: names and indices.
func at(x any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			x = x.(map[string]any)[p]
		case int:
			x = x.([]any)[p]
		}
	}
	return x
}

// TestEditedTranscripts: whatever is edited contradicts the evidence, and says where.
func TestEditedTranscripts(t *testing.T) {
	t.Parallel()
	_, r := flippedGate(t)
	data := written(t, r)
	result := func(top map[string]any) map[string]any { return at(top, "sibyl", "result").(map[string]any) }
	// shown gives the columns of a view.
	view := func(top map[string]any, by Role, part PartName, prompt int) map[string]any {
		for _, s := range at(top, "sibyl", "shown").([]any) {
			s := s.(map[string]any)
			if s["by"] == string(by) && s["part"] == string(part) && s["prompt"] == float64(prompt) {
				return s
			}
		}
		t.Fatalf("no view of %s, %s, %d", by, part, prompt)
		return nil
	}
	position := func(top map[string]any, verdict Verdict) map[string]any {
		for _, p := range result(top)["positions"].([]any) {
			if p := p.(map[string]any); p["verdict"] == string(verdict) {
				return p
			}
		}
		t.Fatalf("no position is %s", verdict)
		return nil
	}
	for _, tt := range []struct {
		name, why string
		edit      func(top map[string]any)
		want      string // one of the problems
	}{
		{"result", "the field others read first", func(top map[string]any) { top["result"] = "PASS" }, `result: recorded "PASS", sibyl.result.decision FAIL`},
		{"decision", "both places agree with each other", func(top map[string]any) { top["result"], result(top)["decision"] = "PASS", "PASS" },
			"sibyl.result.decision: recorded PASS, the evidence gives FAIL (DO NOT SHIP: 1 confident flip, 1 unexplained)"},
		{"verdict", "the flip is called a tie", func(top map[string]any) { position(top, Defect)["verdict"] = "TIE" },
			"prompt 0 (a), position 3, rollout: recorded TIE, qualified true, accepted false, the evidence gives DEFECT, true, false"},
		{"qualified", "the flip is called unsure", func(top map[string]any) { position(top, Defect)["qualified"] = false },
			"position 3, rollout: recorded DEFECT, qualified false"},
		{"id", "the flip is hidden in the table", func(top map[string]any) {
			p := position(top, Defect)
			p["test_id"] = p["ref_id"]
		}, "prompt 0 (a), position 3, rollout: recorded REF "},
		{"position-left-out", "the flip is not in the table", func(top map[string]any) {
			result(top)["positions"] = slices.DeleteFunc(result(top)["positions"].([]any), func(p any) bool { return at(p, "verdict") == "DEFECT" })
		}, "1 positions of the evidence are not recorded as judged"},
		{"position-twice", "agreement is counted twice", func(top map[string]any) {
			list := result(top)["positions"].([]any)
			result(top)["positions"] = append(list, list[0])
		}, "position 0, teacher_forced: recorded twice"},
		{"count", "a part claims more", func(top map[string]any) { at(result(top), "parts", 3).(map[string]any)["confident_flips"] = 0 },
			"sibyl.result.parts: rollout: recorded"},
		{"margin", "REF was less sure", func(top map[string]any) { position(top, Defect)["ref_logit_gap"] = 0.01 },
			"position 3, rollout: REF's margins are not those of the evidence"},
		{"floor", "another rule", func(top map[string]any) { result(top)["protocol"].(map[string]any)["margin"] = 3 },
			"sibyl.result.parts: qualification: recorded"},
		{"accept", "a rule that accepts", func(top map[string]any) {
			result(top)["protocol"].(map[string]any)["min_qualified"] = 0
			result(top)["decision"], top["result"] = "INCONCLUSIVE", "INCONCLUSIVE"
		}, "recorded INCONCLUSIVE, the evidence gives FAIL"},
		{"shown-id", "the evidence itself: an id that is not its own largest logit's is refused when read", nil, ""},
		{"shown-left-out", "a view of TEST is gone", func(top map[string]any) {
			list := at(top, "sibyl", "shown").([]any)
			at(top, "sibyl").(map[string]any)["shown"] = slices.DeleteFunc(list, func(s any) bool {
				return at(s, "by") == "TEST" && at(s, "part") == "rollout" && at(s, "prompt") == 0.0
			})
		}, "prompt 0 (a), position 2, rollout: recorded, but not in the evidence"},
		{"ref-left-out", "a view of REF is gone", func(top map[string]any) {
			list := at(top, "sibyl", "shown").([]any)
			at(top, "sibyl").(map[string]any)["shown"] = slices.DeleteFunc(list, func(s any) bool { return at(s, "by") == "REF" && at(s, "part") == "teacher_forced" })
		}, "the evidence of REF is not complete, though the record says that part 1 ran"},
		{"ref-ids", "REF's continuation is another", func(top map[string]any) { at(result(top), "prompts", 0, "ref_generated_ids").([]any)[1] = 7.0 },
			"prompt 0 (a), token 1: REF's id is recorded as 7, its evidence has "},
		{"test-ids", "TEST's continuation is another", func(top map[string]any) { at(result(top), "prompts", 0, "test_rollout_ids").([]any)[1] = 7.0 },
			"sibyl.result.prompts[0].test_rollout_ids: not those of the evidence"},
		{"input-ids", "the schema's prompt is another", func(top map[string]any) { top["input_ids"].([]any)[0] = 2.0 }, "input_ids: not those of prompt 0 under sibyl"},
		{"gen-ids", "the schema's ids are others", func(top map[string]any) { at(top, "oracle", "gen_ids").([]any)[0] = 2.0 }, "oracle.gen_ids: not those of prompt 0 under sibyl"},
		{"engine-ids", "the flip is hidden from the schema's reader", func(top map[string]any) { top["engine"].(map[string]any)["gen_ids"] = at(top, "oracle", "gen_ids") },
			"engine.gen_ids: not those of prompt 0 under sibyl"},
		{"margins", "gaps of logits where the schema has gaps of probability", func(top map[string]any) { at(top, "oracle", "top2_margins").([]any)[0] = 0.5 },
			"oracle.top2_margins: not those of prompt 0 under sibyl, as gaps of probability"},
		{"match", "the prefix is longer", func(top map[string]any) { top["match"].(map[string]any)["exact_prefix"] = 3 }, "match: recorded 3 of 3, the ids give 1 of 3"},
		{"control", "a control of nobody", func(top map[string]any) {
			list := at(top, "sibyl", "shown").([]any)
			s := view(edited2(t, data), RoleRef, TeacherForced, 0)
			s["by"], s["control"] = "control", "E"
			at(top, "sibyl").(map[string]any)["shown"] = append(list, any(s))
		}, `control "E" is none of the result's`},
	} {
		if tt.edit == nil {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr, err := ParseTranscript("t.json", edited(t, data, tt.edit))
			if err != nil {
				t.Fatal(err)
			}
			_, problems := tr.CheckEvidence()
			if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, tt.want) }) {
				t.Errorf("problems %q\nwant one with %q\nwhy: %s", problems, tt.want, tt.why)
			}
			rr, err := tr.Replay(t.Context(), Live{})
			if err != nil || rr.Confirmed || rr.ExitCode() != 1 || !strings.HasPrefix(rr.Headline, "NOT CONFIRMED: ") {
				t.Errorf("%+v, %v; want it not confirmed", rr, err)
			}
		})
	}
}

func edited2(t testing.TB, data []byte) (top map[string]any) {
	edited(t, data, func(x map[string]any) { top = x })
	return top
}

// TestReplayRuns: evidence that is consistent and of another run is found by running again.
func TestReplayRuns(t *testing.T) {
	t.Parallel()
	s, r := flippedGate(t)
	tr := parsed(t, written(t, r))
	other := func(base engine.Engine, edit func(at enginetest.At, row []float64)) engine.Engine {
		f := enginetest.New(gateRows(edit))
		f.Describes = base.Info()
		return f
	}
	fp64 := func(f engine.Engine) engine.Engine { // its contract is float64, so 2^-23 is its tolerance
		f.(*enginetest.Fake).Describes.Mode = ""
		return f
	}
	for _, tt := range []struct {
		name, why string
		live      Live
		want      string // in the headline
		confirmed bool
	}{
		{"same", "the same engines", Live{Ref: s.Ref, Test: s.Test}, "CONFIRMED: DO NOT SHIP: 1 confident flip, 1 unexplained (the evidence judged again, REF run again, TEST run again)", true},
		{"nothing", "no model is here", Live{RefWhy: "no such model", TestWhy: "needs macOS"}, "CONFIRMED: DO NOT SHIP: 1 confident flip, 1 unexplained (the evidence judged again)", true},
		{"test-without-flip", "TEST does not flip here", Live{Ref: s.Ref, Test: other(s.Test, nil)},
			"NOT CONFIRMED: TEST differs at 1 of 6 positions (rollout)", false},
		{"ref-margin", "REF's margin is smaller here", Live{Ref: other(s.Ref, gateMargin(0.5)), Test: s.Test},
			"NOT CONFIRMED: REF differs at 1 of 9 positions (teacher forced)", false},
		{"ref-id", "REF chooses another id here", Live{Ref: other(s.Ref, gateFlipAll(20, 3))},
			"NOT CONFIRMED: REF differs at 1 of 9 positions (teacher forced); REF differs at 1 of 6 positions (rollout)", false},
		{"exact-bit", "exact promises bits: one is too many", Live{Ref: other(s.Ref, gateMargin(2-0x1p-40))}, "NOT CONFIRMED: REF differs at 1 of 9 positions", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rr, err := tr.Replay(t.Context(), tt.live)
			if err != nil {
				t.Fatal(err)
			}
			if rr.Headline != tt.want && !(strings.HasSuffix(tt.want, "positions") && strings.HasPrefix(rr.Headline, tt.want)) || rr.Confirmed != tt.confirmed {
				t.Errorf("%q, want %q\nwhy: %s", rr.Headline, tt.want, tt.why)
			}
			var b strings.Builder
			if err := rr.Render(&b); err != nil || !strings.HasPrefix(b.String(), rr.Headline+"\n") {
				t.Errorf("rendered %q, %v", b.String(), err)
			}
			for _, why := range []string{tt.live.RefWhy, tt.live.TestWhy} {
				if !strings.Contains(b.String(), why) {
					t.Errorf("rendered:\n%s\nwant %q in it", b.String(), why)
				}
			}
		})
	}
	// Within the tolerance of the arithmetic: float64 may be 2 * 2^-23 of the largest logit, 4, away in a gap.
	near, p := gateSetup(nil, nil)
	fp64(near.Ref)
	nr, err := Gate(t.Context(), near, p)
	if err != nil {
		t.Fatal(err)
	}
	calm := parsed(t, written(t, nr))
	for gap, ok := range map[float64]bool{2 - 0x1p-21: true, 2 - 0x1p-19: false} {
		rr, err := calm.Replay(t.Context(), Live{Ref: fp64(other(near.Ref, gateMargin(gap)))})
		if err != nil || rr.Confirmed != ok || rr.Checks[0].WorstLogitGap == nil || math.Abs(*rr.Checks[0].WorstLogitGap-(2-gap)) > 1e-15 {
			t.Errorf("a gap of %v for 2: %+v, %v; want confirmed %v", gap, rr, err, ok)
		}
	}
}

// TestReplayRefuses: an engine of another contract, or a model of another hash, is no run of the same thing.
func TestReplayRefuses(t *testing.T) {
	t.Parallel()
	s, p := gateSetup(nil, nil)
	fake(s.Ref).Describes.ConfigSHA256, fake(s.Ref).Describes.WeightsSHA256 = "c0", "a0"
	fake(s.Test).Describes.ConfigSHA256, fake(s.Test).Describes.WeightsSHA256 = "c1", "a1"
	r, err := Gate(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	tr := parsed(t, written(t, r))
	_, err = tr.Replay(t.Context(), Live{Ref: s.Test})
	want := `t.json: sibyl.result.ref: found "float64, weights stored, exact", want coreai-fp16, weights int8hu-sym, exact: that is tiny@coreai-fp16,int8hu-sym; run it again as it was recorded: "tiny@fp64"`
	if bad := new(inputerr.Error); !errors.As(err, &bad) || err.Error() != want {
		t.Errorf("TEST's engine as REF: %v\nwant %s", err, want)
	}
	do := "; it is a transcript of another model: name the model it was made of"
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"same", tr.CheckModel(RoleRef, "m", "c0", "a0", 41), ""},
		{"not-hashed", tr.CheckModel(RoleRef, "m", "c0", "", 41), ""},
		{"config", tr.CheckModel(RoleRef, "m", "cc", "a0", 41), `t.json: sibyl.result.ref.config_sha256: found "c0", want cc, that of m` + do},
		{"weights", tr.CheckModel(RoleRef, "m", "c0", "aa", 41), `t.json: sibyl.result.ref.weights_sha256: found "a0", want aa, that of m` + do},
		{"test", tr.CheckModel(RoleTest, "m", "c0", "a0", 41), `t.json: sibyl.result.test.config_sha256: found "c1", want c0, that of m` + do},
		{"either-ref", tr.CheckEither("m", "c0", "a0", 41), ""},
		{"either-test", tr.CheckEither("m", "c1", "a1", 41), ""},
		{"neither", tr.CheckEither("m", "c2", "a0", 41), `t.json: sibyl.result.ref.config_sha256: found "c0", want c2, that of m` + do},
	} {
		if got := errText(tt.err); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	public, err := OpenTranscript(filepath.Join("testdata", "transcripts", "public-0.8b.json"))
	if err != nil {
		t.Fatal(err)
	}
	want = filepath.Join("testdata", "transcripts", "public-0.8b.json") + ": ids: found token 9338, want ids of m, 0..2047" + do
	if got := errText(public.CheckModel(RoleRef, "m", "c", "w", 2048)); got != want {
		t.Errorf("a small vocabulary: %q, want %q", got, want)
	}
	if err := public.CheckModel(RoleRef, "m", "c", "w", 248320); err != nil {
		t.Error(err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestFieldTranscripts: the field's own transcripts are read, and their decision follows from what they hold.
func TestFieldTranscripts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file     string
		decision Decision
		edit     func(top map[string]any)
		problems string // joined
	}{
		{"public-0.8b.json", Pass, nil, ""},
		{"passes-by-text.json", Pass, nil, ""},
		{"tie.json", Pass, nil, ""},
		{"error.json", Inconclusive, nil, ""},
		{"public-0.8b.json", Fail, func(top map[string]any) { top["engine"].(map[string]any)["gen_text"] = " Lyon." },
			`match: recorded 16 of 16, the ids give 16 of 16; result: recorded "PASS", its own ids and margins give FAIL`},
		{"tie.json", Fail, func(top map[string]any) { at(top, "oracle", "top2_margins").([]any)[2] = 0.4 }, `result: recorded "PASS_TIE", its own ids and margins give FAIL`},
		{"tie.json", Fail, func(top map[string]any) { at(top, "engine", "gen_ids").([]any)[0] = 5.0 },
			`match: recorded 2 of 3, the ids give 0 of 3; result: recorded "PASS_TIE", its own ids and margins give FAIL`},
		{"passes-by-text.json", Pass, func(top map[string]any) { top["match"].(map[string]any)["exact_prefix"] = 2.0 }, "match: recorded 2 of 3, both sides are the same over 3"},
	} {
		data, err := os.ReadFile(filepath.Join("testdata", "transcripts", tt.file))
		if err != nil {
			t.Fatal(err)
		}
		if tt.edit != nil {
			data = edited(t, data, tt.edit)
		}
		tr, err := ParseTranscript(tt.file, data)
		if err != nil {
			t.Fatal(err)
		}
		if got, problems := tr.CheckEvidence(); got != tt.decision || strings.Join(problems, "; ") != tt.problems {
			t.Errorf("%s: %s, %q; want %s, %q", tt.file, got, problems, tt.decision, tt.problems)
		}
	}
	// REF run again over the recorded ids: gaps of probability within 2 * 2e-4 of the largest logit, 4.
	data, err := os.ReadFile(filepath.Join("testdata", "transcripts", "tie.json"))
	if err != nil {
		t.Fatal(err)
	}
	for off, ok := range map[float64]bool{1e-3: true, 1e-2: false} {
		ref := enginetest.New(gateRows(nil))
		ids, margins := []int32{}, []float64{}
		err := ref.Generate(t.Context(), engine.Prompt{IDs: []int32{1, 2, 3}}, engine.Options{MaxTokens: 3, TopK: 2}, func(k *engine.Token) error {
			ids, margins = append(ids, k.ID), append(margins, k.ProbGap()+off)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		tr := parsed(t, edited(t, data, func(top map[string]any) {
			o, e := top["oracle"].(map[string]any), top["engine"].(map[string]any)
			o["gen_ids"], o["top2_margins"], e["gen_ids"], top["result"] = ids, margins, ids, "PASS"
			top["match"] = map[string]any{"exact_prefix": 3, "of": 3, "first_divergence": nil}
		}))
		rr, err := tr.Replay(t.Context(), Live{Ref: ref, Test: ref})
		if err != nil || rr.Confirmed != ok || len(rr.Checks) != 2 || rr.Checks[0].WorstProbGap == nil || rr.Checks[0].WorstLogitGap != nil {
			t.Errorf("margins off by %g: %+v, %v; want confirmed %v", off, rr, err, ok)
		}
	}
}
