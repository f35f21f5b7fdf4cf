package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMalformed gives every malformed input of testdata to the verb that would meet it: one line that names the
// input, exit code 2, under a second and under 200 MB. What the line must say is held by the packages' own tests.
func TestMalformed(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(filepath.Join("..", "..", "testdata", "malformed"))
	if err != nil {
		t.Fatal(err)
	}
	verbs := map[string][]string{
		"checkpoint": {"inspect"}, "config": {"inspect"}, "index": {"inspect"}, "safetensors": {"inspect"},
		"tokenizer": {"tokenize", "x", "--tokenizer"},
	}
	for kind, args := range verbs {
		entries, err := os.ReadDir(filepath.Join(root, kind))
		if err != nil || len(entries) < 10 {
			t.Fatalf("%s: %d inputs, %v", kind, len(entries), err)
		}
		for _, entry := range entries {
			if filepath.Ext(entry.Name()) == ".txt" || filepath.Ext(entry.Name()) == ".py" {
				continue // the list and the generator
			}
			t.Run(kind+"/"+entry.Name(), func(t *testing.T) {
				t.Parallel()
				refuses(t, append(args[:len(args):len(args)], filepath.Join(root, kind, entry.Name())))
			})
		}
	}
}

// refuses demands that sibyl refuses the arguments as bad input.
func refuses(t *testing.T, args []string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("sibyl", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Run()
	text := stderr.String()
	if code := cmd.ProcessState.ExitCode(); code != exitUsage || stdout.Len() > 0 {
		t.Errorf("sibyl %q: exit code %d, stdout %.200q, stderr %.200q; want %d and no output", args, code, &stdout, text, exitUsage)
	}
	if !strings.HasPrefix(text, "sibyl: ") || strings.Count(text, "\n") != 1 || len(text) > 4000 {
		t.Errorf("sibyl %q prints %.600q; want one line", args, text)
	}
	// User time, since the machine may be busy with other tests.
	if took := cmd.ProcessState.UserTime(); took > time.Second {
		t.Errorf("sibyl %q took %v of one core; want less than a second", args, took)
	}
	if peak := peakMemory(cmd.ProcessState); peak > 200<<20 {
		t.Errorf("sibyl %q took %d MB; want less than 200", args, peak>>20)
	}
}
