package demo

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func TestFS(t *testing.T) {
	t.Parallel()
	if err := fstest.TestFS(FS, "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.txt"); err != nil {
		t.Fatal(err)
	}
}

// Not parallel: AllocsPerRun counts the whole process.
func TestBytesAreNotCopied(t *testing.T) {
	f, err := FS.Open("model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	b := f.(interface{ Bytes() []byte }).Bytes()
	if n := testing.AllocsPerRun(10, func() { b = f.(interface{ Bytes() []byte }).Bytes() }); n != 0 {
		t.Errorf("Bytes allocates %v times, want 0", n)
	}
	read, err := fs.ReadFile(FS, "model.safetensors")
	if err != nil || string(read) != string(b) {
		t.Errorf("Bytes differ from what Read gives (%v)", err)
	}
}

func TestAboutSaysWhatItIsAndIsNot(t *testing.T) {
	t.Parallel()
	for _, want := range []string{"CC0", "nothing to do with the\nQwen team's weights", "numerics demo, not as information"} {
		if !strings.Contains(About, want) {
			t.Errorf("About does not say %q", want)
		}
	}
}
