package quant

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/inputerr"
	"sibyl/internal/safetensors"
	"sibyl/internal/userfile"
)

// Options of Write. The zero value writes shards of at most 4 GB on all cores.
type Options struct {
	DryRun     bool  // compute the report, write nothing
	ShardBytes int64 // bytes of weights a file holds at most, but for a single larger one; <= 0 means 4 GB
	Threads    int   // <= 0 means all cores
	Force      bool  // replace a checkpoint that Write made before, or an empty folder; nothing else
	Progress   func(done, total int64)
}

const (
	defaultShard = 4e9
	dropAfter    = 64 << 20 // bytes of a weight that are read before their pages may go
)

// Write quantizes a checkpoint under a scheme into a new folder that sibyl opens like any checkpoint (bundle says how
// it is stored). It streams: what it keeps in memory is a few megabytes a goroutine and the scales of one tensor,
// 1/16 byte a weight. The folder is made under a temporary name beside dir and renamed at the end, so dir is there in
// whole or not at all. The report's figures, and every byte, are the same for any number of threads.
//
// A checkpoint that is quantized already, a dir that is there, weights that are NaN or Inf, and a recipe that does
// not fit the model are *inputerr.Error.
func Write(ctx context.Context, ck *bundle.Checkpoint, s *Scheme, dir string, o Options) (*Report, error) {
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	if o.ShardBytes <= 0 {
		o.ShardBytes = defaultShard
	}
	a, err := s.AssignTo(ck)
	if err != nil {
		return nil, err
	}
	units, err := a.units(ck)
	if err != nil {
		return nil, err
	}
	w := &writer{ck: ck, a: a, o: o, report: &Report{Model: ck.Name(), Scheme: s.Name, UntiedHead: a.HeadUntied, Notes: append([]Note{}, a.Notes...),
		Warnings: []Note{}, LeftOut: len(ck.Unused())}}
	for i := range units {
		w.total += units[i].sourceBytes()
	}
	if o.DryRun {
		err = w.all(ctx, units, nil)
	} else {
		w.report.Dir = dir
		err = w.folder(ctx, units, dir)
	}
	if err != nil {
		return nil, err
	}
	w.report.sumUp()
	return w.report, ck.Check()
}

// writer is one call of Write.
type writer struct {
	ck          *bundle.Checkpoint
	a           *Assignment
	o           Options
	report      *Report
	done, total int64
	entries     []entry
}

// all encodes units; to gives the sink of each, nil for a dry run.
func (w *writer) all(ctx context.Context, units []unit, to func(u *unit) sink) error {
	for i := range units {
		u := &units[i]
		var put sink
		if to != nil {
			put = to(u)
		}
		var read, dropped int
		h, t, err := u.encode(ctx, w.o.Threads, put, func(n int64) {
			if read += int(n); len(u.parts) == 1 && read-dropped > dropAfter {
				w.ck.Drop(u.parts[0], dropped, read)
				dropped = read
			}
			if w.done += n; w.o.Progress != nil {
				w.o.Progress(w.done, w.total)
			}
		})
		if err != nil {
			return err
		}
		for i, p := range u.parts {
			if i == 0 || p.Name != u.parts[i-1].Name {
				w.ck.Drop(p, 0, -1)
			}
		}
		w.report.record(u, h, t)
		if u.spec.Format.Quantized() {
			w.entries = append(w.entries, entry{fileName(u.name), u.spec, h})
		}
	}
	return nil
}

// fileName is a weight's name in the files that Write makes.
func fileName(name string) string {
	if name == config.Head.Name(0) {
		return name
	}
	return "model.language_model." + name
}

// folder writes everything under a temporary name and renames it.
func (w *writer) folder(ctx context.Context, units []unit, dir string) (err error) {
	if err := w.free(dir); err != nil {
		return err
	}
	dir = filepath.Clean(dir)
	tmp, err := os.MkdirTemp(filepath.Dir(dir), userfile.TempPattern(dir))
	if err != nil {
		return failed(dir, "create", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp) // err is the one to tell; nothing reads a folder of this name
		}
	}()
	// MkdirTemp gives 0700; a checkpoint is as readable as any other folder the user makes.
	if err := os.Chmod(tmp, 0o755); err != nil && runtime.GOOS != "windows" {
		return failed(dir, "create", err)
	}
	if err := w.shards(ctx, units, tmp); err != nil {
		return err
	}
	if err := w.copyRest(tmp); err != nil {
		return failed(dir, "write", err)
	}
	if err := w.config(tmp); err != nil { // last: without it the folder is no checkpoint
		return failed(dir, "write", err)
	}
	if err := selfCheck(tmp); err != nil {
		return failed(dir, "check", err)
	}
	return w.publish(tmp, dir)
}

// selfCheck opens what was written: nothing that sibyl would not read gets a name.
func selfCheck(tmp string) error {
	ck, err := bundle.Open(tmp)
	if err != nil {
		return err
	}
	return ck.Close()
}

func failed(dir, what string, err error) error {
	var in *inputerr.Error
	if errors.As(err, &in) {
		return err
	}
	return &inputerr.Error{File: dir, Field: what, Err: err, Do: "nothing was left under that name; free space or choose another place"}
}

// free says whether dir may be written.
func (w *writer) free(dir string) error {
	e := &inputerr.Error{File: dir, Want: "a name that is free", Do: "choose another folder, or remove this one"}
	if err := userfile.CheckOutputFolder(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		e.Found = "something that is no readable folder"
		return e
	case !w.o.Force:
		e.Found, e.Do = fmt.Sprintf("a folder of %d entries", len(entries)), "choose another folder, or --force to replace a quantized checkpoint"
		return e
	case len(entries) == 0:
		return nil
	}
	old, err := bundle.Open(dir)
	if err == nil {
		quantized := old.Quantization() != nil
		if err = old.Close(); err == nil && quantized {
			return nil
		}
	}
	e.Found, e.Want = "a folder that is no checkpoint quantized by sibyl", "one that --force may replace"
	return e
}

// publish gives the folder its name. What was there is moved aside first and removed last.
func (w *writer) publish(tmp, dir string) error {
	aside := tmp + ".old"
	err := os.Rename(dir, aside)
	old := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed(dir, "rename", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		if old {
			err = errors.Join(err, os.Rename(aside, dir))
		}
		return failed(dir, "rename", err)
	}
	if old {
		return os.RemoveAll(aside)
	}
	return nil
}

// shards writes the weights: one file, or several and their index. A weight's parts lie in one file.
func (w *writer) shards(ctx context.Context, units []unit, tmp string) error {
	var shards [][]unit
	var size int64
	for _, u := range units {
		n := u.bytes()
		if len(shards) == 0 || size+n > w.o.ShardBytes {
			shards, size = append(shards, nil), 0
		}
		last := len(shards) - 1
		shards[last] = append(shards[last], u)
		size += n
	}
	index := map[string]string{}
	for i, shard := range shards {
		name := "model.safetensors"
		if len(shards) > 1 {
			name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		}
		if err := w.shard(ctx, shard, filepath.Join(tmp, name), func(tensor string) { index[tensor] = name }); err != nil {
			return err
		}
		w.report.Files = append(w.report.Files, name)
	}
	if len(shards) == 1 {
		return nil
	}
	return w.index(tmp, index)
}

// shard writes one file.
func (w *writer) shard(ctx context.Context, units []unit, path string, placed func(string)) error {
	var specs []safetensors.Spec
	for i := range units {
		for _, s := range units[i].specs(fileName(units[i].name)) {
			specs = append(specs, s)
			placed(s.Name)
		}
	}
	f, err := safetensors.Create(path, map[string]string{"format": "pt", "quantized_by": "sibyl", "scheme": w.a.Scheme.Name}, specs)
	if err != nil {
		return err
	}
	err = w.all(ctx, units, func(u *unit) sink {
		return func(what string, offset int64, p []byte) error { return f.WriteAt(fileName(u.name)+what, offset, p) }
	})
	if err != nil {
		f.Abort()
		return err
	}
	return f.Commit()
}
