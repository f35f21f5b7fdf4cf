package oracle

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/internal/inputerr"
)

// TestTranscriptRefused: what no gate writes is refused in one line that names file, place and remedy.
func TestTranscriptRefused(t *testing.T) {
	t.Parallel()
	_, r := flippedGate(t)
	data := written(t, r)
	field, err := os.ReadFile(filepath.Join("testdata", "transcripts", "tie.json"))
	if err != nil {
		t.Fatal(err)
	}
	ours := func(edit func(top map[string]any)) []byte { return edited(t, data, edit) }
	theirs := func(edit func(top map[string]any)) []byte { return edited(t, field, edit) }
	shown := func(edit func(first map[string]any)) []byte {
		return ours(func(top map[string]any) { edit(at(top, "sibyl", "shown", 0).(map[string]any)) })
	}
	give := "; give a transcript (coreai-gate-transcript/1)"
	for _, tt := range []struct {
		name, why string
		data      []byte
		want      string // the whole text
	}{
		{"empty", "a file that was cut to nothing", nil, "t.json: found no value, want an object" + give},
		{"list", "another JSON file", []byte("[1]"), "t.json: found a list, want an object" + give},
		{"cut", "half a file", field[:len(field)/2], "t.json: byte 593: found the end of the text, want a value" + give},
		{"twice", "two values for one key: which one is meant?", []byte(`{"schema":"coreai-gate-transcript/1","result":"FAIL","result":"PASS"}`),
			`t.json: byte 53: found the key "result" a second time, want each key once` + give},
		{"behind", "two files in one", append(bytes.Clone(field), '{'), "t.json: byte 1186: found '{', want the end of the text" + give},
		{"utf8", "not text", []byte("{\"\xff\":1}"), "t.json: byte 2: found the byte 0xff, want UTF-8" + give},
		{"deep", "nesting without end", []byte(`{"x":` + strings.Repeat("[", 100)), "t.json: byte 68: found more than 64 levels of nesting, want fewer" + give},
		{"no-schema", "a plain gate result", []byte(`{"decision":"PASS"}`), "t.json: schema: found nothing, want coreai-gate-transcript/1; sibyl gate -o FILE writes such a file"},
		{"schema", "a newer form", theirs(func(top map[string]any) { top["schema"] = "coreai-gate-transcript/2" }),
			`t.json: schema: found "coreai-gate-transcript/2", want coreai-gate-transcript/1; sibyl gate -o FILE writes such a file`},
		{"schema-kind", "no name at all", theirs(func(top map[string]any) { top["schema"] = 1 }),
			`t.json: schema: found "1", want coreai-gate-transcript/1; sibyl gate -o FILE writes such a file`},
		{"ids-kind", "text where ids belong", theirs(func(top map[string]any) { top["input_ids"] = "1,2,3" }), "t.json: input_ids: found a string, want a list"},
		{"id-fraction", "not an id", theirs(func(top map[string]any) { top["input_ids"] = []any{1.5} }), "t.json: input_ids: found a number 1.5, want a token id"},
		{"id-huge", "beyond 32 bits", theirs(func(top map[string]any) { top["input_ids"] = []any{1 << 40} }), "t.json: input_ids: found a number 1099511627776, want a token id"},
		{"no-ids", "nothing was asked", theirs(func(top map[string]any) { delete(top, "input_ids") }), "t.json: input_ids: found no token, want at least one"},
		{"negative-id", "below 0", theirs(func(top map[string]any) { at(top, "oracle").(map[string]any)["gen_ids"] = []any{1, -5} }),
			"t.json: oracle.gen_ids: found -5 at index 1, want ids of 0 or more"},
		{"margins-more", "margins of nothing", theirs(func(top map[string]any) { at(top, "oracle").(map[string]any)["top2_margins"] = []any{0, 0, 0, 0.5} }),
			"t.json: oracle.top2_margins: found 4 margins, want at most 3, one for each of gen_ids"},
		{"margin-logits", "gaps of logits, the field's other unit", theirs(func(top map[string]any) { at(top, "oracle").(map[string]any)["top2_margins"] = []any{3.5} }),
			"t.json: oracle.top2_margins[0]: found 3.5, want a gap of probability, 0..1, as the schema has it"},
		{"no-result", "evidence of nothing", ours(func(top map[string]any) { delete(top["sibyl"].(map[string]any), "result") }), "t.json: sibyl.result.schema: found none or another, want sibyl-gate/1"},
		{"unit", "an unlabelled margin", ours(func(top map[string]any) { top["sibyl"].(map[string]any)["top2_margins_unit"] = "logit_gap" }),
			`t.json: sibyl.top2_margins_unit: found "logit_gap", want prob_gap`},
		{"prompt", "an index beyond", ours(func(top map[string]any) { top["sibyl"].(map[string]any)["prompt"] = 2 }), "t.json: sibyl.prompt: found 2, want an index into its 2 prompts"},
		{"path", "a path that is none", ours(func(top map[string]any) {
			at(top, "sibyl", "result", "protocol").(map[string]any)["path"] = "sideways"
		}), `t.json: sibyl.result.protocol.path: found "sideways", want prefill, step or chunk=N (prefill+1, chunk=N+1: the last token in a call of its own)`},
		{"protocol", "a rule that cannot be", ours(func(top map[string]any) {
			at(top, "sibyl", "result", "protocol").(map[string]any)["min_qualified"] = 50
		}),
			"t.json: sibyl.result.protocol: gate: --min-qualified: found 50, want a share from 0 to 1"},
		{"parts", "a part is missing", ours(func(top map[string]any) { at(top, "sibyl", "result").(map[string]any)["parts"] = []any{} }),
			"t.json: sibyl.result.parts: found [], want [qualification teacher_forced state_step rollout]"},
		{"position-prompt", "a position of no prompt", ours(func(top map[string]any) {
			at(top, "sibyl", "result", "positions", 0).(map[string]any)["prompt"] = 9
		}), "t.json: sibyl.result.positions[0].prompt: found 9, want 0..1"},
		{"prompts", "a prompt of no token", ours(func(top map[string]any) {
			at(top, "sibyl", "result", "prompts", 1).(map[string]any)["ids"] = []any{}
		}), "t.json: sibyl.result.prompts[1]: found ids that are none or below 0, want at least one token, ids of 0 or more"},
		{"shown-prompt", "a view of no prompt", shown(func(s map[string]any) { s["prompt"] = 9 }), "t.json: sibyl.shown[0].prompt: found 9, want 0..1"},
		{"shown-from", "a view that begins elsewhere", shown(func(s map[string]any) { s["from"] = 1 }), "t.json: sibyl.shown[0]: found 5 positions from 1, want at most 5 from 0"},
		{"shown-by", "a view of nobody", shown(func(s map[string]any) { s["by"] = "me" }), `t.json: sibyl.shown: by: found "me", want REF, TEST or control`},
		{"shown-part", "a view in no part", shown(func(s map[string]any) { s["part"] = "x" }), `t.json: sibyl.shown: part: found "x", want teacher_forced, state_step or rollout`},
		{"shown-columns", "a column is short", shown(func(s map[string]any) { s["log_sum_exp"] = []any{1} }),
			"t.json: sibyl.shown: columns: found 5 ids, 5 top_ids, 5 top_logits, 1 log_sum_exp, want one for each id"},
		{"shown-candidates", "a candidate without its logit", shown(func(s map[string]any) { s["top_ids"].([]any)[2] = []any{1} }),
			"t.json: sibyl.shown: position 2: found 1 top_ids and 8 top_logits, want as many, at most 1024"},
		{"shown-order", "candidates out of order", shown(func(s map[string]any) { at(s, "top_logits", 1).([]any)[3] = 100 }),
			"t.json: sibyl.shown: position 1: found candidate 7 after a smaller one, want the largest first, ties by id"},
		{"shown-kind", "text where ids belong", shown(func(s map[string]any) { s["ids"] = "none" }), "t.json: sibyl.shown: ids: found a string, want a list"},
		{"shown-argmax", "an id that is not its own largest logit's", shown(func(s map[string]any) { s["ids"].([]any)[0] = 3 }),
			"t.json: sibyl.shown: position 0: found id 3 and first candidate 4, want the same"},
		{"shown-logit", "a word for a number", shown(func(s map[string]any) { at(s, "top_logits", 0).([]any)[0] = "much" }),
			`t.json: sibyl.shown: found "much", want a number, "NaN", "+Inf" or "-Inf"`},
		{"shown-ties", "ties of no position", shown(func(s map[string]any) { s["ties"] = map[string]any{"7": []any{1}} }), "t.json: sibyl.shown: ties: found position 7 of 5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseTranscript("t.json", tt.data)
			bad := new(inputerr.Error)
			if !errors.As(err, &bad) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%v, want an input error of one line\nwhy: %s", err, tt.why)
			}
			if err.Error() != tt.want {
				t.Errorf("%s\nwant %s\nwhy: %s", err, tt.want, tt.why)
			}
		})
	}
	dir := t.TempDir()
	if _, err := OpenTranscript(dir); errText(err) != dir+": found a folder, want a transcript (coreai-gate-transcript/1); give the file of a transcript" {
		t.Errorf("a folder: %v", err)
	}
	none := filepath.Join(dir, "none.json")
	if _, err := OpenTranscript(none); errText(err) != none+": found no such file, want a transcript (coreai-gate-transcript/1); give the file of a transcript" {
		t.Errorf("no file: %v", err)
	}
}

// TestLossless: every number comes back bit for bit, a NaN as a NaN.
func TestLossless(t *testing.T) {
	t.Parallel()
	for _, x := range []float64{0, math.Copysign(0, -1), 1, -1.5, 0x1p-1074, math.MaxFloat64, float64(float32(0.1)), 0.1, math.Pi, math.Inf(1), math.Inf(-1), math.NaN()} {
		b, err := lossless(x).MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var y lossless
		if err := y.UnmarshalJSON(b); err != nil || math.Float64bits(x) != math.Float64bits(float64(y)) && !(x != x && y != y) {
			t.Errorf("%v comes back as %v by way of %s (%v)", x, float64(y), b, err)
		}
	}
	var y lossless
	for _, bad := range []string{`"Inf"`, `1e999`, `null`, `[]`, `"1"`} {
		if err := y.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s is read as %v", bad, float64(y))
		}
	}
}

// TestFlatLists: lists of words and numbers take one line, everything in strings stays as it is.
func TestFlatLists(t *testing.T) {
	t.Parallel()
	in := "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": [\n    {\n      \"c\": \"[ 1,\\n \\\" 2 ]\"\n    }\n  ],\n  \"d\": [\n    \"x, y\",\n    \"]\"\n  ],\n  \"e\": []\n}\n"
	want := "{\n  \"a\": [1, 2],\n  \"b\": [\n    {\n      \"c\": \"[ 1,\\n \\\" 2 ]\"\n    }\n  ],\n  \"d\": [\"x, y\", \"]\"],\n  \"e\": []\n}\n"
	if got := string(flatLists([]byte(in))); got != want {
		t.Errorf("flatLists gives\n%s\nwant\n%s", got, want)
	}
}

// TestPublicName: a transcript names models, not the folders of the machine it was made on.
func TestPublicName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"@cpu,hf-fp32": "@cpu,hf-fp32", "Qwen/Qwen3.5-2B@fp64": "Qwen/Qwen3.5-2B@fp64", "/home/me/models/Qwen3.5-2B@fp64": "Qwen3.5-2B@fp64",
		"../Qwen3.5-2B@cpu": "Qwen3.5-2B@cpu", `C:\models\Qwen@cpu`: "Qwen@cpu", "./q": "q", "": "", "a@b/c@cpu": "a@b/c@cpu",
	} {
		if got := publicName(in); got != want {
			t.Errorf("publicName(%q) = %q, want %q", in, got, want)
		}
	}
	if got := sourceModel("@fp64"); got != "the demo model of sibyl" {
		t.Errorf("sourceModel of the demo model is %q", got)
	}
}

// FuzzTranscript: any bytes are read or refused; what is read can be judged, written and read again.
func FuzzTranscript(f *testing.F) {
	for _, name := range []string{"public-0.8b.json", "tie.json", "error.json", "passes-by-text.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", "transcripts", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	_, r := flippedGate(f)
	f.Add(written(f, r))
	f.Add([]byte(`{"schema":"coreai-gate-transcript/1","input_ids":[1],"sibyl":{"top2_margins_unit":"prob_gap","result":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) { judgeAnything(t, data) })
}

// FuzzTranscriptEdit: any value at any place of a transcript is refused, or can be judged, written and read again.
func FuzzTranscriptEdit(f *testing.F) {
	_, r := flippedGate(f)
	data := written(f, r)
	values := leaves(f, data)
	for i, v := range []string{"-1", "1e300", "null", "[]", "{}", `"NaN"`, "0", `"TEST"`, "[0,0]", "true"} {
		f.Add(uint16(i*37), v)
	}
	f.Fuzz(func(t *testing.T, where uint16, value string) {
		at := values[int(where)%len(values)]
		judgeAnything(t, slices.Concat(data[:at[0]], []byte(value), data[at[1]:]))
	})
}

// leaves are where the numbers, strings, null, true and false of a JSON text begin and end, keys among them.
func leaves(t testing.TB, data []byte) (out [][2]int) {
	d := json.NewDecoder(bytes.NewReader(data))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, bracket := token.(json.Delim); bracket {
			continue
		}
		end := int(d.InputOffset())
		start := end - 1
		if data[start] == '"' {
			for start--; data[start] != '"' || data[start-1] == '\\'; start-- {
			}
		} else {
			for !strings.ContainsRune(" \n,[:", rune(data[start-1])) {
				start--
			}
		}
		out = append(out, [2]int{start, end})
	}
}

// judgeAnything reads, judges, writes and reads again.
func judgeAnything(t *testing.T, data []byte) {
	tr, err := ParseTranscript("fuzz", data)
	if err != nil {
		return
	}
	was, problems := tr.CheckEvidence()
	for _, side := range []Role{RoleRef, RoleTest} {
		views, ids := tr.Views(side)
		for i, v := range views {
			if len(ids[i]) != v.From+len(v.Seen) {
				t.Errorf("view %d of %s: %d tokens up to position %d", i, side, len(ids[i]), v.From+len(v.Seen)-1)
			}
		}
		tr.Info(side)
	}
	if _, err := tr.Replay(t.Context(), Live{}); err != nil {
		t.Errorf("Replay without engines: %v", err)
	}
	var b bytes.Buffer
	if err := tr.Write(&b); err != nil {
		t.Fatalf("what was read cannot be written: %v", err)
	}
	again, err := ParseTranscript("fuzz", b.Bytes())
	if err != nil {
		t.Fatalf("written again it is refused: %v", err)
	}
	if now, after := again.CheckEvidence(); now != was || len(after) != len(problems) {
		t.Errorf("written again it is judged %s with %d problems, before %s with %d", now, len(after), was, len(problems))
	}
}
