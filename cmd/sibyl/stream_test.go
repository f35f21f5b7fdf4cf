package main

import (
	"bytes"
	"strings"
	"testing"

	"sibyl/bundle"
)

// TestStreamingChoose: a model that does not fit is streamed unasked and said so; what was asked for wins.
func TestStreamingChoose(t *testing.T) {
	t.Parallel()
	c, err := bundle.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	yes, no := true, false
	for _, tt := range []struct {
		name, limit string
		flag        *bool
		want        bool
		note        string
	}{
		{"fits", "5MB", nil, false, ""},
		{"does not fit", "4MB", nil, true, "4.8 MB of weights do not fit 4.0 MB of memory (the --memory-limit): they are read layer by layer"},
		{"asked for", "5MB", &yes, true, ""},
		{"refused", "4MB", &no, false, ""},
	} {
		var stderr bytes.Buffer
		a := &App{Stderr: newNotes(&stderr), memoryLimit: tt.limit}
		if err := (&Streaming{Stream: tt.flag}).choose(a, c); err != nil || a.stream != tt.want {
			t.Errorf("%s: stream %v, want %v (%v)", tt.name, a.stream, tt.want, err)
		}
		if got := stderr.String(); !strings.Contains(got, tt.note) || tt.note == "" && got != "" {
			t.Errorf("%s: said %q, want %q", tt.name, got, tt.note)
		}
	}
}
