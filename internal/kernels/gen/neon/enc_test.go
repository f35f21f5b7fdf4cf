package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestWords: another assembler reads every word of the committed file as the instruction its comment names.
func TestWords(t *testing.T) {
	mc, err := exec.LookPath("llvm-mc")
	if err != nil {
		t.Skip("needs llvm-mc (Debian's package llvm) to read the words back")
	}
	s, err := os.ReadFile("../../neon_arm64.s")
	if err != nil {
		t.Fatal(err)
	}
	var in bytes.Buffer
	var want []string
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`WORD \$0x([0-9a-f]{8}) // (.*)`).FindAllStringSubmatch(string(s), -1) {
		if seen[m[0]] {
			continue
		}
		seen[m[0]] = true
		want = append(want, m[2])
		for i := 6; i >= 0; i -= 2 {
			fmt.Fprintf(&in, "0x%s ", m[1][i:i+2])
		}
		in.WriteByte('\n')
	}
	if len(want) < 500 {
		t.Fatalf("found %d words: the file has another form", len(want))
	}
	cmd := exec.Command(mc, "--disassemble", "--triple=aarch64", "--mattr=+neon")
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range strings.Split(string(out), "\n") {
		if l = strings.TrimSpace(strings.ReplaceAll(l, "\t", " ")); l != "" && l[0] != '.' {
			got = append(got, l)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d words are read as %d instructions", len(want), len(got))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%q is read as %q", want[i], got[i])
		}
	}
}
