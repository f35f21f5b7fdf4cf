package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"sibyl/bundle/aicode"
	"sibyl/internal/inputerr"
)

// Bundle is an open LanguageBundle, or an .aimodel folder on its own. Opening reads metadata and maps the program;
// what costs more is done when it is first asked for: Program decodes it, Profile recognises it, Roles and Weights find
// the model in it. Its methods may be called from several goroutines at once, Close by one after them.
type Bundle struct {
	Language *Language // nil for an .aimodel on its own
	Asset    *Asset

	name     string
	dir      *folder
	warnings []string

	decode    sync.Once
	program   *aicode.Program
	decodeErr error

	recognise  sync.Once
	profile    Profile
	states     *States
	profileErr error
}

// BundleOptions say how far a bundle is trusted.
type BundleOptions struct {
	// NoVerify makes a main.hash that is missing or does not match a warning (Bundle.Warnings).
	NoVerify bool
	// SkipHash opens without comparing main.hash at all: for who calls Asset.Verify when it suits.
	SkipHash bool
	// Graph opens a model that its own graph runs: OpenSource then lets pass weights that are not read by role.
	Graph bool
	// Progress, if not nil, is told the bytes hashed and in all.
	Progress func(done, total int64)
}

// OpenBundle opens the LanguageBundle or .aimodel folder at path. main.hash is verified before anything else is read of
// the program, once in a process for files that do not change. Bad input gives an *inputerr.Error; of a LanguageBundle's
// metadata its cause is a LoaderError.
func OpenBundle(ctx context.Context, path string, opt BundleOptions) (*Bundle, error) {
	dir, err := openFolder(path)
	if err != nil {
		return nil, err
	}
	return openBundleIn(ctx, dir, baseName(path), opt)
}

// openBundleIn takes over dir.
func openBundleIn(ctx context.Context, dir *folder, name string, opt BundleOptions) (*Bundle, error) {
	b := &Bundle{dir: dir, name: name}
	err := b.open()
	if err == nil && !opt.SkipHash && b.Asset.data != nil {
		if err = b.verify(ctx, opt); err != nil && opt.NoVerify && ctx.Err() == nil {
			b.warnings, err = append(b.warnings, unverified(err)), nil
		}
	}
	if err != nil {
		_ = b.Close() // the first error is the one to tell
		return nil, err
	}
	return b, nil
}

// open tells a LanguageBundle from an .aimodel by main.mlirb, and opens its parts.
func (b *Bundle) open() (err error) {
	if b.lone() {
		b.Asset, err = openAsset(b.dir, ".")
		return err
	}
	if b.Language, err = b.language(); err != nil {
		return err
	}
	main := b.Language.Main
	if b.Asset, err = openAsset(b.dir, main); err == nil || b.dir.has(main) {
		return err
	}
	return &inputerr.Error{File: b.dir.show(main), Found: "no such folder, and no " + path.Base(main) + "c", Want: "what assets.main of metadata.json names",
		Err: MissingAsset, Do: "the bundle is not complete: download it again"}
}

// lone says whether the folder is an .aimodel, not a LanguageBundle.
func (b *Bundle) lone() bool {
	return strings.HasSuffix(b.name, ".aimodel") || strings.HasSuffix(b.name, ".aimodelc") || b.dir.has(mainFile)
}

// language reads metadata.json.
func (b *Bundle) language() (*Language, error) {
	if !b.dir.has(metadataFile) {
		return nil, &inputerr.Error{File: b.dir.show(metadataFile), Found: "no such file", Want: "a LanguageBundle's metadata", Err: MissingMetadata,
			Do: "the bundle is not complete: download it again"}
	}
	text, err := b.dir.read(metadataFile, 1<<20)
	if err != nil {
		return nil, err
	}
	return ParseLanguage(b.dir.show(metadataFile), text)
}

// verified remembers which programs matched their main.hash: files by path, size, time of change, and the hash.
var verified sync.Map

func (b *Bundle) verify(ctx context.Context, opt BundleOptions) error {
	key := ""
	if info, err := os.Stat(b.Asset.Path()); err == nil && b.Asset.data.Mapped() {
		key = fmt.Sprint(b.Asset.Path(), info.Size(), info.ModTime().UnixNano(), b.Asset.MainHash())
	}
	if _, known := verified.Load(key); known && key != "" {
		return nil
	}
	if err := b.Asset.Verify(ctx, opt.Progress); err != nil {
		return err
	}
	verified.Store(key, true)
	return nil
}

// unverified is what went wrong, without the advice that was followed.
func unverified(err error) string {
	var in *inputerr.Error
	if errors.As(err, &in) {
		told := *in
		told.Do = "used as it is (--no-verify)"
		return told.Error()
	}
	return err.Error()
}

// Name is the folder's name.
func (b *Bundle) Name() string { return b.name }

// Path is where it was opened from, for messages.
func (b *Bundle) Path() string { return b.dir.label }

// Warnings are what was let pass on request.
func (b *Bundle) Warnings() []string { return b.warnings }

// Program is the decoded main.mlirb. Its bytes are those of the mapped file and are valid until Close.
func (b *Bundle) Program() (*aicode.Program, error) {
	b.decode.Do(func() {
		if b.Asset.data == nil {
			b.decodeErr = b.Asset.onlyCompiled()
			return
		}
		b.program, b.decodeErr = aicode.Decode(b.Asset.Bytes(), b.Asset.Path())
	})
	return b.program, b.decodeErr
}

// Profile is the known shape of graph that main has; a graph of another architecture is an error that says what it
// looks like.
func (b *Bundle) Profile() (Profile, error) {
	p, _, err := b.signature()
	return p, err
}

// States are the states of main, by what they hold.
func (b *Bundle) States() (*States, error) {
	_, s, err := b.signature()
	return s, err
}

func (b *Bundle) signature() (Profile, *States, error) {
	b.recognise.Do(func() {
		p, err := b.Program()
		if err != nil {
			b.profileErr = err
			return
		}
		b.profile, b.states, b.profileErr = Recognise(p)
	})
	return b.profile, b.states, b.profileErr
}

// Tokenizer gives the file system in which the embedded tokenizer lies at dir. An .aimodel on its own has none, and a
// LanguageBundle may say that it has none.
func (b *Bundle) Tokenizer() (fsys fs.FS, dir string, err error) {
	switch {
	case b.Language == nil:
		return nil, "", &inputerr.Error{File: b.dir.label, Found: "an .aimodel on its own, which has no tokenizer", Want: "the LanguageBundle around it", Do: "give that folder, or ids instead of text"}
	case !b.Language.EmbeddedTokenizer:
		return nil, "", &inputerr.Error{File: b.dir.show(metadataFile), Field: "language.embedded_tokenizer", Found: "false", Want: "a tokenizer in the bundle",
			Do: "give ids instead of text, made with the tokenizer of " + inputerr.Clip(b.Language.Tokenizer, 80)}
	}
	return b.dir.fsys, "tokenizer", nil
}

// OpenTokenizer gives the file system in which the tokenizer of the LanguageBundle at path lies at dir. It reads the
// metadata and nothing of the model.
func OpenTokenizer(path string) (fsys fs.FS, dir string, closer io.Closer, err error) {
	root, err := openFolder(path)
	if err != nil {
		return nil, "", nil, err
	}
	b := &Bundle{dir: root, name: baseName(path)}
	if !b.lone() {
		b.Language, err = b.language()
	}
	if err == nil {
		fsys, dir, err = b.Tokenizer()
	}
	if err != nil {
		_ = root.close() // the first error is the one to tell
		return nil, "", nil, err
	}
	return fsys, dir, b, nil
}

// Check says whether the program's file still has the length it was opened with; long jobs ask between layers.
func (b *Bundle) Check() error {
	if b.Asset.data == nil {
		return nil
	}
	if err := b.Asset.data.Check(); err != nil {
		return &inputerr.Error{File: b.Asset.Path(), Err: err, Do: "leave a bundle alone while it is used, and start again"}
	}
	return nil
}

// Close unmaps the program. No view of it may be used afterwards.
func (b *Bundle) Close() error {
	var first error
	if b.Asset != nil {
		first = b.Asset.close()
	}
	if err := b.dir.close(); first == nil {
		first = err
	}
	return first
}
