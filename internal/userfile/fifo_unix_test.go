//go:build unix

package userfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPipes: no named pipe is waited for or replaced, by whatever call.
func TestPipes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Skip("needs named pipes:", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	tests := []struct {
		name string
		call func() error
	}{
		{"open", func() error { _, err := Open(pipe); return err }},
		{"read", func() error { _, err := Read(pipe, 10); return err }},
		{"root", func() error { _, err := FS(root.FS()).Open("pipe"); return err }},
		{"folder", func() error { _, err := FS(os.DirFS(dir)).Open("pipe"); return err }},
		{"output", func() error { return CheckOutput(pipe, true) }},
		{"output-folder", func() error { return CheckOutputFolder(pipe) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			done := make(chan error, 1)
			go func() { done <- tt.call() }()
			select {
			case err := <-done:
				var odd *NotRegular
				if err == nil || !errors.As(err, &odd) && !strings.Contains(err.Error(), "found a named pipe, want") {
					t.Errorf("%v; want an error that says it is a named pipe", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("it waits for a writer")
			}
		})
	}
}
