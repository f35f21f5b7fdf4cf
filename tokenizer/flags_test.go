package tokenizer

import "testing"

// TestGoldenFlags holds the flags of added tokens, matching after NFC, and decoding of odd byte sequences to what the Rust
// library answers (testdata/tokenizer/gen_flags.py).
func TestGoldenFlags(t *testing.T) {
	t.Parallel()
	tok, err := Load(testdata + "/flags_tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	checkGolden(t, tok, readGolden(t, "flags.json"), 455, 200, 0, "")
}
