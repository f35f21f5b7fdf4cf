package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets scripts call this binary as "sibyl".
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sibyl": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/script/VERB_case.txtar, each in a folder of its own. $GOLDENS, $MALFORMED,
// $CHECKPOINTS and $BUNDLES are folders of testdata.
func TestScripts(t *testing.T) {
	t.Parallel()
	testdata, err := filepath.Abs(filepath.Join("..", "..", "testdata"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"goldens", "malformed", "checkpoints", "bundles"} {
				e.Setenv(strings.ToUpper(name), filepath.Join(testdata, name))
			}
			cache := os.Getenv("SIBYL_CACHE") // CI's: the kernels are compiled once
			if cache == "" {
				cache = filepath.Join(e.WorkDir, "cache")
			}
			e.Setenv("SIBYL_CACHE", cache)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits, "spoil": spoil, "swap": swap},
	})
}
