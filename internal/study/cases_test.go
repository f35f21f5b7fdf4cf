package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sibyl/internal/goldens"
)

// TestCases runs the commands of docs/cases.md in its order, in one folder beside testdata, and compares what they print.
// A gate may exit with 1, which is its answer.
func TestCases(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs to build the command and runs eleven gates; run without -short")
	}
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash")
	}
	root := filepath.Join(goldens.Root(), "..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "cases.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "sibyl/cmd/sibyl")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Symlink(filepath.Join(root, "testdata"), filepath.Join(dir, "testdata")); err != nil {
		t.Skipf("needs symlinks: %v", err)
	}
	ran := 0
	for _, block := range strings.Split(string(page), "```console\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for _, example := range strings.Split("\n"+block, "\n$ ")[1:] {
			command, want, _ := strings.Cut(example, "\n")
			ran++
			var out, stderr bytes.Buffer
			cmd := exec.Command("bash", "-c", command)
			cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &stderr
			cmd.Env = append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1 && strings.HasPrefix(out.String(), "DO NOT SHIP")) {
				t.Errorf("$ %s\n%v\n%s", command, err, &stderr)
				continue
			}
			if !matches(want, out.String()) {
				t.Errorf("$ %s\nprints:\n%s\nthe page says:\n%s", command, &out, want)
			}
		}
	}
	if ran < 12 {
		t.Errorf("the page has %d commands", ran)
	}
}

// matches holds what a command printed to the page: a line "..." is any lines, "..." within a line any characters.
func matches(want, got string) bool {
	var pattern strings.Builder
	pattern.WriteString("^")
	for _, line := range strings.SplitAfter(strings.TrimRight(want, "\n")+"\n", "\n") {
		if line == "...\n" {
			pattern.WriteString(`(.*\n)*?`)
			continue
		}
		pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, ".*"))
	}
	pattern.WriteString("$")
	return regexp.MustCompile(pattern.String()).MatchString(strings.TrimRight(got, "\n") + "\n")
}

// TestMatches: the comparison can fail.
func TestMatches(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want, got string
		ok        bool
	}{
		{"a\nb", "a\nb\n", true}, {"a", "a\nb", false}, {"a\nb", "a", false}, {"...", "x\ny", true}, {"a\n...\nd", "a\nb\nc\nd", true},
		{"a\n...\nd", "a\nd", true}, {"a\n...\nd", "a\nb", false}, {"x ... z", "x y z", true}, {"a.c", "abc", false}, {"", "", true},
	} {
		if got := matches(tt.want, tt.got); got != tt.ok {
			t.Errorf("matches(%q, %q) = %v, want %v", tt.want, tt.got, got, tt.ok)
		}
	}
}
