package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestBrokenPipe: who reads from sibyl may leave; that is no failure and prints nothing.
func TestBrokenPipe(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("pipes break otherwise on Windows")
	}
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"streaming", []string{"run", "--max-tokens", "1000", "--ids", "1,2,3"}},
		{"long-output", []string{"diff", "@exact", "@fast", "--ids", "1,2,3,4,5,6,7,8", "--json"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("sibyl", tt.args...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			out.Close()
			if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
				t.Errorf("sibyl %q into a pipe that breaks: %v, %q; want exit 0 and silence", tt.args, err, &stderr)
			}
		})
	}
}

// TestInterrupt: Ctrl-C ends a run at once, with its own exit code, and leaves no half file.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("needs SIGINT")
	}
	ids := strings.TrimSuffix(strings.Repeat("5,", 4000), ",")
	tests := []struct {
		name, why string
		args      []string
		wait      bool // for the first byte of output; otherwise half a second
	}{
		{"run-streaming", "between two tokens", []string{"run", "--max-tokens", "4000", "--ids", "1,2,3"}, true},
		{"run-stdin", "waiting for a prompt that does not come", []string{"run", "-"}, false},
		{"tokenize-stdin", "waiting for a line", []string{"tokenize", "--jsonl"}, false},
		{"trace", "inside a prefill", []string{"trace", "@exact", "-t", "1", "--ids", ids, "--taps", "logits", "-o", "x.trace"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := exec.Command("sibyl", tt.args...)
			cmd.Dir = dir
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdin, err := cmd.StdinPipe() // stays open
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if tt.wait {
				io.ReadFull(out, make([]byte, 1))
			} else {
				time.Sleep(500 * time.Millisecond)
			}
			start := time.Now()
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, out)
			cmd.Wait()
			took, code := time.Since(start), cmd.ProcessState.ExitCode()
			if code != exitInterrupted || !strings.HasPrefix(stderr.String(), "sibyl: interrupted") {
				t.Errorf("sibyl %.60q: exit code %d, %q; want %d and a line that says so\nwhy: %s", tt.args, code, &stderr, exitInterrupted, tt.why)
			}
			if took > 5*time.Second { // generous: the machine may be busy
				t.Errorf("sibyl %.60q took %v to stop\nwhy: %s", tt.args, took, tt.why)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("sibyl %.60q left %v behind", tt.args, left)
			}
		})
	}
}

// TestDiskFull: a write that cannot be finished says so, is exit 2, and leaves nothing.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("needs /dev/full")
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	var stderr bytes.Buffer
	cmd := exec.Command("sibyl", "taps")
	cmd.Stdout, cmd.Stderr = full, &stderr
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(stderr.String(), "no space left") {
		t.Errorf("sibyl taps on a full disk: exit code %d, %q; want %d and the reason", code, &stderr, exitUsage)
	}
}

// TestTerminate: SIGTERM has the exit code that shells give it, and no message has the words of package context.
func TestTerminate(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("needs SIGTERM")
	}
	tests := []struct {
		name string
		send os.Signal
		code int
		want string
	}{
		{"SIGTERM", syscall.SIGTERM, exitTerminated, "sibyl: terminated: reading standard input\n"},
		{"SIGINT", os.Interrupt, exitInterrupted, "sibyl: interrupted: reading standard input\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("sibyl", "run", "-")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdin, err := cmd.StdinPipe() // stays open
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
			if err := cmd.Process.Signal(tt.send); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != tt.code || stderr.String() != tt.want {
				t.Errorf("sibyl run - at %v: exit code %d, %q; want %d, %q", tt.send, code, &stderr, tt.code, tt.want)
			}
		})
	}
}

// TestInterruptedText: what is left of an error that is only a context's.
func TestInterruptedText(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(signalError{os.Interrupt})
	for _, tt := range []struct {
		err  error
		want string
	}{
		{context.Canceled, "sibyl: interrupted\n"},
		{fmt.Errorf("scoring: %w", context.Canceled), "sibyl: interrupted: scoring\n"},
		{fmt.Errorf("scoring: %w; 3 tokens were done", context.Canceled), "sibyl: interrupted: scoring; 3 tokens were done\n"},
	} {
		var stderr bytes.Buffer
		a := &App{Stderr: newNotes(&stderr)}
		if code := a.report(ctx, tt.err); code != exitInterrupted || stderr.String() != tt.want {
			t.Errorf("report(%v) = %d, %q; want %d, %q", tt.err, code, &stderr, exitInterrupted, tt.want)
		}
	}
}
