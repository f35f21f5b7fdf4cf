package near

import (
	"slices"
	"testing"
)

func TestNear(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, typed string
		words, want []string
		why         string
	}{
		{"swap", "gaet", []string{"gate", "trace"}, []string{"gate"}, "a swap of neighbours is one edit"},
		{"part-of-a-name", "q_rope", []string{"layerN.attn.q_rope", "embed"}, []string{"layerN.attn.q_rope"}, "people leave the front off"},
		{"too-much-typed", "taps-list", []string{"taps", "trace"}, []string{"taps"}, "people add to the end"},
		{"nothing", "xyzzy", []string{"gate", "run"}, nil, "a wrong guess misleads"},
		{"short-words", "on", []string{"run", "gate"}, nil, "two letters are not near everything"},
		{"nearest-first", "int8h", []string{"int8hu-sym", "int8hu"}, []string{"int8hu", "int8hu-sym"}, "by edits, then by order"},
		{"at-most-four", "aaaaaa", []string{"aaaaab", "aaaaac", "aaaaad", "aaaaae", "aaaaaf"}, []string{"aaaaab", "aaaaac", "aaaaad", "aaaaae"}, "a list of all is no help"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Words(tt.typed, tt.words); !slices.Equal(got, tt.want) {
				t.Errorf("Words(%q, %q) = %q, want %q\nwhy: %s", tt.typed, tt.words, got, tt.want, tt.why)
			}
		})
	}
}

func TestEditDistance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}} {
		if got := editDistance(tt.a, tt.b); got != tt.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
