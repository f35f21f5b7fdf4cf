//go:build unix

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPipesAndLinks: a named pipe is neither waited for nor replaced, nor is a symlink, wherever a file is named.
func TestPipesAndLinks(t *testing.T) {
	t.Parallel()
	single, err := filepath.Abs(filepath.Join("..", "..", "testdata", "checkpoints", "single"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, want string
		args       []string
	}{
		{"subject", "pipe: found a named pipe, want", []string{"inspect", "pipe"}},
		{"subject-of-diff", "pipe: found a named pipe, want", []string{"diff", "pipe", "pipe"}},
		{"golden", "pipe: found a named pipe, want", []string{"diff", "pipe", "@fast", "--golden", "p1"}},
		{"ids", "--ids: pipe: found a named pipe, want", []string{"run", "--ids", "@pipe"}},
		{"prompts", "--prompts: pipe: found a named pipe, want", []string{"gate", "--prompts", "pipe"}},
		{"replay", "pipe: found a named pipe, want", []string{"gate", "--replay", "pipe"}},
		{"transcript", "pipe: found a named pipe, want", []string{"gate", "@fp64", "@replay:pipe"}},
		{"contract", "pipe: found a named pipe, want", []string{"contracts", "contract:pipe"}},
		{"recipe", "pipe: found a named pipe, want", []string{"schemes", "recipe:pipe"}},
		{"tolerances", "pipe: found a named pipe, want", []string{"diff", "@fast", "--tol", "pipe"}},
		{"state", "pipe: found a named pipe, want", []string{"trace", "--ids", "1", "-o", "x", "--state", "pipe"}},
		{"tokenizer-file", "pipe: found a named pipe, want", []string{"tokenize", "--tokenizer", "pipe", "x"}},
		{"chat", "--chat: pipe: found a named pipe, want", []string{"tokenize", "--chat", "pipe"}},
		{"config.json", "config.json: found a named pipe, want", []string{"inspect", "config"}},
		{"model.safetensors", "model.safetensors: found a named pipe, want", []string{"inspect", "weights"}},
		{"tokenizer.json", "tokenizer.json: found a named pipe, want", []string{"tokenize", "vocabulary", "x"}},
		{"hub-snapshot", "config.json: found a named pipe, want", []string{"inspect", "models--a--b/snapshots/c"}},
		{"trace-onto-pipe", "pipe: found a named pipe, want a new name, or a regular file", []string{"trace", "--ids", "1", "-o", "pipe", "--force"}},
		{"trace-onto-link", "link: found a symlink, want a new name, or a regular file", []string{"trace", "--ids", "1", "-o", "link", "--force"}},
		{"diff-onto-link", "link: found a symlink, want a new name, or a regular file", []string{"diff", "@fast", "-o", "link", "--force"}},
		{"gate-onto-pipe", "pipe: found a named pipe, want a new name, or a regular file", []string{"gate", "-o", "pipe", "--force"}},
		{"quantize-onto-pipe", "pipe: found a named pipe, want", []string{"quantize", "--scheme", "int8lin", "-o", "pipe", "--force"}},
		{"quantize-onto-link", "dirlink: found a symlink, want", []string{"quantize", "--scheme", "int8lin", "-o", "dirlink", "--force"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			must := func(err error) {
				if err != nil {
					t.Fatal(err)
				}
			}
			must(os.WriteFile(filepath.Join(dir, "target"), []byte("kept"), 0o644))
			must(os.Symlink("target", filepath.Join(dir, "link")))
			must(os.Mkdir(filepath.Join(dir, "folder"), 0o755))
			must(os.Symlink("folder", filepath.Join(dir, "dirlink")))
			pipes := []string{"pipe", "config/config.json", "weights/model.safetensors", "vocabulary/tokenizer.json", "models--a--b/snapshots/c/config.json"}
			for _, pipe := range pipes {
				must(os.MkdirAll(filepath.Dir(filepath.Join(dir, pipe)), 0o755))
				must(unix.Mkfifo(filepath.Join(dir, pipe), 0o600))
			}
			for _, folder := range []string{"weights", "vocabulary"} {
				data, err := os.ReadFile(filepath.Join(single, "config.json"))
				must(err)
				must(os.WriteFile(filepath.Join(dir, folder, "config.json"), data, 0o644))
			}
			before, err := os.ReadDir(dir)
			must(err)

			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, "sibyl", tt.args...)
			var stderr bytes.Buffer
			cmd.Dir, cmd.Stderr = dir, &stderr
			cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("sibyl %q: exit code %d, %q; want %d and %q", tt.args, code, &stderr, exitUsage, tt.want)
			}
			after, err := os.ReadDir(dir)
			must(err)
			for i := range before {
				if len(after) != len(before) || after[i].Type() != before[i].Type() {
					t.Fatalf("sibyl %q made %v of %v", tt.args, after, before)
				}
			}
		})
	}
}
