package malformed

import (
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata again")

const testdata = "../../testdata"

// generated are the parts of testdata that this package owns whole.
var generated = []string{"malformed/safetensors", "malformed/config", "malformed/index", "malformed/checkpoint", "checkpoints"}

// TestTestdataIsUpToDate proves that generating again changes nothing: no file differs, none is missing, none is left over.
func TestTestdataIsUpToDate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if *update {
		dir = testdata
		for _, g := range generated {
			if err := os.RemoveAll(filepath.Join(dir, g)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range All() {
		if err := c.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	const manifest = "malformed/manifest.txt"
	if *update {
		if err := os.WriteFile(filepath.Join(testdata, manifest), []byte(Manifest()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(testdata, manifest)); err != nil || string(b) != Manifest() {
		t.Errorf("%s differs from what is generated (%v); run this test with -update", manifest, err)
	}
	want, got := map[string]string{}, map[string]string{}
	for _, g := range generated {
		read(t, dir, g, want)
		read(t, testdata, g, got)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("files (-generated +committed); run this test with -update\n%s", diff)
	}
	for name, content := range want {
		if got[name] != content {
			t.Errorf("%s differs from what is generated; run this test with -update", name)
		}
	}
}

// read enters the files of a folder; a symlink counts as its target's name.
func read(t *testing.T, dir, sub string, into map[string]string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			into[name] = "-> " + target
			return err
		}
		b, err := os.ReadFile(path)
		if runtime.GOOS == "windows" && len(b) < 100 && strings.HasPrefix(string(b), "../") {
			return nil // a checkout without symlinks
		}
		into[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCasesHaveNamesAndReasons(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range All() {
		if seen[c.Name] {
			t.Errorf("%s: two cases of that name", c.Name)
		}
		seen[c.Name] = true
		if c.Why == "" || strings.HasPrefix(c.Name, "malformed/") == (c.Want == "") {
			t.Errorf("%s: a case needs a reason, a malformed one an error, a good one none (why %q, want %q)", c.Name, c.Why, c.Want)
		}
	}
}
