package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/inputerr"
)

// TestSchemeInInfo: an engine says under which scheme it reads the weights, in the command line's words. The bits of every
// scheme are held by TestCoreAIBits.
func TestSchemeInInfo(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"fp16", "int8lin", "int8hu", "int8hu-sym", "int4lin", "u4-minval"} {
		info := openContract(t, "opticks-2m", "coreai-fp16", scheme, 1).Info()
		if info.Scheme != scheme || !strings.HasSuffix(info.Subject, ","+scheme) {
			t.Errorf("the engine says %q, scheme %q; want %s in both", info.Subject, info.Scheme, scheme)
		}
	}
}

// TestRecipeInInfo: a recipe may be edited under its name, so its file and the sha256 of its text stand beside it.
func TestRecipeInInfo(t *testing.T) {
	t.Parallel()
	const rules = "rest: fp16\nrules:\n  - match: lm_head.weight\n    scheme: int8\n    block: 32\n    axis: 1\n    mode: symmetric\n"
	for text, want := range map[string]string{
		"name: head-eight\n" + rules: "head-eight (recipe own.yaml, sha256 ",
		rules:                        "recipe:own.yaml (sha256 ",
	} {
		file := filepath.Join(t.TempDir(), "own.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(text))
		want += hex.EncodeToString(sum[:])[:12] + ")"
		if info := openContract(t, "opticks-2m", "coreai-fp16", "recipe:"+file, 1).Info(); info.Scheme != want || !strings.HasSuffix(info.Subject, ",recipe:"+file) {
			t.Errorf("the engine says %q, scheme %q; want %q", info.Subject, info.Scheme, want)
		}
	}
}

// TestSchemeRefused: a scheme that is none is named before any weight is read.
func TestSchemeRefused(t *testing.T) {
	t.Parallel()
	for scheme, want := range map[string]string{
		"int9":               "scheme \"int9\": found an unknown name, want one of fp16, int8lin, int8hu, int8hu-sym, int4lin, u4-minval, or recipe:FILE",
		"recipe:nowhere.yml": "give the path of a recipe (YAML)",
	} {
		_, err := engine.Open(context.Background(), "cpu", engine.Spec{Scheme: scheme})
		var bad *inputerr.Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("Open with scheme %s = %v, want an input error with %q", scheme, err, want)
		}
	}
}
