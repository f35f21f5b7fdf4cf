package oracle_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/oracle"
)

// callsGate is a gate whose TEST and whose control round the state once a call, with controls everywhere.
func callsGate(t *testing.T, path engine.Path) (setup oracle.Setup, r *oracle.GateResult) {
	t.Helper()
	prompts, _, _ := opticksPrompts(t)
	bf16 := func(mode string) engine.Engine {
		return openEngine(t, "cpu", engine.Spec{Contract: "coreai-bf16", Scheme: "u4-minval", Mode: mode})
	}
	setup = oracle.Setup{Ref: openEngine(t, "cpu", engine.Spec{}), Test: bf16("fast"), Prompts: prompts[:2],
		Controls: []oracle.Control{{Kind: oracle.ControlE, Label: "E coreai-bf16", Engine: bf16("exact")}}}
	p := oracle.DefaultProtocol()
	p.Path, p.MaxTokens, p.Controls = path, 6, oracle.ControlsEverywhere
	r, err := oracle.Gate(t.Context(), setup, p)
	if err != nil {
		t.Fatal(err)
	}
	return setup, r
}

// callsTranscript is the transcript of a result, written and read.
func callsTranscript(t *testing.T, r *oracle.GateResult, change func([]byte) []byte) (*oracle.Transcript, error) {
	t.Helper()
	tr, err := oracle.NewTranscript(r, oracle.TranscriptOptions{File: "t.json"})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tr.Write(&b); err != nil {
		t.Fatal(err)
	}
	return oracle.ParseTranscript("t.json", change(b.Bytes()))
}

func unchanged(b []byte) []byte { return b }

// TestCallsOfControls: where calls matter, what a control says of a decoded token is what its own decode path shows, and
// not its one pass over the text; the record holds both, with their calls.
func TestCallsOfControls(t *testing.T) {
	t.Parallel()
	path := engine.Path{Chunk: 3, Last: true}
	setup, r := callsGate(t, path)
	tr, err := callsTranscript(t, r, unchanged)
	if err != nil {
		t.Fatal(err)
	}
	views, apart := 0, 0
	for _, s := range tr.Sibyl.Shown {
		q := &r.Prompts[s.Prompt]
		want := path.Calls(len(q.IDs)+len(q.RefIDs)-1, 0)
		switch s.Part {
		case oracle.Rollout:
			want = path.Calls(len(q.IDs), len(q.RefIDs)-1)
		case oracle.StateStep:
			want = path.Calls(len(q.IDs), 1)
		}
		if s.Calls != want {
			t.Errorf("%s %s of prompt %d: calls %q, want %q", s.By, s.Part, s.Prompt, s.Calls, want)
		}
		if s.By != oracle.RoleControl || s.Part != oracle.Rollout {
			continue
		}
		views++
		apart += compareDecode(t, setup.Controls[0].Engine, path, q, s.Seen, viewOf(tr, oracle.RoleControl, s.Prompt))
	}
	if views != len(r.Prompts) || apart == 0 {
		t.Errorf("%d decode paths of the control, %d tokens in which they differ from one pass: the test sees nothing", views, apart)
	}
	if got, problems := tr.CheckEvidence(); got != r.Decision || len(problems) > 0 {
		t.Errorf("judged again: %s, %q", got, problems)
	}
	live := oracle.Live{Ref: setup.Ref, Test: setup.Test,
		Control: func(context.Context, oracle.ControlInfo) (engine.Engine, string, error) {
			return setup.Controls[0].Engine, "", nil
		}}
	again, err := tr.Replay(t.Context(), live)
	if err != nil || !again.Confirmed {
		t.Errorf("run again: %+v, %v", again, err)
	}
	for _, c := range again.Checks {
		if c.Status != "agrees" {
			t.Errorf("%s %s: %s %s", c.By, c.Part, c.Status, c.First)
		}
	}
}

// viewOf is the teacher-forced view of a side.
func viewOf(tr *oracle.Transcript, by oracle.Role, prompt int) []oracle.Seen {
	for _, s := range tr.Sibyl.Shown {
		if s.By == by && s.Part == oracle.TeacherForced && s.Prompt == prompt {
			return s.Seen
		}
	}
	return nil
}

// compareDecode holds a recorded decode path to e's own, and counts the tokens at which one pass shows something else.
func compareDecode(t *testing.T, e engine.Engine, path engine.Path, q *oracle.PromptResult, decoded, pass []oracle.Seen) (apart int) {
	t.Helper()
	k := 0
	err := e.Generate(t.Context(), engine.Prompt{IDs: q.IDs}, engine.Options{Force: q.RefIDs, Path: path, TopK: 8}, func(tok *engine.Token) error {
		if decoded[k].ID != tok.Position.ID || decoded[k].LSE != tok.LSE {
			t.Errorf("token %d: recorded %d, %v; the engine shows %d, %v", k, decoded[k].ID, decoded[k].LSE, tok.Position.ID, tok.LSE)
		}
		if math.Float64bits(pass[len(q.IDs)-1+k].LSE) != math.Float64bits(tok.LSE) {
			apart++
		}
		k++
		return nil
	})
	if err != nil || k != len(decoded) {
		t.Errorf("%d tokens of %d, %v", k, len(decoded), err)
	}
	return apart
}

// TestCallsRefused: a transcript whose calls are not those of its path is refused by name.
func TestCallsRefused(t *testing.T) {
	t.Parallel()
	_, r := callsGate(t, engine.Path{Chunk: 3})
	for name, change := range map[string][2]string{
		"path":  {`"path": "chunk=3"`, `"path": "step"`},
		"calls": {`"calls": "3,1*`, `"calls": "4,1*`},
	} {
		_, err := callsTranscript(t, r, func(b []byte) []byte {
			if !bytes.Contains(b, []byte(change[0])) {
				t.Fatalf("%s: no %s", name, change[0])
			}
			return bytes.ReplaceAll(b, []byte(change[0]), []byte(change[1]))
		})
		var in *inputerr.Error
		if !errors.As(err, &in) || !strings.Contains(err.Error(), "a prompt split at other call boundaries than its path's") {
			t.Errorf("%s: %v", name, err)
		}
	}
	old, err := callsTranscript(t, r, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(`"calls":`), []byte(`"unknown":`)) })
	if err != nil {
		t.Fatalf("a transcript of before calls were recorded: %v", err)
	}
	if _, problems := old.CheckEvidence(); len(problems) > 0 {
		t.Errorf("a transcript of before calls were recorded: %q", problems)
	}
}
