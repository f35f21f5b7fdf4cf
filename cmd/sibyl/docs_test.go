package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// example is one command of a console block, with the output printed below it.
type example struct {
	line    int // in the file
	command string
	want    []string // "..." stands for any lines, and within a line for any characters
}

// examples finds the commands of the fenced console blocks: lines "$ ..." and what follows them.
func examples(markdown string) (out []example) {
	inBlock := false
	in := bufio.NewScanner(strings.NewReader(markdown))
	for n := 1; in.Scan(); n++ {
		line := in.Text()
		switch {
		case strings.HasPrefix(line, "```"):
			inBlock = !inBlock && strings.TrimSpace(line) == "```console"
		case !inBlock:
		case strings.HasPrefix(line, "$ "):
			if last := len(out) - 1; last >= 0 && len(out[last].want) > 0 && out[last].want[len(out[last].want)-1] == "" {
				out[last].want = out[last].want[:len(out[last].want)-1] // an empty line between commands is layout
			}
			out = append(out, example{line: n, command: line[2:]})
		case len(out) > 0:
			last := &out[len(out)-1]
			last.want = append(last.want, line)
		}
	}
	return out
}

// matchLines holds got against want, where a line "..." stands for any number of lines.
func matchLines(want, got []string) bool {
	switch {
	case len(want) == 0:
		return len(got) == 0
	case want[0] == "...":
		for skip := 0; skip <= len(got); skip++ {
			if matchLines(want[1:], got[skip:]) {
				return true
			}
		}
		return false
	case len(got) == 0:
		return false
	}
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(want[0]), `\.\.\.`, ".*") + "$"
	return regexp.MustCompile(pattern).MatchString(got[0]) && matchLines(want[1:], got[1:])
}

func TestMatchLines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want, got string
		ok        bool
	}{
		{"a\nb", "a\nb", true}, {"a", "a\nb", false}, {"a\nb", "a", false}, {"...", "x\ny", true}, {"a\n...\nd", "a\nb\nc\nd", true},
		{"a\n...\nd", "a\nd", true}, {"a\n...\nd", "a\nb", false}, {"took ... s", "took 1.2 s", true}, {"a.c", "abc", false},
	} {
		if got := matchLines(strings.Split(tt.want, "\n"), strings.Split(tt.got, "\n")); got != tt.ok {
			t.Errorf("matchLines(%q, %q) = %v, want %v", tt.want, tt.got, got, tt.ok)
		}
	}
}

// TestReadme runs every command of README.md that calls sibyl, in the order of the file and in one folder, and
// compares what it prints. A command that sibyl is not part of (git clone, make test) is not for this test.
func TestReadme(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(root, "testdata"), filepath.Join(dir, "testdata")); err != nil {
		t.Skipf("needs symlinks: %v", err)
	}
	ran := 0
	for _, ex := range examples(string(text)) {
		command := strings.ReplaceAll(ex.command, "go run ./cmd/sibyl", "sibyl")
		if !regexp.MustCompile(`(^|[ |&;])sibyl( |$)`).MatchString(command) {
			continue
		}
		ran++
		got := shell(t, dir, command)
		if !matchLines(ex.want, lines(got)) {
			t.Errorf("README.md:%d: $ %s\nprints:\n%s\nthe README says:\n%s", ex.line, ex.command, got, strings.Join(ex.want, "\n"))
		}
	}
	if ran == 0 {
		t.Error("README.md has no console block with a sibyl command")
	}
}

// checkDoc runs the commands of a page of docs, at least so many, in the order of the file and in one folder, in which the
// page's first YAML block is mine.yaml, and compares what they print.
func checkDoc(t *testing.T, page string, atLeast int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	dir, ran := t.TempDir(), 0
	if _, yaml, ok := strings.Cut(string(text), "```yaml\n"); ok {
		yaml, _, _ = strings.Cut(yaml, "```")
		if err := os.WriteFile(filepath.Join(dir, "mine.yaml"), []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, ex := range examples(string(text)) {
		ran++
		if got := shell(t, dir, ex.command); !matchLines(ex.want, lines(got)) {
			t.Errorf("docs/%s:%d: $ %s\nprints:\n%s\nthe file says:\n%s", page, ex.line, ex.command, got, strings.Join(ex.want, "\n"))
		}
	}
	if ran < atLeast {
		t.Errorf("docs/%s has %d commands, want at least %d", page, ran, atLeast)
	}
}

// TestHelpExamples runs every example of every verb's help, in one folder a verb: what can be pasted must work.
func TestHelpExamples(t *testing.T) {
	t.Parallel()
	var verbs []string
	for line := range strings.Lines(shell(t, t.TempDir(), "sibyl --help")) {
		if m := regexp.MustCompile(`^  ([a-z]+)   `).FindStringSubmatch(line); m != nil {
			verbs = append(verbs, m[1])
		}
	}
	if len(verbs) < 8 {
		t.Fatalf("sibyl --help lists only %q", verbs)
	}
	for _, verb := range verbs {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			dir, n := t.TempDir(), 0
			link(t, dir)
			_, examples, found := strings.Cut(shell(t, dir, "sibyl "+verb+" --help"), "\nExamples:\n")
			if !found {
				t.Fatalf("sibyl %s --help has no examples", verb)
			}
			for _, line := range lines(examples) {
				if !strings.HasPrefix(line, "    ") {
					if line == "" {
						continue
					}
					break
				}
				n++
				shell(t, dir, strings.TrimSpace(line))
			}
			if n == 0 {
				t.Errorf("sibyl %s --help: the examples are empty", verb)
			}
		})
	}
}

// link puts the bundle that examples name into dir.
func link(t *testing.T, dir string) {
	t.Helper()
	sample, err := filepath.Abs(filepath.Join("..", "..", "testdata", "bundles", "opticks-2m-int8hu-sym"))
	if err == nil {
		err = os.Symlink(sample, filepath.Join(dir, "opticks_int8hu"))
	}
	if err != nil {
		t.Skip("needs a symlink:", err)
	}
}

// shell runs a command line in dir and gives its standard output; it must exit 0.
func shell(t *testing.T, dir, command string) string {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash")
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("bash", "-o", "pipefail", "-c", command)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("$ %s\n%v\n%s", command, err, &stderr)
	}
	return stdout.String()
}

func lines(s string) []string {
	if s = strings.TrimSuffix(s, "\n"); s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// TestOneDoor: only main.go and app.go touch the process, so that everything else can be called by a test.
func TestOneDoor(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	forbidden := regexp.MustCompile(`os\.(Exit|Stdin|Stdout|Stderr|Args|Getenv|LookupEnv|Environ|TempDir)\b|"golang.org/x/term"|"os/signal"`)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "main.go" || name == "app.go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if at := forbidden.FindIndex(text); at != nil {
			line := 1 + bytes.Count(text[:at[0]], []byte("\n"))
			t.Errorf("%s:%d: %s belongs into app.go", name, line, text[at[0]:at[1]])
		}
	}
}
