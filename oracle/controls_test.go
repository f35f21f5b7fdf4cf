package oracle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestControls: what is run for each pair of sides, and what is not run twice.
func TestControls(t *testing.T) {
	t.Parallel()
	ref := Side{Engine: "cpu", Model: "m", Contract: "hf-fp32", Mode: "exact"}
	with := func(contract, scheme, mode string) Side {
		return Side{Engine: "cpu", Model: "m", Contract: contract, Scheme: scheme, Mode: mode}
	}
	for _, tt := range []struct {
		name, why string
		ref, test Side
		want      []string // label, spec, "expected", "=REF" or "=TEST"
	}{
		{"both", "another contract and other weights: all three kinds, E in every realisation, the exact one TEST itself",
			ref, with("coreai-fp16", "int8hu-sym", ""), []string{
				"Q hf-fp32, int8hu-sym | hf-fp32 int8hu-sym exact", "C coreai-fp16 | coreai-fp16  exact",
				"E coreai-fp16, int8hu-sym | coreai-fp16 int8hu-sym exact | expected | =TEST",
				"E coreai-fp16, int8hu-sym, fast | coreai-fp16 int8hu-sym fast | expected",
				"E coreai-eager, int8hu-sym | coreai-eager int8hu-sym exact | expected",
				"E coreai-eager-sdpa16, int8hu-sym | coreai-eager-sdpa16 int8hu-sym exact | expected",
				"E coreai-eager-s32, int8hu-sym | coreai-eager-s32 int8hu-sym exact | expected",
				"E coreai-eager-s32o32, int8hu-sym | coreai-eager-s32o32 int8hu-sym exact | expected"}},
		{"same-weights", "C in every realisation is the expected conversion, and there is no other", ref, with("hf-bf16", "stored", "fast"), []string{
			"C hf-bf16 | hf-bf16  exact | expected", "C hf-bf16, fast | hf-bf16  fast | expected | =TEST", "C hf-bf16-sdpa | hf-bf16-sdpa  exact | expected"}},
		{"same-contract", "Q in every realisation is", ref, with("", "int4lin", ""), []string{
			"Q hf-fp32, int4lin | hf-fp32 int4lin exact | expected | =TEST", "Q hf-fp32, int4lin, fast | hf-fp32 int4lin fast | expected"}},
		{"fast-against-exact", "nothing but the order of the sums: the exact one is REF", ref, with("hf-fp32", "", "fast"), []string{
			"C hf-fp32 | hf-fp32  exact | expected | =REF", "C hf-fp32, fast | hf-fp32  fast | expected | =TEST"}},
		{"fp64-reference", "float64 stands for hf-fp32, and is no CPU engine's view", Side{Engine: "fp64", Model: "m", Contract: "float64"}, with("hf-fp32", "", "fast"), []string{
			"C hf-fp32 | hf-fp32  exact | expected", "C hf-fp32, fast | hf-fp32  fast | expected | =TEST"}},
		{"another-engine", "a GPU of the same contract is not the CPU engine: nothing is TEST", ref, Side{Engine: "coreai", Model: "m", Contract: "coreai-cpu", Scheme: "int8lin"}, []string{
			"Q hf-fp32, int8lin | hf-fp32 int8lin exact", "C coreai-cpu | coreai-cpu  ", "E coreai-cpu, int8lin | coreai-cpu int8lin  | expected"}},
		{"another-runtime", "its own rounding is tried first, then what the graph says", ref, Side{Engine: "coreai", Model: "m", Contract: "coreai-cpu", Scheme: "int8lin", Also: "coreai-fp16"}, []string{
			"Q hf-fp32, int8lin | hf-fp32 int8lin exact", "C coreai-cpu | coreai-cpu  ", "E coreai-cpu, int8lin | coreai-cpu int8lin  | expected",
			"E coreai-fp16, int8lin | coreai-fp16 int8lin exact | expected"}},
		{"another-model", "weights of another file are other weights", ref, Side{Engine: "cpu", Model: "n", Contract: "hf-fp32"}, []string{
			"Q hf-fp32 | hf-fp32  exact | expected | =TEST", "Q hf-fp32, fast | hf-fp32  fast | expected"}},
		{"named-variant", "who names a variant means just that", ref, with("coreai-eager-s32", "", ""), []string{
			"C coreai-eager-s32 | coreai-eager-s32  exact | expected | =TEST", "C coreai-eager-s32, fast | coreai-eager-s32  fast | expected"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			specs, err := Controls(tt.ref, tt.test)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			noisy := 0
			for _, s := range specs {
				if s.Noisy { // of the kind and the contract of the first expected one, in a mode of its own, behind all others
					noisy++
					like := specs[slices.IndexFunc(specs, func(c ControlSpec) bool { return c.Expected })]
					mode := fmt.Sprintf("noise:%d", noisy)
					if like.Spec.Mode = mode; s.Spec != like.Spec || s.Kind != like.Kind || !s.Expected || s.Same != "" || s.Label != like.Label+", "+mode {
						t.Errorf("noisy control %d is %+v", noisy, s)
					}
					continue
				}
				if noisy > 0 {
					t.Errorf("%s stands behind a noisy one", s.Label)
				}
				line := fmt.Sprintf("%s | %s %s %s", s.Label, s.Spec.Contract, s.Spec.Scheme, s.Spec.Mode)
				if s.Expected {
					line += " | expected"
				}
				if s.Same != "" {
					line += " | =" + string(s.Same)
				}
				if want := tt.test.Model; s.Kind != ControlC && s.Spec.Model != want || s.Kind == ControlC && s.Spec.Model != tt.ref.Model {
					t.Errorf("%s reads the weights of %q", s.Label, s.Spec.Model)
				}
				got = append(got, line)
			}
			if want := map[bool]int{true: 8}[slices.ContainsFunc(specs, func(c ControlSpec) bool { return c.Spec.Mode == "fast" })]; noisy != want {
				t.Errorf("%d noisy controls, want %d: none of a contract that is an arithmetic", noisy, want)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("Controls gives\n%s\nwant\n%s\nwhy: %s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"), tt.why)
			}
		})
	}
	if _, err := Controls(ref, Side{Engine: "coreai", Contract: "unknown"}); err == nil {
		t.Error("a contract that nobody knows has no controls")
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	all, err := Controls(Side{}, Side{Engine: "cpu", Contract: "coreai-cpu", Scheme: "int8lin"})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"all": "QCE", "": "QCE", "none": "", "Q": "Q", "c,q": "QC", "E": "E"} {
		got := ""
		kept, err := Kinds(all, text)
		for _, c := range kept {
			if !c.Noisy {
				got += string(c.Kind)
			}
		}
		if got != want || err != nil {
			t.Errorf("Kinds(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
	same, err := Controls(Side{}, Side{Engine: "cpu", Contract: "coreai-cpu"})
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := Kinds(same, "E"); err != nil || len(kept) != 1 {
		t.Errorf("E of equal weights = %v, %v; want C, which stands for it", kept, err)
	}
	if _, err := Kinds(all, "Q,X"); err == nil {
		t.Error("X is no kind")
	}
}
