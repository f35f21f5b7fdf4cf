package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseIDs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, value, file string // file: content of F, if value is "@F"
		want              []int32
		wantErr           string
		why               string
	}{
		{name: "list", value: "1,2,3", want: []int32{1, 2, 3}, why: "the plain form"},
		{name: "spaces", value: " 1, 2 ", want: []int32{1, 2}, why: "pasted from a program's output"},
		{name: "empty", value: "", wantErr: "--ids: found no ids", why: "an empty prompt is refused"},
		{name: "word", value: "1,x", wantErr: `--ids: id 1: found "x", want a token id, 0 or more; write ids as 1,2,3 or @FILE`, why: "which one is wrong"},
		{name: "negative", value: "-1", wantErr: `id 0: found "-1"`, why: "no id is negative"},
		{name: "too-large", value: "2147483648", wantErr: `id 0: found "2147483648"`, why: "ids are int32"},
		{name: "json-list", value: "@F", file: "[4, 5]\n", want: []int32{4, 5}, why: "a JSON list"},
		{name: "json-tokens", value: "@F", file: `{"tokens":[7],"text":"x"}`, want: []int32{7}, why: "what other tools write"},
		{name: "json-ids", value: "@F", file: `{"ids":[8]}`, want: []int32{8}, why: "what tokenize --json writes"},
		{name: "json-both", value: "@F", file: `{"ids":[8],"tokens":[9]}`, wantErr: "both or neither", why: "never guess"},
		{name: "json-neither", value: "@F", file: `{"x":1}`, wantErr: "both or neither", why: "never guess"},
		{name: "json-float", value: "@F", file: `[1.5]`, wantErr: "[0]: found 1.5", why: "ids are whole"},
		{name: "json-nested", value: "@F", file: `[[1]]`, wantErr: "want a list of token ids", why: "not three axes, not a batch"},
		{name: "text", value: "@F", file: "1 2\n3,4\n", want: []int32{1, 2, 3, 4}, why: "numbers in text"},
		{name: "empty-file", value: "@F", file: "", wantErr: "found no ids", why: "an empty file is no prompt"},
		{name: "no-file", value: "@", wantErr: "found no file name after @", why: "a forgotten name"},
		{name: "absent", value: "@nothere", wantErr: "no such file", why: "a wrong name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			value := tt.value
			if value == "@F" {
				path := filepath.Join(t.TempDir(), "F")
				if err := os.WriteFile(path, []byte(tt.file), 0o644); err != nil {
					t.Fatal(err)
				}
				value = "@" + path
			}
			a := &App{Stdin: strings.NewReader("")}
			got, err := a.ParseIDs(context.Background(), "--ids", value)
			if (err == nil) != (tt.wantErr == "") || !strings.Contains(errText(err), tt.wantErr) || !slices.Equal(got, tt.want) {
				t.Errorf("ParseIDs(%q with %q) = %v, %q; want %v, %q\nwhy: %s", tt.value, tt.file, got, errText(err), tt.want, tt.wantErr, tt.why)
			}
		})
	}
}

func TestPositionIDs(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, file, wantErr, why string }{
		{"good", "[[0,1],[0,2],[0,3]]", "", "[3][T]"},
		{"two-axes", "[[0,1],[0,2]]", "found 2 lists, want three: T, H, W", "mRoPE has three axes"},
		{"short-axis", "[[0,1],[0],[0,3]]", "[1]: found 1 positions, want 2, one for each id", "which axis is short"},
		{"negative", "[[0,1],[0,-2],[0,3]]", "[1][1]: found -2", "which position is wrong"},
		{"not-json", "0 1 2", "want three lists", "text is not accepted: the shape would be a guess"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "F")
			if err := os.WriteFile(path, []byte(tt.file), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := (&App{}).positionIDs(context.Background(), "@"+path, 2)
			if (err == nil) != (tt.wantErr == "") || !strings.Contains(errText(err), tt.wantErr) {
				t.Fatalf("positionIDs(%s): error %q, want %q\nwhy: %s", tt.file, errText(err), tt.wantErr, tt.why)
			}
			if want := [][3]int32{{0, 0, 0}, {1, 2, 3}}; err == nil && !slices.Equal(got, want) {
				t.Errorf("positionIDs(%s) = %v, want %v", tt.file, got, want)
			}
		})
	}
}
