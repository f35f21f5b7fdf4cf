// Package malformed is the generator of testdata/malformed and testdata/checkpoints: every bad input that sibyl
// promises to refuse as a file or a small folder, with the reason and the exact error, and the good inputs of
// unusual form beside them. Tests of other packages run its tables; the program itself never imports it.
//
// `go test ./internal/malformed -update` writes the files again; without the flag the test proves that doing so
// would change nothing.
package malformed

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Case is one input.
type Case struct {
	// Name is its path below testdata, with slashes: a file, or a folder if Files has more than one or Dir is set.
	Name string
	Why  string // the reason it is here
	// Want is the whole error text of opening it, with PATH for the path it was opened by; empty if it must open.
	Want string
	// Files are the contents by path below Name; a single file has the key "".
	Files map[string][]byte
	// Links are symlinks by path below Name.
	Links map[string]string
}

// All lists every case, in the order of their names.
func All() []Case {
	all := slices.Concat(headers(), configs(), indexes(), folders(), good())
	slices.SortFunc(all, func(a, b Case) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}

// Manifest lists the cases with reasons and errors: the texts a person will read, in one reviewable file.
func Manifest() string {
	var b strings.Builder
	b.WriteString("Made by: go test ./internal/malformed -update. PATH stands for the path that is opened.\n")
	for _, c := range All() {
		fmt.Fprintf(&b, "\n%s\n  why:   %s\n", c.Name, c.Why)
		if c.Want == "" {
			b.WriteString("  opens\n")
		} else {
			fmt.Fprintf(&b, "  error: %s\n", c.Want)
		}
	}
	return b.String()
}

// Write makes the case below dir. Symlinks are left out where the platform has none.
func (c Case) Write(dir string) error {
	top := filepath.Join(dir, filepath.FromSlash(c.Name))
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		path := filepath.Join(top, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, c.Files[name], 0o644); err != nil {
			return err
		}
	}
	for name, target := range c.Links {
		if err := os.Symlink(target, filepath.Join(top, filepath.FromSlash(name))); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}
