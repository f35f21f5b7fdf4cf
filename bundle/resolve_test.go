package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/internal/safetensors"
)

// cache makes a hub cache as huggingface_hub does: snapshots of symlinks into blobs, and refs/main.
func cache(t *testing.T, ref string, revisions ...string) string {
	t.Helper()
	hub := t.TempDir()
	model := filepath.Join(hub, "models--org--tiny")
	write := func(content []byte, path ...string) {
		p := filepath.Join(append([]string{model}, path...)...)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"config.json", "model.safetensors"} {
		b, err := os.ReadFile(filepath.Join(testdata, "checkpoints", "single", name))
		if err != nil {
			t.Fatal(err)
		}
		blob := []string{"aaaa", "bbbb"}[i]
		write(b, "blobs", blob)
		for _, rev := range revisions {
			dir := filepath.Join(model, "snapshots", rev)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join("..", "..", "blobs", blob), filepath.Join(dir, name)); err != nil {
				t.Skip(err)
			}
		}
	}
	if ref != "" {
		write([]byte(ref), "refs", "main")
	}
	return hub
}

func env(pairs ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestHub(t *testing.T) {
	t.Parallel()
	const rev, other = "0123abcd", "4567ef01"
	tests := []struct {
		name, why, ref string
		revisions      []string
		wantErr        string
	}{
		{"ref", "refs/main names the snapshot", rev + "\n", []string{other, rev}, ""},
		{"one-snapshot", "a download of a revision writes no refs/main", "", []string{rev}, ""},
		{"two-snapshots", "which is meant?", "", []string{rev, other}, "found 2 snapshots and no refs/main: give the snapshot's folder instead; download it (`hf download org/tiny`)"},
		{"no-snapshot", "an unfinished download", "", nil, "found neither refs/main nor a snapshot: the download was not finished"},
		{"stale-ref", "the snapshot was removed", rev, []string{other}, "found the revision \"0123abcd\", want one that snapshots holds"},
		{"ref-outside", "a text that becomes a path", "../../../etc", []string{rev}, `refs/main holds "../../../etc", no revision`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hub := cache(t, tt.ref, tt.revisions...)
			c, err := open("org/tiny", env("HF_HUB_CACHE", hub))
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) || !strings.HasPrefix(err.Error(), "org/tiny: ") {
					t.Errorf("open = %v, want org/tiny: ... %s\nwhy: %s", err, tt.wantErr, tt.why)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\nwhy: %s", err, tt.why)
			}
			defer c.Close()
			if c.Name() != "org/tiny" || !strings.HasSuffix(c.Path(), rev) {
				t.Errorf("opened %s at %s, want org/tiny at revision %s\nwhy: %s", c.Name(), c.Path(), rev, tt.why)
			}
		})
	}
}

// TestSnapshotPath: a path into the cache works like the id, also through a symlink, and its links must stay in the
// model's folder there.
func TestSnapshotPath(t *testing.T) {
	t.Parallel()
	hub := cache(t, "", "rev")
	snapshot := filepath.Join(hub, "models--org--tiny", "snapshots", "rev")
	if c := mustOpen(t, snapshot); c.Name() != "org/tiny" {
		t.Errorf("a snapshot is called %q, want its id org/tiny", c.Name())
	}
	link := filepath.Join(t.TempDir(), "mine")
	if err := os.Symlink(snapshot, link); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, link)

	outside := filepath.Join(hub, "model.safetensors")
	blob := filepath.Join(hub, "models--org--tiny", "blobs", "bbbb")
	if err := os.Rename(blob, outside); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"relative": "../../model.safetensors", "absolute": outside} {
		if err := os.Symlink(target, blob); err != nil {
			t.Fatal(err)
		}
		if _, err := open(snapshot, noEnv); err == nil || !strings.Contains(err.Error(), "a symlink that leads out of the folder") {
			t.Errorf("open with a blob that is a %s link out of the cache = %v", name, err)
		}
		if err := os.Remove(blob); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHubCache(t *testing.T) {
	t.Parallel()
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip(err)
	}
	tests := []struct {
		name string
		env  func(string) string
		want string
	}{
		{"default", env(), filepath.Join(home, ".cache", "huggingface", "hub")},
		{"XDG", env("XDG_CACHE_HOME", "/x"), "/x/huggingface/hub"},
		{"HF_HOME", env("HF_HOME", "/h", "XDG_CACHE_HOME", "/x"), "/h/hub"},
		{"HF_HOME-tilde", env("HF_HOME", "~/h"), filepath.Join(home, "h", "hub")},
		{"HF_HUB_CACHE", env("HF_HUB_CACHE", "/c", "HF_HOME", "/h"), "/c"},
		{"old-name", env("HUGGINGFACE_HUB_CACHE", "/o", "HF_HOME", "/h"), "/o"},
		{"variable", env("HF_HUB_CACHE", "$DATA/hub", "DATA", "/d"), "/d/hub"},
	}
	for _, tt := range tests {
		if got, err := HubCache(tt.env); err != nil || filepath.ToSlash(got) != filepath.ToSlash(tt.want) {
			t.Errorf("%s: HubCache = %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	traceFile := filepath.Join(dir, "a.trace")
	w, err := safetensors.Create(traceFile, map[string]string{"format": "sibyl-trace/1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	notes := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(notes, []byte("hello, this is text"), 0o644); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(traceFile)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(dir, "cut")
	blank := filepath.Join(dir, "blank")
	for path, data := range map[string][]byte{cut: whole[:len(whole)-4], blank: nil} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink("nowhere", dangling); err != nil {
		t.Skip(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	hub := filepath.Join(dir, "hub")
	weights := filepath.Join(testdata, "checkpoints", "single", "model.safetensors")
	tests := []struct {
		name, ref string
		want      Kind
		wantErr   string
	}{
		{"demo", "", Demo, ""},
		{"folder", filepath.Join(testdata, "checkpoints", "single"), CheckpointFolder, ""},
		{"trace", traceFile, TraceFile, ""},
		{"bundle", filepath.Join(testdata, "malformed", "checkpoint", "language-bundle"), LanguageBundle, ""},
		{"aimodel", filepath.Join(testdata, "malformed", "checkpoint", "bundle.aimodel"), AIModel, ""},
		{"nothing", filepath.Join(dir, "absent"), 0, "found no such file or folder, want a checkpoint's folder, or org/name in the local hub cache; check the path"},
		{"no-id", "org/absent", 0, "found no such folder, and no " + filepath.Join(hub, "models--org--absent") + ", want a path, or an id in the local hub cache; download it (`hf download org/absent`) or give the checkpoint's folder; sibyl never uses the network"},
		{"text-file", notes, 0, "found a file, want a checkpoint's folder; give the folder that holds config.json and the weights"},
		{"weights-file", weights, 0, "found a file, want a checkpoint's folder; give the folder it is in: " + filepath.Dir(weights)},
		{"cut-trace", cut, 0, "header length (bytes 0..8): found 48, want at most 44, what the file holds after it; the trace was cut or damaged: make it again with `sibyl trace`"},
		{"blank-file", blank, 0, "header length (bytes 0..8): found a file of 0 bytes, want at least 8; the trace was cut or damaged: make it again with `sibyl trace`"},
		{"dangling", dangling, 0, `found a symlink to "nowhere", where nothing is, want a checkpoint's folder; point it to one`},
	}
	for _, tt := range tests {
		r, err := resolve(tt.ref, env("HF_HUB_CACHE", hub))
		switch {
		case tt.wantErr == "" && (err != nil || r.Kind != tt.want):
			t.Errorf("%s: resolve(%q) = %v, %v, want %v", tt.name, tt.ref, r.Kind, err, tt.want)
		case tt.wantErr != "" && (err == nil || err.Error() != tt.ref+": "+tt.wantErr):
			t.Errorf("%s: resolve(%q)\n got %v\nwant %s: %s", tt.name, tt.ref, err, tt.ref, tt.wantErr)
		}
	}
	for ref, want := range map[string]string{
		traceFile: ": found a trace file, want a checkpoint's folder; trace files are compared by diff; give a checkpoint's folder here",
		empty:     ": found an empty folder, want config.json and safetensors files; give the folder of a Hugging Face checkpoint",
	} {
		if _, err := open(ref, noEnv); err == nil || err.Error() != ref+want {
			t.Errorf("open(%q)\n got %v\nwant %s%s", ref, err, ref, want)
		}
	}
}
