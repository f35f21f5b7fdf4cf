package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// exits CODE ARG... runs sibyl with the arguments and demands that exit code; its output is then in the files
// "out" and "err". An argument "<FILE" is standard input.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE ARG... [<FILE]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("sibyl")
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.Getenv("WORK"), &stdout, &stderr
	cmd.Env = []string{}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "SystemRoot", "TESTSCRIPT_COMMAND", "HF_HOME", "HF_HUB_CACHE",
		"SIBYL_THREADS", "SIBYL_MEMORY_LIMIT", "SIBYL_JSON", "SIBYL_SEED", "SIBYL_CPU", "SIBYL_COREAI_PYTHON",
		"SIBYL_CACHE", "SIBYL_CLANG", "SIBYL_METAL_CPU"} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	for _, a := range args[1:] {
		if name, ok := strings.CutPrefix(a, "<"); ok {
			cmd.Stdin = strings.NewReader(ts.ReadFile(name))
			continue
		}
		cmd.Args = append(cmd.Args, a)
	}
	err = cmd.Run()
	ts.Check(os.WriteFile(ts.MkAbs("out"), stdout.Bytes(), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("err"), stderr.Bytes(), 0o644))
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("sibyl %q: %v", args[1:], err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("sibyl %q: exit code %d, want %d\nstdout: %s\nstderr: %s", args[1:], got, want, &stdout, &stderr)
	}
}

// spoil FILE flips a bit of the file's last byte; the name may be a pattern of several.
func spoil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: spoil FILE")
	}
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	if err != nil || len(files) == 0 {
		ts.Fatalf("%s: no such file (%v)", args[0], err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		ts.Check(err)
		data[len(data)-1] ^= 1
		ts.Check(os.WriteFile(file, data, 0o644))
	}
}

// swap FILE OLD NEW replaces the first OLD in the file, which must be there.
func swap(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: swap FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s holds no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o644))
}
