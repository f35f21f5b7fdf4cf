package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/internal/inputerr"
	"sibyl/quant"
)

// TestEverySchemeIsAPart: what `sibyl schemes` prints can stand behind an @.
func TestEverySchemeIsAPart(t *testing.T) {
	t.Parallel()
	for _, name := range append(quant.Names(), "recipe:r.yaml") {
		s, err := ParseSubject("m@"+name, func(string) bool { return false })
		if err != nil || s.Scheme != name || s.missing() != nil {
			t.Errorf("@%s: %+v, %v, %v", name, s, err, s.missing())
		}
	}
	for _, p := range partTable {
		if p.kind == partScheme && p.name != "recipe:" && !slices.Contains(quant.Names(), p.name) {
			t.Errorf("the part %s is no scheme", p.name)
		}
	}
}

// TestSchemesDoc: its tables are the program's.
func TestSchemesDoc(t *testing.T) {
	t.Parallel()
	checkDoc(t, "schemes.md", 5)
}

// TestHelpRecipe: the recipe in the help of schemes works as it is pasted.
func TestHelpRecipe(t *testing.T) {
	t.Parallel()
	_, text, _ := strings.Cut((&Schemes{}).Help(), "decides.\n\n")
	text, _, ok := strings.Cut(text, "\n\n")
	if !ok {
		t.Fatal("the help holds no recipe")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pasted.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := shell(t, dir, "sibyl quantize --scheme recipe:pasted.yaml --dry-run")
	if !strings.Contains(got, "scheme   careful-ends: a recipe (pasted.yaml, ") {
		t.Errorf("the recipe\n%s\ngives\n%s", text, got)
	}
}

// TestQuantizedCut: a q that is shorter than its shape is no checkpoint: the file is named.
func TestQuantizedCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shell(t, dir, "sibyl quantize --scheme int4lin -o q -q")
	file := filepath.Join(dir, "q", "model.safetensors")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data[:len(data)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, []string{"inspect", filepath.Join(dir, "q")})
	refuses(t, []string{"run", filepath.Join(dir, "q"), "--ids", "1"})
	renamed := bytes.Replace(data, []byte(`layers.0.mlp.up_proj.weight.scale"`), []byte(`layers.0.mlp.up_proj.weight.scalx"`), 1)
	if err := os.WriteFile(file, renamed, 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, []string{"inspect", filepath.Join(dir, "q")})
}

// TestCheckDisk: what cannot fit is refused before any work; what is not known refuses nothing.
func TestCheckDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	free, known := diskFree(dir)
	if !known || free <= 0 {
		t.Skip("the free space is not known on this system")
	}
	if err := checkDisk(filepath.Join(dir, "q"), 1); err != nil && free > 2*diskSlack {
		t.Errorf("one byte, %d are free: %v", free, err)
	}
	err := checkDisk(filepath.Join(dir, "q"), 1<<60)
	in, ok := err.(*inputerr.Error)
	if !ok || in.Field != "disk" || in.Want != "1.2 EB" || in.Do != "free space or choose another place" {
		t.Errorf("an exabyte: %v", err)
	}
	if err := checkDisk(filepath.Join(dir, "no", "q"), 1<<60); err != nil {
		t.Errorf("a folder that is not there: %v; that is for the writer to say", err)
	}
}

// TestQuantizeNotes: warnings first, then at most ten notes, and how many more there are.
func TestQuantizeNotes(t *testing.T) {
	t.Parallel()
	r := &quant.Report{Warnings: []quant.Note{{Tensor: "lm_head.weight", Text: "3 weights read as infinite"}}, LeftOut: 2}
	for range shownNotes + 2 {
		r.Notes = append(r.Notes, quant.Note{Tensor: "x", Text: "stays fp16"})
	}
	var b bytes.Buffer
	if err := writeQuantizeNotes(&b, r); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(b.String(), "\n")
	if len(got) != 3+shownNotes+2 || got[1] != "warning: lm_head.weight: 3 weights read as infinite" || got[2] != "note: x: stays fp16" ||
		got[len(got)-3] != "note: and 2 more tensors like these; --json lists them" || got[len(got)-2] != "note: 2 tensors that the text model does not use are left out" {
		t.Errorf("%q", got)
	}
}

// TestQuantizedNames: a name that says int8 or int4 is right about I8, I4 and U4.
func TestQuantizedNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, dtype string
		ok          bool
	}{
		{"m-int8", "I8", true}, {"m-int4", "I4", true}, {"m-int4", "U4", true}, {"m-int8", "I4", false}, {"m-int8", "BF16", false}, {"m-bf16", "I8", false},
	} {
		if got := nameClaims(tt.name, 1, map[string]int{tt.dtype: 2, "F16": 1}); (len(got) == 0) != tt.ok {
			t.Errorf("%s of %s: %q", tt.name, tt.dtype, got)
		}
	}
}
