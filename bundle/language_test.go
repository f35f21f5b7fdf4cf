package bundle

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"sibyl/internal/inputerr"
)

const goodMetadata = `{"metadata_version": "0.2", "kind": "llm", "name": "x-int8", "assets": {"main": "x.aimodel"},
 "language": {"tokenizer": "org/x", "vocab_size": 640, "max_context_length": 4096, "function_map": {"main": ["main"]},
  "states": {"keyCache": "kv_cache", "convState": "fixed"}, "prefill_chunk_size": 64, "overrides": {}},
 "source": {"model_definition": "torch", "hf_model_id": "org/x", "hf_revision": null}, "compression": {"scheme": "int8"},
 "compilation": {"date": "2026-11-22", "targets": ["h16c"]}, "user_data": {"a": "b"}, "build_info": [1]}`

func TestParseLanguage(t *testing.T) {
	t.Parallel()
	got, err := ParseLanguage("m", []byte(goodMetadata))
	if err != nil {
		t.Fatal(err)
	}
	want := &Language{Version: "0.2", Kind: "llm", Name: "x-int8", Main: "x.aimodel", Tokenizer: "org/x", VocabSize: 640, MaxContext: 4096, EmbeddedTokenizer: true,
		Functions: map[string][]string{"main": {"main"}}, States: map[string]string{"keyCache": "kv_cache", "convState": "fixed"}, PrefillChunk: 64,
		Definition: "torch", ModelID: "org/x", Compression: "int8", CompiledAt: "2026-11-22", Targets: []string{"h16c"}, UserData: map[string]string{"a": "b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLanguageErrors holds the loader's cases by name, with the whole text.
func TestLanguageErrors(t *testing.T) {
	t.Parallel()
	const again = "; correct the file, or export the bundle again"
	for _, tt := range []struct {
		name, from, to string
		kind           LoaderError
		want           string
	}{
		{"not-json", goodMetadata, "<html>", MalformedMetadata, "byte 0: found '<', want an object: Apple's loader calls this malformedMetadata; download the file again"},
		{"trailing", goodMetadata, goodMetadata + "x", MalformedMetadata, "byte 543: found 'x', want the end of the text: Apple's loader calls this malformedMetadata; download the file again"},
		{"duplicate", `"kind": "llm",`, `"kind": "llm", "kind": "llm",`, MalformedMetadata, `byte 43: found the key "kind" a second time, want each key once: Apple's loader calls this malformedMetadata; download the file again`},
		{"other-version", `"0.2"`, `"0.3"`, UnsupportedVersion, `metadata_version: found "0.3", want "0.2": Apple's loader calls this unsupportedVersion; export the bundle again with current tools`},
		{"version-number", `"0.2"`, `0.2`, MalformedMetadata, "metadata_version: found a number, want a string: Apple's loader calls this malformedMetadata" + again},
		{"no-version", `"metadata_version": "0.2", `, "", MissingField, "metadata_version: found nothing, want a string: Apple's loader calls this missingField" + again},
		{"no-kind", `"kind": "llm", `, "", MissingField, "kind: found nothing, want a string: Apple's loader calls this missingField" + again},
		{"null-name", `"x-int8"`, "null", MissingField, "name: found nothing, want a string: Apple's loader calls this missingField" + again},
		{"vlm", `"llm"`, `"vlm"`, KindMismatch, `kind: found "vlm", want "llm": Apple's loader calls this kindMismatch; sibyl runs text models only`},
		{"diffusion-without-language", `"llm"`, `"diffusion"`, KindMismatch, `kind: found "diffusion", want "llm": Apple's loader calls this kindMismatch; sibyl runs text models only`},
		{"no-main", `"main": "x.aimodel"`, `"draft": "x.aimodel"`, MissingField, "assets.main: found nothing, want a value: Apple's loader calls this missingField" + again},
		{"no-vocab", `"vocab_size": 640, `, "", MissingField, "language.vocab_size: found nothing, want a value: Apple's loader calls this missingField" + again},
		{"no-tokenizer", `"tokenizer": "org/x", `, "", MissingField, "language.tokenizer: found nothing, want a value: Apple's loader calls this missingField" + again},
		{"no-context", `"max_context_length": 4096, `, "", MissingField, "language.max_context_length: found nothing, want a value: Apple's loader calls this missingField" + again},
		{"vocab-text", `640`, `"640"`, MalformedMetadata, "language.vocab_size: found a string, want a number: Apple's loader calls this malformedMetadata" + again},
		{"vocab-huge", `640`, `4194305`, MalformedMetadata, "language.vocab_size: found 4194305, want at most 4194304: Apple's loader calls this malformedMetadata" + again},
		{"context-zero", `4096`, `0`, MalformedMetadata, "language.max_context_length: found 0, want a whole number of 1 to 1073741824: Apple's loader calls this malformedMetadata" + again},
		{"state-kind", `"fixed"`, `"ring"`, MalformedMetadata, `language.states."convState": found "ring", want kv_cache, sliding_cache or fixed: Apple's loader calls this malformedMetadata` + again},
		{"functions-list", `{"main": ["main"]}`, `["main"]`, MalformedMetadata, "language.function_map: found a list, want an object: Apple's loader calls this malformedMetadata" + again},
		{"outside", `"x.aimodel"`, `"../x.aimodel"`, MalformedMetadata, `assets.main: found "../x.aimodel", want the name of an .aimodel inside the folder: Apple's loader calls this malformedMetadata; do not use this bundle: what it runs must lie in it`},
		{"absolute", `"x.aimodel"`, `"/x.aimodel"`, MalformedMetadata, `assets.main: found "/x.aimodel", want the name of an .aimodel inside the folder: Apple's loader calls this malformedMetadata; do not use this bundle: what it runs must lie in it`},
		{"asset-metadata", goodMetadata, `{"assetVersion": "2.0"}`, PointedAtModelAsset, "found the metadata of an .aimodel, want that of a LanguageBundle: Apple's loader calls this pointedAtModelAsset; give the folder that holds the .aimodel, or an .aimodel with its main.mlirb"},
	} {
		if !strings.Contains(goodMetadata, tt.from) {
			t.Fatalf("%s: the good text does not hold %q", tt.name, tt.from)
		}
		_, err := ParseLanguage("m", []byte(strings.Replace(goodMetadata, tt.from, tt.to, 1)))
		var kind LoaderError
		if !errors.As(err, &kind) || kind != tt.kind {
			t.Errorf("%s: the cause is %q (%v), want %q", tt.name, kind, err, tt.kind)
			continue
		}
		if got, want := err.Error(), "m: "+tt.want; got != want {
			t.Errorf("%s\n got %s\nwant %s", tt.name, got, want)
		}
	}
}

// FuzzLanguage: no panic, and what is accepted names an asset inside the folder.
func FuzzLanguage(f *testing.F) {
	f.Add([]byte(goodMetadata))
	for _, name := range []string{"opticks-2m-int8hu-sym", "opticks-2m-apple-q35"} {
		text, err := os.ReadFile(filepath.Join(bundles, name, metadataFile))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"metadata_version":"0.2","kind":"llm","name":"","language":{"function_map":{"a":[1]}}}`))
	f.Add([]byte(`{"assetVersion":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLanguage("m", data)
		var in *inputerr.Error
		switch {
		case err == nil && (!filepath.IsLocal(l.Main) || l.VocabSize < 1 || l.VocabSize > maxVocab || l.MaxContext < 1):
			t.Errorf("accepted: %+v", l)
		case err != nil && (!errors.As(err, &in) || in.File != "m"):
			t.Errorf("%T does not name the file: %v", err, err)
		}
	})
}

// lfsPointer stands where Git LFS did not replace it.
const lfsPointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"

// sums are hashes in messages.
var sums = regexp.MustCompile(`found [0-9a-f]{8,64}, want [0-9a-f]{8,64}|found SUM, want SUM`)

// sampleFiles are the files of a small LanguageBundle around a sample's asset.
func sampleFiles(t *testing.T) map[string]string {
	t.Helper()
	asset := sampleAsset(t, "tiny-dense-tied-int4lin")
	files := map[string]string{metadataFile: goodMetadata}
	for _, name := range []string{mainFile, hashFile, metadataFile} {
		data, err := os.ReadFile(filepath.Join(asset, name))
		if err != nil {
			t.Fatal(err)
		}
		files["x.aimodel/"+name] = string(data)
	}
	return files
}

func mapFS(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range files {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

// TestOpenBundleErrors: what is wrong with a bundle's files, with the whole text of the error.
func TestOpenBundleErrors(t *testing.T) {
	t.Parallel()
	const at = "b/x.aimodel/"
	const notComplete = "; the .aimodel is not complete: download it again"
	const damaged = "; the download is damaged or not complete: download it again, or look at it as it is with --no-verify"
	const lfs = "found a Git LFS pointer, want the file itself; run `git lfs pull` in the folder it came from, or download the file again"
	good := sampleFiles(t)
	flipped := []byte(good["x.aimodel/"+mainFile])
	flipped[len(flipped)-1] ^= 1
	for _, tt := range []struct {
		name string
		edit map[string]string // "-" removes
		want string
	}{
		{"no-metadata", map[string]string{metadataFile: "-"}, "b/metadata.json: found no such file, want a LanguageBundle's metadata: Apple's loader calls this missingMetadata; the bundle is not complete: download it again"},
		{"lfs-metadata", map[string]string{metadataFile: lfsPointer}, "b/metadata.json: " + lfs},
		{"no-asset", map[string]string{"x.aimodel/" + mainFile: "-", "x.aimodel/" + hashFile: "-", "x.aimodel/" + metadataFile: "-"},
			"b/x.aimodel: found no such folder, and no x.aimodelc, want what assets.main of metadata.json names: Apple's loader calls this missingAsset; the bundle is not complete: download it again"},
		{"no-asset-metadata", map[string]string{"x.aimodel/" + metadataFile: "-"}, at + "metadata.json: found no such file, want the asset's metadata" + notComplete},
		{"asset-version", map[string]string{"x.aimodel/" + metadataFile: `{"assetVersion": "3.0"}`}, at + `metadata.json: assetVersion: found "3.0", want "2.0"; sibyl knows this version only: export the model with current tools`},
		{"no-main", map[string]string{"x.aimodel/" + mainFile: "-"}, at + "main.mlirb: found no such file, want the model's program and weights" + notComplete},
		{"lfs-main", map[string]string{"x.aimodel/" + mainFile: lfsPointer}, at + "main.mlirb: " + lfs},
		{"no-hash", map[string]string{"x.aimodel/" + hashFile: "-"}, at + "main.hash: found no such file, want the sha256 of main.mlirb" + damaged},
		{"short-hash", map[string]string{"x.aimodel/" + hashFile: "abc"}, at + "main.hash: found 3 bytes, want 32, the sha256 of main.mlirb" + damaged},
		{"flipped-bit", map[string]string{"x.aimodel/" + mainFile: string(flipped)},
			at + "main.mlirb: sha256: found SUM, want SUM, which main.hash says" + damaged},
		{"truncated", map[string]string{"x.aimodel/" + mainFile: good["x.aimodel/"+mainFile][:4096]},
			at + "main.mlirb: sha256: found SUM, want SUM, which main.hash says" + damaged},
	} {
		files := maps.Clone(good)
		for name, text := range tt.edit {
			if files[name] = text; text == "-" {
				delete(files, name)
			}
		}
		b, err := openBundleIn(context.Background(), &folder{fsys: mapFS(files), label: "b"}, "b", BundleOptions{})
		if err == nil {
			_ = b.Close()
			t.Errorf("%s opens", tt.name)
			continue
		}
		if got := filepath.ToSlash(err.Error()); sums.ReplaceAllString(got, "found SUM, want SUM") != sums.ReplaceAllString(tt.want, "found SUM, want SUM") {
			t.Errorf("%s\n got %s\nwant %s", tt.name, got, tt.want)
		}
		var in *inputerr.Error
		if !errors.As(err, &in) {
			t.Errorf("%s: %T is no *inputerr.Error", tt.name, err)
		}
	}
}

// TestNoVerify: what does not match main.hash opens on request, with a warning that says so.
func TestNoVerify(t *testing.T) {
	t.Parallel()
	for name, hash := range map[string]string{"wrong": strings.Repeat("x", 32), "missing": ""} {
		files := sampleFiles(t)
		if files["x.aimodel/"+hashFile] = hash; hash == "" {
			delete(files, "x.aimodel/"+hashFile)
		}
		b, err := openBundleIn(context.Background(), &folder{fsys: mapFS(files), label: "b"}, "b", BundleOptions{NoVerify: true})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if w := b.Warnings(); len(w) != 1 || !strings.Contains(w[0], "main.hash") || !strings.HasSuffix(w[0], "; used as it is (--no-verify)") {
			t.Errorf("%s: warnings %q, want one about main.hash", name, w)
		}
		if p, err := b.Profile(); err != nil || p.Name != "zoo-s1" {
			t.Errorf("%s: profile %v (%v)", name, p, err)
		}
		_ = b.Close()
	}
}

// TestCompiled: an .aimodelc instead of the .aimodel is described and not executed; beside it, it is noted.
func TestCompiled(t *testing.T) {
	t.Parallel()
	files := sampleFiles(t)
	files["x.aimodelc/main-h16c.mlirb"] = "compiled"
	b, err := openBundleIn(context.Background(), &folder{fsys: mapFS(files), label: "b"}, "b", BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"main-h16c.mlirb"}, b.Asset.Compiled); diff != "" {
		t.Errorf("beside (-want +got):\n%s", diff)
	}
	if _, err := b.Program(); err != nil {
		t.Errorf("beside: %v", err)
	}
	for name := range files {
		if strings.HasPrefix(name, "x.aimodel/") {
			delete(files, name)
		}
	}
	b, err = openBundleIn(context.Background(), &folder{fsys: mapFS(files), label: "b"}, "b", BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const want = "b/x.aimodel: found a compiled model only (.aimodelc: main-h16c.mlirb), want the .aimodel it was compiled from; `sibyl inspect` describes it; sibyl executes uncompiled models only: download or export the .aimodel"
	if _, err := b.Profile(); err == nil || filepath.ToSlash(err.Error()) != want {
		t.Errorf("instead\n got %v\nwant %s", err, want)
	}
}

// TestLinksOut: neither the asset nor a file of it may be a link that leaves the bundle.
func TestLinksOut(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("needs symlinks, which a Windows checkout may lack")
	}
	outside, err := filepath.Abs(sampleAsset(t, "tiny-dense-tied-int4lin"))
	if err != nil {
		t.Fatal(err)
	}
	for name, link := range map[string][2]string{"asset": {outside, "x.aimodel"}, "main": {filepath.Join(outside, mainFile), "x.aimodel/" + mainFile}} {
		dir := t.TempDir()
		for file, text := range sampleFiles(t) {
			if file == link[1] || strings.HasPrefix(file, link[1]+"/") {
				continue
			}
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(link[0], filepath.Join(dir, filepath.FromSlash(link[1]))); err != nil {
			t.Fatal(err)
		}
		_, err := OpenBundle(context.Background(), dir, BundleOptions{})
		if err == nil || !strings.Contains(err.Error(), "found a symlink that leads out of the folder, want a file inside it") {
			t.Errorf("%s: %v, want the link refused", name, err)
		}
	}
}

// TestVerified: a program is hashed once in a process, until its file changes.
func TestVerified(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for file, text := range sampleFiles(t) {
		if name, ok := strings.CutPrefix(file, "x.aimodel/"); ok {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	hashed := func() (calls int, err error) {
		b, err := OpenBundle(context.Background(), dir, BundleOptions{Progress: func(int64, int64) { calls++ }})
		if err == nil {
			err = b.Close()
		}
		return calls, err
	}
	if n, err := hashed(); n == 0 || err != nil {
		t.Fatalf("first: %d calls (%v), want it hashed", n, err)
	}
	if n, err := hashed(); n != 0 || err != nil {
		t.Errorf("second: %d calls (%v), want none", n, err)
	}
	if err := os.WriteFile(filepath.Join(dir, mainFile), []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := hashed(); err == nil {
		t.Error("a changed file passes unseen")
	}
}
