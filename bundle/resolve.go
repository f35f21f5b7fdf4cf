package bundle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sibyl/internal/demo"
	"sibyl/internal/inputerr"
	"sibyl/internal/safetensors"
	"sibyl/internal/userfile"
)

// Kind is what a reference turned out to be.
type Kind uint8

// The kinds of references.
const (
	Demo             Kind = iota // the embedded model
	CheckpointFolder             // a folder; whether it is a good one is seen when it is opened
	HubID                        // org/name, found in the local hub cache
	TraceFile                    // a file with sibyl's trace metadata
	LanguageBundle               // a folder with metadata.json that names a main asset
	AIModel                      // an .aimodel folder
)

// String names the kind as messages do.
func (k Kind) String() string {
	return [...]string{"the demo model", "a checkpoint folder", "a hub id", "a trace file", "a LanguageBundle", "an .aimodel"}[k]
}

// Ref is a resolved reference.
type Ref struct {
	Text string // as given
	Kind Kind
	Path string // what to open; empty for the demo model
	Name string // for output
}

// Resolve tells what a reference is: "" is the demo model; a path that exists wins over a hub id of the same
// spelling; org/name is looked up in the local hub cache (HF_HUB_CACHE, HF_HOME), never on the network. What is
// none of these gives an *inputerr.Error that says where was looked.
func Resolve(ref string) (Ref, error) { return resolve(ref, os.Getenv) }

func resolve(ref string, getenv func(string) string) (Ref, error) {
	if ref == "" {
		return Ref{Kind: Demo, Name: demo.Name}, nil
	}
	info, err := os.Stat(ref)
	switch {
	case err == nil && info.IsDir():
		return folderRef(ref), nil
	case err == nil:
		return fileRef(ref)
	case !os.IsNotExist(err):
		return Ref{}, unreadable(ref, err)
	}
	if target, lerr := os.Readlink(ref); lerr == nil {
		return Ref{}, &inputerr.Error{File: ref, Found: "a symlink to " + inputerr.Clip(target, 120) + ", where nothing is", Want: "a checkpoint's folder", Do: "point it to one"}
	}
	if hubID.MatchString(ref) {
		return hubRef(ref, getenv)
	}
	return Ref{}, &inputerr.Error{File: ref, Found: "no such file or folder", Want: "a checkpoint's folder, or org/name in the local hub cache", Do: "check the path"}
}

// folderRef tells folders apart by the one file that makes each what it is.
func folderRef(path string) Ref {
	r := Ref{Text: path, Kind: CheckpointFolder, Path: path, Name: baseName(path)}
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(path, name))
		return err == nil
	}
	switch {
	case has("config.json"):
		if top, sub, err := snapshotRoot(path); err == nil && sub != "" {
			r.Name = strings.Replace(strings.TrimPrefix(filepath.Base(top), "models--"), "--", "/", 1)
		}
	case strings.HasSuffix(r.Name, ".aimodel") || strings.HasSuffix(r.Name, ".aimodelc") || has("main.mlirb"):
		r.Kind = AIModel
	case has("metadata.json"):
		r.Kind = LanguageBundle
	}
	return r
}

// baseName is the last part of the path, also for "." and "..".
func baseName(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return filepath.Base(abs)
	}
	return filepath.Base(path)
}

// fileRef knows trace files; of every other file it says what it is.
func fileRef(path string) (Ref, error) {
	e := &inputerr.Error{File: path, Found: "a file", Want: "a checkpoint's folder", Do: "give the folder that holds config.json and the weights"}
	if strings.HasSuffix(path, ".gguf") {
		e.Found, e.Do = "a GGUF file", "sibyl reads the checkpoint it was made from: give that folder"
		return Ref{}, e
	}
	if strings.HasSuffix(path, ".safetensors") {
		e.Do = "give the folder it is in: " + filepath.Dir(path)
	}
	f, err := safetensors.Open(path)
	if err != nil {
		if strings.HasSuffix(path, ".safetensors") || strings.HasSuffix(path, ".trace") || !otherFile(path) {
			var in *inputerr.Error
			if errors.As(err, &in) && !strings.HasSuffix(path, ".safetensors") && in.Field != "" {
				in.Do = "the trace was cut or damaged: make it again with `sibyl trace`"
			}
			return Ref{}, err
		}
		return Ref{}, e
	}
	defer func() { _ = f.Close() }() // only read
	// Package trace writes and judges the format; here its mark is enough.
	if strings.HasPrefix(f.Metadata()["format"], "sibyl-trace/") {
		return Ref{Text: path, Kind: TraceFile, Path: path, Name: filepath.Base(path)}, nil
	}
	return Ref{}, e
}

// otherFile says whether path is readable and does not begin as a safetensors file or a cut one does: then what is
// wrong with it as such a file is of no use to anybody.
func otherFile(path string) bool {
	f, err := userfile.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only read
	var head [9]byte
	n, _ := io.ReadFull(f, head[:])
	return n > 0 && (n < 8 || binary.LittleEndian.Uint64(head[:]) > safetensors.MaxHeader || n == 9 && head[8] != '{')
}

// notACheckpoint is the error for opening something that is known and is no checkpoint.
func (r Ref) notACheckpoint() error {
	do := "give the checkpoint that it was converted from"
	if r.Kind == TraceFile {
		do = "trace files are compared by diff; give a checkpoint's folder here"
	}
	return &inputerr.Error{File: r.Text, Found: r.Kind.String(), Want: "a checkpoint's folder", Do: do}
}

// hubID is org/name as the hub allows it: letters, digits, and -_. inside.
var hubID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$`)

// HubCache is the folder of the local hub cache, as huggingface_hub finds it: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE,
// HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub. Source: huggingface_hub, constants.py.
func HubCache(getenv func(string) string) (string, error) {
	home := func(path string) (string, error) {
		path = os.Expand(path, getenv)
		if path != "~" && !strings.HasPrefix(path, "~/") {
			return path, nil
		}
		h, err := os.UserHomeDir()
		return h + path[1:], err
	}
	for _, key := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if v := getenv(key); v != "" {
			return home(v)
		}
	}
	base := "~/.cache"
	if v := getenv("XDG_CACHE_HOME"); v != "" {
		base = v
	}
	base = filepath.ToSlash(base) + "/huggingface"
	if v := getenv("HF_HOME"); v != "" {
		base = v
	}
	path, err := home(base)
	return filepath.Join(path, "hub"), err
}

// hubRef finds org/name in the cache: refs/main names the snapshot; without it a single snapshot is taken.
func hubRef(id string, getenv func(string) string) (Ref, error) {
	cache, err := HubCache(getenv)
	if err != nil {
		return Ref{}, &inputerr.Error{File: id, Err: fmt.Errorf("the hub cache cannot be located: %w", err), Do: "set HF_HUB_CACHE, or give the checkpoint's folder"}
	}
	model := filepath.Join(cache, "models--"+strings.ReplaceAll(id, "/", "--"))
	get := "download it (`hf download " + id + "`) or give the checkpoint's folder; sibyl never uses the network"
	if _, err := os.Stat(model); err != nil {
		return Ref{}, &inputerr.Error{File: id, Found: "no such folder, and no " + model, Want: "a path, or an id in the local hub cache", Do: get}
	}
	revision, err := hubRevision(model)
	if err != nil {
		return Ref{}, &inputerr.Error{File: id, Field: model, Err: err, Do: get}
	}
	path := filepath.Join(model, "snapshots", revision)
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return Ref{}, &inputerr.Error{File: id, Field: filepath.Join(model, "refs", "main"), Found: "the revision " + inputerr.Clip(revision, 60), Want: "one that snapshots holds", Do: get}
	}
	return Ref{Text: id, Kind: HubID, Path: path, Name: id}, nil
}

// hubRevision reads refs/main. It is a file in the user's cache, but still a text that becomes a path.
func hubRevision(model string) (string, error) {
	text, err := userfile.Read(filepath.Join(model, "refs", "main"), 4096)
	if err == nil {
		revision := strings.TrimSpace(string(text[:min(len(text), 256)]))
		if !fs.ValidPath(revision) || revision == "." || strings.ContainsAny(revision, `/\:`) {
			return "", fmt.Errorf("refs/main holds %s, no revision", inputerr.Clip(revision, 60))
		}
		return revision, nil
	}
	entries, err := os.ReadDir(filepath.Join(model, "snapshots"))
	if err != nil || len(entries) == 0 {
		return "", fmt.Errorf("found neither refs/main nor a snapshot: the download was not finished")
	}
	if len(entries) > 1 {
		return "", fmt.Errorf("found %d snapshots and no refs/main: give the snapshot's folder instead", len(entries))
	}
	return entries[0].Name(), nil
}
