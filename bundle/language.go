package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/internal/strictjson"
)

// LoaderError is the name that Apple's loader of LanguageBundles gives to what is wrong. It is the cause (errors.As)
// of the *inputerr.Error that says where. Source: apple/coreai-models, LanguageBundle loading (2026-09).
type LoaderError string

// The loader's errors, by its names.
const (
	MissingMetadata     LoaderError = "missingMetadata"     // no metadata.json
	MalformedMetadata   LoaderError = "malformedMetadata"   // no JSON, or a value of another type
	UnsupportedVersion  LoaderError = "unsupportedVersion"  // metadata_version is not "0.2"
	KindMismatch        LoaderError = "kindMismatch"        // kind is not "llm"
	MissingField        LoaderError = "missingField"        // a required field is absent
	MissingAsset        LoaderError = "missingAsset"        // what assets.main names is not there
	PointedAtModelAsset LoaderError = "pointedAtModelAsset" // the folder is the .aimodel itself
)

// Error says whose name it is.
func (e LoaderError) Error() string { return "Apple's loader calls this " + string(e) }

// languageVersion is the one version of metadata.json.
const languageVersion = "0.2"

// The bounds of metadata.json's numbers and lists: those of config.json.
const (
	maxVocab     = 1 << 22
	maxPositions = 1 << 30
	maxNames     = 1 << 10
)

// Language is the metadata.json of a LanguageBundle. Nothing is inferred from Name or Compression: writers put there
// what they like.
type Language struct {
	Version           string              // metadata_version
	Kind              string              // "llm"
	Name              string              //
	Main              string              // assets.main: the .aimodel's path inside the folder
	Tokenizer         string              // language.tokenizer: the hub id it came from
	VocabSize         int                 // language.vocab_size
	MaxContext        int                 // language.max_context_length
	EmbeddedTokenizer bool                // the tokenizer lies in tokenizer/ (the default)
	Functions         map[string][]string // language.function_map: a role and the functions that serve it
	States            map[string]string   // language.states: kv_cache, sliding_cache or fixed by name; nil where not listed
	PrefillChunk      int                 // language.prefill_chunk_size, 0 where absent
	PrefillThreshold  int                 // language.prefill_chunk_threshold, 0 where absent
	Definition        string              // source.model_definition
	ModelID           string              // source.hf_model_id
	Revision          string              // source.hf_revision
	Compression       string              // the writer's word for the scheme, "" for none
	CompiledAt        string              // compilation.date
	Targets           []string            // compilation.targets
	UserData          map[string]string   //
}

// ParseLanguage reads a metadata.json 0.2 as Apple's loader does. file is for messages; errors are *inputerr.Error
// with a LoaderError as cause. Unknown keys are passed over, as there.
func ParseLanguage(file string, data []byte) (*Language, error) {
	p := &languageParser{file: file, l: Language{EmbeddedTokenizer: true}, seen: map[string]bool{}}
	s, err := strictjson.New(data)
	if err == nil {
		p.s = s
		err = s.Object(p.root)
	}
	if err == nil {
		err = s.End()
	}
	var at *strictjson.Error
	if errors.As(err, &at) {
		return nil, p.fail(MalformedMetadata, fmt.Sprintf("byte %d", at.Offset), at.Found, at.Want, "download the file again")
	}
	if err == nil {
		err = p.judge()
	}
	if err != nil {
		return nil, err
	}
	return &p.l, nil
}

// languageParser keeps what was there: absent and empty are two things.
type languageParser struct {
	s     *strictjson.Scanner
	file  string
	l     Language
	seen  map[string]bool
	asset bool // the keys of an .aimodel's own metadata.json
}

func (p *languageParser) fail(kind LoaderError, field, found, want, do string) error {
	return &inputerr.Error{File: p.file, Field: field, Found: found, Want: want, Err: kind, Do: do}
}

// root reads the top level.
func (p *languageParser) root(key string) error {
	switch key {
	case "metadata_version":
		return p.text(key, &p.l.Version)
	case "kind":
		return p.text(key, &p.l.Kind)
	case "name":
		return p.text(key, &p.l.Name)
	case "assets":
		return p.object(key, map[string]any{"main": &p.l.Main})
	case "language":
		return p.object(key, map[string]any{
			"tokenizer": &p.l.Tokenizer, "vocab_size": &p.l.VocabSize, "max_context_length": &p.l.MaxContext, "embedded_tokenizer": &p.l.EmbeddedTokenizer,
			"function_map": &p.l.Functions, "states": &p.l.States, "prefill_chunk_size": &p.l.PrefillChunk, "prefill_chunk_threshold": &p.l.PrefillThreshold})
	case "source":
		return p.object(key, map[string]any{"model_definition": &p.l.Definition, "hf_model_id": &p.l.ModelID, "hf_revision": &p.l.Revision})
	case "compression":
		if p.s.Kind() == strictjson.Object {
			return p.object(key, map[string]any{"scheme": &p.l.Compression})
		}
		return p.text(key, &p.l.Compression)
	case "compilation":
		return p.object(key, map[string]any{"date": &p.l.CompiledAt, "targets": &p.l.Targets})
	case "user_data":
		return p.value(key, &p.l.UserData)
	case "assetVersion":
		p.asset = true
	}
	return p.s.Skip()
}

// object reads the keys of an object that are wanted.
func (p *languageParser) object(name string, into map[string]any) error {
	if p.s.Kind() == strictjson.Null {
		return p.s.Null()
	}
	return p.typed(name, strictjson.Object, func() error {
		return p.s.Object(func(key string) error {
			dst, ok := into[key]
			if !ok {
				return p.s.Skip()
			}
			return p.value(name+"."+key, dst)
		})
	})
}

// typed refuses a value of another kind by the field's name.
func (p *languageParser) typed(field string, kind strictjson.Kind, read func() error) error {
	if k := p.s.Kind(); k != kind {
		return p.fail(MalformedMetadata, field, k.String(), kind.String(), "correct the file, or export the bundle again")
	}
	return read()
}

func (p *languageParser) text(field string, dst *string) error { return p.value(field, dst) }

// value reads one value into dst; null counts as absent.
func (p *languageParser) value(field string, dst any) error {
	if p.s.Kind() == strictjson.Null {
		return p.s.Null()
	}
	p.seen[field] = true
	switch dst := dst.(type) {
	case *string:
		return p.typed(field, strictjson.String, func() (err error) { *dst, err = p.s.String(); return err })
	case *bool:
		return p.typed(field, strictjson.Bool, func() (err error) { *dst, err = p.s.Bool(); return err })
	case *int:
		return p.typed(field, strictjson.Number, func() error { return p.count(field, dst) })
	case *[]string:
		return p.strings(field, dst)
	case *map[string]string:
		*dst = map[string]string{}
		return p.typed(field, strictjson.Object, func() error {
			return p.s.Object(func(key string) error {
				var v string
				err := p.value(field+"."+key, &v)
				(*dst)[key] = v
				return p.bounded(field, len(*dst), err)
			})
		})
	case *map[string][]string:
		*dst = map[string][]string{}
		return p.typed(field, strictjson.Object, func() error {
			return p.s.Object(func(key string) error {
				var v []string
				err := p.value(field+"."+key, &v)
				(*dst)[key] = v
				return p.bounded(field, len(*dst), err)
			})
		})
	}
	return p.s.Skip()
}

func (p *languageParser) strings(field string, dst *[]string) error {
	return p.typed(field, strictjson.Array, func() error {
		return p.s.Array(func(i int) error {
			var v string
			err := p.value(fmt.Sprintf("%s[%d]", field, i), &v)
			*dst = append(*dst, v)
			return p.bounded(field, len(*dst), err)
		})
	})
}

func (p *languageParser) bounded(field string, n int, err error) error {
	if err == nil && n > maxNames {
		return p.fail(MalformedMetadata, field, fmt.Sprintf("more than %d entries", maxNames), "fewer", "is this a LanguageBundle's metadata.json?")
	}
	return err
}

// count reads a whole number of 1 to maxPositions.
func (p *languageParser) count(field string, dst *int) error {
	n, err := p.s.Uint64()
	if err == nil && (n < 1 || n > maxPositions) {
		return p.fail(MalformedMetadata, field, fmt.Sprint(n), fmt.Sprintf("a whole number of 1 to %d", maxPositions), "correct the file, or export the bundle again")
	}
	*dst = int(n)
	return err
}

// judge checks what must be there, in the order of Apple's loader: version, kind, fields.
func (p *languageParser) judge() error {
	const again = "correct the file, or export the bundle again"
	l := &p.l
	switch {
	case !p.seen["metadata_version"] && p.asset:
		return p.fail(PointedAtModelAsset, "", "the metadata of an .aimodel", "that of a LanguageBundle", "give the folder that holds the .aimodel, or an .aimodel with its main.mlirb")
	case p.seen["metadata_version"] && l.Version != languageVersion:
		return p.fail(UnsupportedVersion, "metadata_version", inputerr.Clip(l.Version, 40), fmt.Sprintf("%q", languageVersion), "export the bundle again with current tools")
	}
	for _, field := range []string{"metadata_version", "kind", "name"} {
		if !p.seen[field] {
			return p.fail(MissingField, field, "nothing", "a string", again)
		}
	}
	if l.Kind != "llm" {
		return p.fail(KindMismatch, "kind", inputerr.Clip(l.Kind, 40), `"llm"`, "sibyl runs text models only")
	}
	for _, field := range []string{"assets.main", "language.tokenizer", "language.vocab_size", "language.max_context_length"} {
		if !p.seen[field] {
			return p.fail(MissingField, field, "nothing", "a value", again)
		}
	}
	if l.VocabSize > maxVocab {
		return p.fail(MalformedMetadata, "language.vocab_size", fmt.Sprint(l.VocabSize), fmt.Sprintf("at most %d", maxVocab), again)
	}
	for name, kind := range l.States {
		if !slices.Contains([]string{"kv_cache", "sliding_cache", "fixed"}, kind) {
			return p.fail(MalformedMetadata, "language.states."+inputerr.Clip(name, 60), inputerr.Clip(kind, 40), "kv_cache, sliding_cache or fixed", again)
		}
	}
	return p.assetName()
}

// assetName judges the path of the main asset: it must stay inside the folder.
func (p *languageParser) assetName() error {
	name := p.l.Main
	if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, `\:`) || path.Ext(name) != ".aimodel" {
		return p.fail(MalformedMetadata, "assets.main", inputerr.Clip(name, 80), "the name of an .aimodel inside the folder", "do not use this bundle: what it runs must lie in it")
	}
	return nil
}
