package model

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/internal/inputerr"
)

// TestSchemeBits holds every scheme, read lazily from the stored weights, to the bits of the conversion code
// (zoo) and of the exported graph, under their contracts.
func TestSchemeBits(t *testing.T) {
	t.Parallel()
	contracts := map[string]string{"zoo": "coreai-eager", "graph": "coreai-fp16"}
	variants := map[string]string{"state32": "coreai-eager-s32", "state_out32": "coreai-eager-s32o32", "sdpa_ops16": "coreai-eager-sdpa16"}
	for _, set := range append(slices.Clone(goldens.Tiny), "opticks-2m") {
		dig := loadDigests(t, set)
		for _, file := range slices.Sorted(maps.Keys(contracts)) {
			for _, scheme := range []string{"int8lin", "int8hu", "int8hu-sym", "int4lin"} {
				for _, variant := range append([]string{""}, slices.Sorted(maps.Keys(variants))...) {
					prefix := strings.ReplaceAll(scheme, "-", "_") + "."
					contract := contracts[file]
					if variant != "" {
						prefix, contract = prefix+variant+".", variants[variant]
					}
					if !slices.ContainsFunc(slices.Collect(maps.Keys(dig.Tensors[file])), func(k string) bool { return strings.HasPrefix(k, prefix+"p") }) {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/%s/%s", set, file, scheme, contract), func(t *testing.T) {
						t.Parallel()
						checkSchemeBits(t, set, file, prefix, engine.Spec{Contract: contract, Scheme: scheme}, dig)
					})
				}
			}
		}
	}
}

// knownSchemeBits are cases whose bits are not the golden's. One that begins to agree fails too, so that it is taken out.
var knownSchemeBits = map[string]string{
	// From token 2 on nothing agrees: one rounding of an early layer falls to the other side. The same contract with fp16
	// weights, and this scheme under the other contracts, give the golden's bits.
	"tiny-moe int8hu_sym.sdpa_ops16.p17.logits": "one rounding on the other side at token 2",
}

func checkSchemeBits(t *testing.T, set, file, prefix string, spec engine.Spec, dig *digestSet) {
	if set != "opticks-2m" {
		spec.Model = filepath.Join(goldens.Root(), set)
	}
	opened, err := engine.Open(context.Background(), "cpu", spec)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if info := opened.Info(); info.Scheme != spec.Scheme || !strings.HasSuffix(info.Subject, ","+spec.Scheme) {
		t.Errorf("the engine says %q, scheme %q; want %s in both", info.Subject, info.Scheme, spec.Scheme)
	}
	e, compared := opened.(*Engine), 0
	for prompt, ids := range dig.Prompts {
		if testing.Short() && len(ids) > 20 {
			continue
		}
		for name, x := range zooTensors(e.d, run1(t, e, engine.Prompt{IDs: ids}, engine.Path{})) {
			want, ok := dig.Tensors[file][prefix+prompt+"."+name]
			if !ok {
				continue
			}
			compared++
			key := set + " " + prefix + prompt + "." + name
			have := sum(x, want.DType)
			if known, ok := knownSchemeBits[key]; ok {
				if have == want.SHA256 {
					t.Errorf("%s agrees now: take it out of knownSchemeBits (%s)", key, known)
				}
				continue
			}
			if have != want.SHA256 {
				t.Errorf("%s %s%s.%s: other bits (sha256 %.12s, want %.12s; shape %v)", set, prefix, prompt, name, have, want.SHA256, want.Shape)
			}
		}
		if want, ok := dig.Tensors[file][prefix+prompt+".greedy.ids"]; ok {
			compareGreedy(t, e, ids, want.IDs, prefix+prompt)
		}
	}
	if compared == 0 {
		t.Error("nothing was compared")
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
