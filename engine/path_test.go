package engine

import (
	"strings"
	"testing"
)

// TestPathText: what String writes ParsePath reads, and nothing else.
func TestPathText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"prefill", "step", "chunk=2", "chunk=512", "prefill+1", "chunk=16+1", "chunk=9223372036854775807"} {
		p, err := ParsePath(text)
		if err != nil || p.String() != text {
			t.Errorf("ParsePath(%q) = %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "+1", "step+1", "Prefill", "prefill+2", "chunk", "chunk=", "chunk=0", "chunk=-1", "chunk=+3", "chunk=03",
		"chunk=1e3", "chunk=16+", "chunk=16+1+1", "chunk=9223372036854775808", strings.Repeat("x", 1000)} {
		if p, err := ParsePath(text); err == nil || len(err.Error()) > 200 {
			t.Errorf("ParsePath(%.40q) = %v, %v, want a short error", text, p, err)
		}
	}
	// One token a call has no other last call.
	if p, err := ParsePath("chunk=1+1"); err != nil || p != (Path{Chunk: 1}) || p.String() != "step" {
		t.Errorf("chunk=1+1 is %#v, %v", p, err)
	}
}

func TestPathCalls(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		path, want string
		n, steps   int
	}{
		{"prefill", "17", 17, 0}, {"prefill", "17,1*15", 17, 15}, {"prefill", "1*4", 1, 3},
		{"prefill+1", "16,1", 17, 0}, {"prefill+1", "16,1*16", 17, 15}, {"prefill+1", "1", 1, 0}, {"prefill+1", "1*2", 2, 0},
		{"step", "1*17", 17, 0}, {"step", "1*20", 17, 3},
		{"chunk=16", "16*4,5", 69, 0}, {"chunk=16", "16*4", 64, 0}, {"chunk=16", "16*4,1", 65, 0}, {"chunk=16", "3", 3, 0},
		{"chunk=16+1", "16*4,4,1", 69, 0}, {"chunk=16+1", "16*3,15,1", 64, 0}, {"chunk=16+1", "16*4,1*3", 65, 2},
		{"chunk=9223372036854775807", "5", 5, 0}, {"prefill", "", 0, 0},
	} {
		p, err := ParsePath(tt.path)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Calls(tt.n, tt.steps); got != tt.want {
			t.Errorf("%s over %d tokens and %d steps: %s, want %s", tt.path, tt.n, tt.steps, got, tt.want)
		}
		for i := 0; i < tt.n; i++ { // asked from within a call, its end is the same
			if e := p.End(i, tt.n); i == tt.n-1 || p.End(i+1, tt.n) != e {
				if e != i+1 {
					t.Errorf("%s: the call of token %d ends at %d", tt.path, i, e)
				}
			}
		}
	}
}
