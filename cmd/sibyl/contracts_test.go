package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/precision"
)

// TestEveryContractIsAPart: what `sibyl contracts` prints can stand behind an @.
func TestEveryContractIsAPart(t *testing.T) {
	t.Parallel()
	for _, name := range precision.Names() {
		s, err := ParseSubject("m@"+name, func(string) bool { return false })
		if err != nil || s.Contract != name || s.missing() != nil {
			t.Errorf("@%s: %+v, %v, %v", name, s, err, s.missing())
		}
		if !slices.Contains(partNames(), name) {
			t.Errorf("%s is not among the names that errors list", name)
		}
	}
}

// TestContractsDoc runs the commands of docs/contracts.md: its table is the program's.
func TestContractsDoc(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "contracts.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir, ran := t.TempDir(), 0
	if _, yaml, ok := strings.Cut(string(text), "```yaml\n"); ok { // the first YAML block is mine.yaml
		yaml, _, _ = strings.Cut(yaml, "```")
		if err := os.WriteFile(filepath.Join(dir, "mine.yaml"), []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, ex := range examples(string(text)) {
		ran++
		if got := shell(t, dir, ex.command); !matchLines(ex.want, lines(got)) {
			t.Errorf("docs/contracts.md:%d: $ %s\nprints:\n%s\nthe file says:\n%s", ex.line, ex.command, got, strings.Join(ex.want, "\n"))
		}
	}
	if ran < 3 {
		t.Errorf("docs/contracts.md has %d commands, want at least 3", ran)
	}
}
