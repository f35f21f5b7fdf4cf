package replay

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/engine/enginetest"
	"sibyl/internal/inputerr"
	_ "sibyl/model"
	"sibyl/oracle"
)

// rows leads with one id by 2 after any prefix, and lets edit change that.
func rows(edit func(at enginetest.At, row []float64)) func(enginetest.At) []float64 {
	return func(at enginetest.At) []float64 {
		row := enginetest.Hashed(7)(at)
		row[len(at.Prefix)*5%41] = 12
		if edit != nil {
			edit(at, row)
		}
		return row
	}
}

var prompts = []oracle.Prompt{{Name: "a", IDs: []int32{1, 2, 3}}, {Name: "b", IDs: []int32{20, 5}}}

var limits = engine.Limits{ConfigFile: "tiny/config.json", VocabSize: 41, MaxPositions: 96}

// recorded is the transcript of a gate of a sound REF and of a TEST that edit changes, read back from its file.
func recorded(t *testing.T, change func(r, q *enginetest.Fake), edit func(at enginetest.At, row []float64)) (*oracle.Transcript, *oracle.GateResult) {
	t.Helper()
	r, q := enginetest.New(rows(nil)), enginetest.New(rows(edit))
	r.Describes.Subject, q.Describes.Subject = "tiny@fp64", "tiny@coreai"
	q.Describes.Contract, q.Describes.LogitsDType, q.Describes.Scheme = "coreai-fp16", "F16", "int8hu"
	if change != nil {
		change(r, q)
	}
	p := oracle.DefaultProtocol()
	p.MaxTokens = 5
	res, err := oracle.Gate(t.Context(), oracle.Setup{Ref: r, Test: q, Prompts: prompts}, p)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := oracle.NewTranscript(res, oracle.TranscriptOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tr.Write(&b); err != nil {
		t.Fatal(err)
	}
	if tr, err = oracle.ParseTranscript("t.json", b.Bytes()); err != nil {
		t.Fatal(err)
	}
	return tr, res
}

func side(t *testing.T, tr *oracle.Transcript, role oracle.Role) *Engine {
	t.Helper()
	e, err := New(tr, role, "tiny@replay:t.json", limits)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// flip makes another id win after four tokens of prompt a, in decode.
func flip(at enginetest.At, row []float64) {
	if at.Call == enginetest.Generate && at.Prefix[0] == 1 && len(at.Prefix) == 4 {
		row[33] = 14
	}
}

// TestGateOfReplays: a gate whose sides answer from a transcript finds what the gate that wrote it found; part 3
// needs states, which no transcript holds.
func TestGateOfReplays(t *testing.T) {
	t.Parallel()
	tr, was := recorded(t, nil, flip)
	live := func(edit func(enginetest.At, []float64)) engine.Engine { return enginetest.New(rows(edit)) }
	for name, s := range map[string]oracle.Setup{
		"both":     {Ref: side(t, tr, oracle.RoleRef), Test: side(t, tr, oracle.RoleTest)},
		"as-ref":   {Ref: side(t, tr, oracle.RoleRef), Test: live(flip)},
		"as-test":  {Ref: live(nil), Test: side(t, tr, oracle.RoleTest)},
		"ref-only": {Ref: live(nil), Test: live(flip)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.Prompts = prompts
			p := oracle.DefaultProtocol()
			p.MaxTokens = 5
			now, err := oracle.Gate(t.Context(), s, p)
			if err != nil {
				t.Fatal(err)
			}
			if now.Decision != was.Decision || now.Headline != was.Headline || was.Decision != oracle.Fail {
				t.Errorf("%s, want %s", now.Headline, was.Headline)
			}
			for i, part := range now.Parts {
				want := was.Parts[i]
				if part.Name == oracle.StateStep && name != "ref-only" {
					want = oracle.Part{Name: oracle.StateStep, Status: oracle.PartNotShown, Note: part.Note}
				}
				if part != want {
					t.Errorf("part %+v, want %+v", part, want)
				}
			}
		})
	}
}

// TestReplayInfo: what is judged by is the recorded engine's; what it can show is not.
func TestReplayInfo(t *testing.T) {
	t.Parallel()
	tr, _ := recorded(t, nil, nil)
	i := side(t, tr, oracle.RoleTest).Info()
	if i.Engine != "replay" || i.Subject != "tiny@replay:t.json" || i.Contract != "coreai-fp16" || i.Scheme != "int8hu" || i.LogitsDType != "F16" ||
		i.Shows != engine.IDs|engine.TopK || i.VocabSize != 41 || i.MaxPositions != 96 {
		t.Errorf("Info = %+v", i)
	}
}

// TestNotHeld: what is not in the transcript is ErrNotShown, and the text says what is.
func TestNotHeld(t *testing.T) {
	t.Parallel()
	tr, _ := recorded(t, nil, nil)
	e := side(t, tr, oracle.RoleRef)
	score := func(w engine.Want, ids ...int32) error {
		return e.Score(t.Context(), []engine.Prompt{{IDs: ids}}, w, func(*engine.Position) error { return nil })
	}
	generate := func(o engine.Options, ids ...int32) error {
		return e.Generate(t.Context(), engine.Prompt{IDs: ids}, o, func(*engine.Token) error { return nil })
	}
	public, err := oracle.OpenTranscript(filepath.Join("..", "testdata", "transcripts", "public-0.8b.json"))
	if err != nil {
		t.Fatal(err)
	}
	big := engine.Limits{ConfigFile: "c", VocabSize: 248320, MaxPositions: 99}
	foreign, err := New(public, oracle.RoleRef, "m@replay:public", big)
	if err != nil {
		t.Fatal(err)
	}
	input := engine.Prompt{IDs: public.InputIDs}
	none := func(*engine.Token) error { return nil }
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"held", score(engine.Want{TopK: 8}, 1, 2, 3), ""},
		{"part-of-a-text", score(engine.Want{TopK: 3}, 1, 2), ""},
		{"fewer-tokens", generate(engine.Options{MaxTokens: 3, TopK: 2}, 20, 5), ""},
		{"other-text", score(engine.Want{}, 9, 9), "t.json holds no teacher forcing over this text: "},
		{"beyond", score(engine.Want{}, 1, 2, 3, 20, 20), "t.json holds no teacher forcing over this text beyond its first 3 tokens: "},
		{"other-prompt", generate(engine.Options{MaxTokens: 1}, 9), "t.json holds no decode path after this prompt: "},
		{"prompt-cut", generate(engine.Options{MaxTokens: 1}, 1, 2), "t.json holds no decode path after this prompt: "},
		{"more-tokens", generate(engine.Options{MaxTokens: 6}, 20, 5), "t.json holds no more than 5 tokens after this prompt along these ids: "},
		{"other-ids", generate(engine.Options{Force: []int32{40, 40}}, 20, 5), "t.json holds no more than 1 tokens after this prompt along these ids: "},
		{"more-candidates", score(engine.Want{TopK: 9}, 1, 2, 3), "t.json holds the 8 largest logits of a position, not 9: "},
		{"logits", score(engine.Want{Logits: true}, 1, 2, 3), "t.json holds no whole rows of logits: "},
		{"position-ids", e.Score(t.Context(), []engine.Prompt{{IDs: []int32{1}, PositionIDs: [][3]int32{{}}}}, engine.Want{}, nil), "t.json holds no run with position ids: "},
		{"foreign", foreign.Generate(t.Context(), input, engine.Options{MaxTokens: 16}, none), ""},
		{"foreign-score", foreign.Score(t.Context(), []engine.Prompt{input}, engine.Want{}, nil),
			filepath.Join("..", "testdata", "transcripts", "public-0.8b.json") + " holds no teacher forcing over this text; it is not sibyl's and holds the greedy ids after one prompt alone: "},
		{"foreign-logits", foreign.Generate(t.Context(), input, engine.Options{MaxTokens: 1, TopK: 2}, none),
			filepath.Join("..", "testdata", "transcripts", "public-0.8b.json") + " holds no logits; it is not sibyl's and holds the greedy ids after one prompt alone: "},
	} {
		if tt.want == "" {
			if tt.err != nil {
				t.Errorf("%s: %v, want it shown", tt.name, tt.err)
			}
			continue
		}
		if !errors.Is(tt.err, engine.ErrNotShown) || tt.err.Error() != tt.want+engine.ErrNotShown.Error() {
			t.Errorf("%s: %v\nwant %s%v", tt.name, tt.err, tt.want, engine.ErrNotShown)
		}
	}
	var in *inputerr.Error
	err = score(engine.Want{Path: engine.Path{Chunk: 1}}, 1, 2, 3)
	if want := "t.json: path: found step: a prompt split at other call boundaries than the transcript's, want prefill"; !errors.As(err, &in) ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("another path: %v\nwant %s", err, want)
	}
	var got []int32
	if err := foreign.Generate(t.Context(), input, engine.Options{MaxTokens: 16}, func(k *engine.Token) error {
		got = append(got, k.ID)
		return nil
	}); err != nil || !slices.Equal(got, public.Oracle.GenIDs) {
		t.Errorf("the public example gives %v (%v), want %v", got, err, public.Oracle.GenIDs)
	}
}

// TestFault: a row that was not finite outside of the candidates that are kept does not become sound by being replayed.
func TestFault(t *testing.T) {
	t.Parallel()
	tr, was := recorded(t, nil, nil)
	for i := range tr.Sibyl.Shown {
		if s := &tr.Sibyl.Shown[i]; s.By == oracle.RoleTest && s.Part == oracle.TeacherForced {
			s.Seen[0].Fault = "log-sum-exp of the logits is NaN"
		}
	}
	p := oracle.DefaultProtocol()
	p.MaxTokens = 5
	now, err := oracle.Gate(t.Context(), oracle.Setup{Ref: enginetest.New(rows(nil)), Test: side(t, tr, oracle.RoleTest), Prompts: prompts}, p)
	if err != nil || was.Decision != oracle.Pass || now.Decision != oracle.Fail || !strings.Contains(now.Headline, "2 positions with logits that are not finite") {
		t.Errorf("%v, %s after %s; want the two positions not finite", err, now.Headline, was.Headline)
	}
}

// TestOpenRefuses: by the driver, with the whole text.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "t.json")
	tr, _ := recorded(t, func(r, q *enginetest.Fake) { r.Describes.ConfigSHA256, q.Describes.ConfigSHA256 = "c0", "c1" }, nil)
	var b bytes.Buffer
	if err := tr.Write(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join("..", "testdata", "transcripts", "passes-by-text.json")
	for _, tt := range []struct {
		name, why string
		spec      engine.Spec
		want      string
	}{
		{"no-file", "nothing to answer from", engine.Spec{File: filepath.Join(dir, "none")}, filepath.Join(dir, "none") + ": found no such file, want a transcript (coreai-gate-transcript/1); give the file of a transcript"},
		{"contract", "the recorded one counts", engine.Spec{File: file, Contract: "hf-fp32"}, "@replay:" + file + `: contract: found "hf-fp32", want none: it is the one that was recorded; leave it out`},
		{"scheme", "the recorded one counts", engine.Spec{File: file, Scheme: "fp16"}, "@replay:" + file + `: scheme: found "fp16", want none: it is the one that was recorded; leave it out`},
		{"mode", "the recorded one counts", engine.Spec{File: file, Mode: "fast"}, "@replay:" + file + `: mode: found "fast", want none: it is the one that was recorded; leave it out`},
		{"side", "a third side", engine.Spec{File: file, Side: "both"}, "@replay:" + file + `: side: found "both", want ref or test`},
		{"another-model", "the config's hash is another", engine.Spec{File: file}, "of the demo model"},
		{"text-alone", "texts are not compared", engine.Spec{File: text}, text + ": engine: found the text the engine wrote and no gen_ids, want its ids: texts are never compared; " +
			"run the engine again under sibyl gate -o, or use the transcript as REF"},
	} {
		e, err := engine.Open(t.Context(), "replay", tt.spec)
		bad := new(inputerr.Error)
		switch {
		case !errors.As(err, &bad):
			t.Errorf("%s: %v, %v; want an input error\nwhy: %s", tt.name, e, err, tt.why)
		case tt.name == "another-model":
			if s := err.Error(); !strings.HasPrefix(s, file+`: sibyl.result.ref.config_sha256: found "c0", want `) || !strings.HasSuffix(s, "; it is a transcript of another model: name the model it was made of") {
				t.Errorf("%s: %s", tt.name, s)
			}
		case err.Error() != tt.want:
			t.Errorf("%s: %s\nwant %s\nwhy: %s", tt.name, err, tt.want, tt.why)
		}
	}
	if _, err := engine.Open(t.Context(), "replay", engine.Spec{File: text, Side: "ref"}); err != nil {
		t.Errorf("its oracle's ids are there, but as REF: %v", err)
	}
}
