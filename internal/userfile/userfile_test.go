package userfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestCheckOutput: what is refused, with and without force.
func TestCheckOutput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string) {
		if err := os.WriteFile(at(name), []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("file")
	if err := os.Mkdir(at("folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"link": "file", "dangling": "nothing"} {
		if err := os.Symlink(to, at(link)); err != nil {
			t.Skip("needs symlinks:", err)
		}
	}
	tests := []struct {
		name, path, want, forced, why string // want and forced: the error without and with force, "" for none
	}{
		{"new", at("new"), "", "", "a free name"},
		{"file", at("file"), at("file") + ": found an existing file, want a new name; --force overwrites it", "", "the one thing force is for"},
		{"folder", at("folder"), at("folder") + ": found a folder, want a new name, or a regular file to replace; name a file in it", "=", "a folder is no file, forced or not"},
		{"symlink", at("link"), "found a symlink, want a new name, or a regular file to replace; name the file it points to", "=", "a rename would replace the link, not its target"},
		{"dangling", at("dangling"), "found a symlink", "=", "likewise"},
		{"missing-folder", at("no/x"), at("no/x") + ": folder " + at("no") + ": found no such folder, want a folder that takes new files", "=", "told before the work, with the name as typed"},
		{"folder-is-file", at("file/x"), "want a folder that takes new files", "=", "a file is no folder"},
		{"empty", "", "--out: found an empty name, want a file's name; is a variable unset?", "=", "an unset variable"},
		{"dash", "-", `--out: found "-", want a file's name`, "=", "standard output is no place to rename to"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.forced == "=" {
				tt.forced = tt.want
			}
			for force, want := range map[bool]string{false: tt.want, true: tt.forced} {
				got := text(CheckOutput(tt.path, force))
				if (got == "") != (want == "") || !strings.Contains(got, want) {
					t.Errorf("CheckOutput(%q, %v) = %q, want %q\nwhy: %s", tt.path, force, got, want, tt.why)
				}
			}
		})
	}
	t.Run("leaves-nothing", func(t *testing.T) {
		empty := t.TempDir()
		if err := CheckOutput(filepath.Join(empty, "x"), false); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(empty); len(left) > 0 {
			t.Errorf("CheckOutput left %v", left)
		}
	})
}
