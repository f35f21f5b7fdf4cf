package coreai

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/engine"
)

// needPython skips where there is no Python at all.
func needPython(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath(python())
	if err != nil {
		t.Skipf("needs a Python: %v", err)
	}
	return path
}

// standInPython is an interpreter that sees no installed package, and these files instead.
func standInPython(t *testing.T, files map[string]string) {
	t.Helper()
	dir, real := t.TempDir(), needPython(t)
	for name, text := range files {
		path := filepath.Join(dir, "lib", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("#!/bin/sh\nPYTHONPATH=%s exec %s -S \"$@\"\n", filepath.Join(dir, "lib"), real)
	path := filepath.Join(dir, "python")
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv(pythonVariable, path)
}

// aPackage is a coreai-core of some version that loads and runs nothing.
func aPackage(version string) map[string]string {
	return map[string]string{
		"coreai_core-" + version + ".dist-info/METADATA": "Metadata-Version: 2.1\nName: coreai-core\nVersion: " + version + "\n",
		"numpy.py":            "def dtype(x): return x\n",
		"ml_dtypes.py":        "bfloat16 = None\n",
		"coreai/authoring.py": "AIModelAsset = None\n",
		"coreai/runtime.py":   "NDArray = None\n",
	}
}

// TestPython: what can be wrong with the interpreter, each with the one command that helps.
func TestPython(t *testing.T) {
	broken := aPackage(RuntimeVersion)
	broken["coreai/runtime.py"] = "raise ImportError('libFoundation.so: cannot open shared object file')\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		code  Code
		words []string
	}{
		{"without-coreai-core", nil, MissingRuntime, []string{"the package coreai-core is not installed for ", "-m pip install coreai-core==1.0.0b3"}},
		{"another-version", aPackage("1.0.0b2"), WrongVersion, []string{"found coreai-core 1.0.0b2, want 1.0.0b3", "-m pip install coreai-core==1.0.0b3", "SIBYL_COREAI_VERSION=1.0.0b2"}},
		{"that-does-not-load", broken, MissingRuntime, []string{"coreai-core does not load", "libFoundation.so: cannot open shared object file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			standInPython(t, c.files)
			_, err := Driver{}.Open(t.Context(), engine.Spec{Model: samplePath("opticks-2m-int8hu-sym")})
			f := failure(err)
			if f == nil || f.Code != c.code || !errors.Is(err, engine.ErrUnavailable) {
				t.Fatalf("%v; want code %s, unavailable", err, c.code)
			}
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v\ndoes not say %q", err, w)
				}
			}
			r, err := Doctor(t.Context(), "")
			if err != nil || r.Well() || len(r.Checks) != 1 || r.Checks[0].Do == "" && c.code != MissingRuntime {
				t.Errorf("the doctor finds %+v, %v", r, err)
			}
		})
	}
	t.Run("another-version-accepted", func(t *testing.T) {
		standInPython(t, aPackage("1.0.0b2"))
		t.Setenv(versionVariable, "1.0.0b2")
		r, err := Doctor(t.Context(), "")
		if err != nil || !r.Well() || !strings.Contains(r.Runtime, "1.0.0b2") {
			t.Errorf("the doctor finds %+v, %v", r, err)
		}
	})
	t.Run("no-python", func(t *testing.T) {
		t.Setenv(pythonVariable, filepath.Join(t.TempDir(), "python"))
		_, err := Driver{}.Open(t.Context(), engine.Spec{Model: samplePath("opticks-2m-int8hu-sym")})
		if f := failure(err); f == nil || f.Code != NoWorker || !errors.Is(err, engine.ErrUnavailable) || !strings.Contains(err.Error(), "install Python 3.11 to 3.14") {
			t.Errorf("%v; want no_worker", err)
		}
	})
	t.Run("time", func(t *testing.T) {
		t.Setenv(timeVariable, "soon")
		_, err := Driver{}.Open(t.Context(), engine.Spec{Model: samplePath("opticks-2m-int8hu-sym")})
		if want := `SIBYL_COREAI_TIMEOUT: found "soon", want a time such as 90s or 1h`; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	})
}
