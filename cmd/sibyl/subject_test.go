package main

import (
	"errors"
	"strings"
	"testing"

	"sibyl/internal/inputerr"
)

func TestParseSubject(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		paths    string // space separated: what exists
		want     Subject
		wantErr  string
		why      string
	}{
		{name: "empty", in: "", want: Subject{}, why: "nothing is the demo model"},
		{name: "model", in: "./m", want: Subject{Model: "./m"}, why: "no @, no parts"},
		{name: "parts-alone", in: "@cpu,fast", want: Subject{Engine: "cpu", Mode: "fast"}, why: "an empty MODEL is the demo model"},
		{name: "any-order", in: "m@fast,hf-fp32,cpu", want: Subject{Model: "m", Engine: "cpu", Contract: "hf-fp32", Mode: "fast"}, why: "parts are known by their names"},
		{name: "last-at", in: "a@b@cpu", want: Subject{Model: "a@b", Engine: "cpu"}, why: "split at the last @"},
		{name: "existing-path-with-at", in: "a@cpu", paths: "a@cpu", want: Subject{Model: "a@cpu"}, why: "an existing path is the MODEL whole"},
		{name: "replay", in: "@replay:t.json", want: Subject{Engine: "replay", File: "t.json"}, why: "a part that takes a file"},
		{name: "contract-file", in: "m@contract:c.yaml,int8hu-sym", want: Subject{Model: "m", Contract: "contract:c.yaml", Scheme: "int8hu-sym"}, why: "the file stays in the name"},
		{name: "longer-name-wins", in: "@metal-cpu", want: Subject{Engine: "metal-cpu"}, why: "metal is a prefix of metal-cpu"},
		{name: "two-engines", in: "m@cpu,fp64", wantErr: `subject "m@cpu,fp64": @fp64: found a second engine beside "cpu", want at most one engine; leave one of them out`, why: "which of them?"},
		{name: "near-part", in: "@fats", wantErr: `subject "@fats": part "fats": found an unknown name, want an engine, a contract, a scheme, exact or fast; did you mean "fast"?`, why: "the near one is named"},
		{name: "near-parts", in: "@int8", wantErr: `did you mean one of "int8lin", "int8hu", "int8hu-sym"?`, why: "several are near"},
		{name: "far-part", in: "@zzz", wantErr: `there is "cpu", "fp64"`, why: "nothing is near: all are listed"},
		{name: "trailing-at", in: "m@", wantErr: `subject "m@": found an empty part, want a name after @ and between commas; for example MODEL@cpu,exact`, why: "a forgotten part"},
		{name: "empty-between", in: "m@cpu,,fast", wantErr: "found an empty part", why: "a doubled comma"},
		{name: "replay-without-file", in: "@replay:", wantErr: "@replay:: found no file name, want replay:FILE", why: "a part that needs a file"},
		{name: "noise", in: "m@noise:3,coreai-fp16", want: Subject{Model: "m", Contract: "coreai-fp16", Mode: "noise:3"}, why: "a mode that takes a seed"},
		{name: "noise-without-seed", in: "@noise:", wantErr: "@noise:: found no seed, want noise:SEED", why: "a part that needs a number"},
		{name: "case", in: "@CPU", wantErr: `did you mean "cpu"?`, why: "names are lower case"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseSubject(tt.in, func(s string) bool { return tt.paths != "" && strings.Contains(" "+tt.paths+" ", " "+s+" ") })
			if errText(err) != tt.wantErr && (tt.wantErr == "" || !strings.Contains(errText(err), tt.wantErr)) {
				t.Fatalf("ParseSubject(%q): error %q, want %q\nwhy: %s", tt.in, errText(err), tt.wantErr, tt.why)
			}
			if err != nil {
				return
			}
			if tt.want.Text = tt.in; got != tt.want {
				t.Errorf("ParseSubject(%q) = %+v, want %+v\nwhy: %s", tt.in, got, tt.want, tt.why)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestMissingParts(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"@graph":            "",
		"@coreai-bf16":      "",
		"@coreai-cpu-bf16":  "",
		"@coreai-fp16":      "",
		"@contract:f,exact": "",
		"@int4lin":          "",
		"@recipe:r.yaml":    "",
		"@fp64,int4lin":     `found a mode, contract or scheme beside it, want fp64 alone`,
		"@fp64,fast":        `found a mode, contract or scheme beside it, want fp64 alone`,
		"@cpu,exact":        "",
		"@cpu,noise:7":      "",
		"@fp64,noise:7":     `found a mode, contract or scheme beside it, want fp64 alone`,
		"@fp64":             "",
	} {
		s, err := ParseSubject(in, func(string) bool { return false })
		if err != nil {
			t.Fatalf("ParseSubject(%q): %v", in, err)
		}
		want = strings.Replace(want, "a engine", "an engine", 1)
		if got := errText(s.missing()); got != want && (want == "" || !strings.Contains(got, want)) {
			t.Errorf("%q: missing() = %q, want %q", in, got, want)
		}
	}
}

// FuzzSubject: whatever is typed is read or refused with an input error, and what is read prints back to itself.
func FuzzSubject(f *testing.F) {
	for _, s := range []string{"", "@", "m@cpu,exact", "a@b@c", "@replay:x", "@replay:a@b", "@contract:,", "m@cpu,cpu", "\x00@\xff", strings.Repeat("@", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		never := func(string) bool { return false }
		s, err := ParseSubject(text, never)
		if err != nil {
			var bad *inputerr.Error
			if !errors.As(err, &bad) {
				t.Fatalf("ParseSubject(%q): %v is not an input error", text, err)
			}
			if len(err.Error()) > 4000 {
				t.Fatalf("ParseSubject of %d bytes gives an error of %d bytes", len(text), len(err.Error()))
			}
			return
		}
		again, err := ParseSubject(s.String(), never)
		if s.Text, again.Text = "", ""; err != nil || again != s {
			t.Fatalf("ParseSubject(%q) = %+v, printed %q, read back %+v, %v", text, s, s.String(), again, err)
		}
	})
}
