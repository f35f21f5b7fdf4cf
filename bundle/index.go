package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/internal/strictjson"
)

const (
	singleFile = "model.safetensors"
	indexFile  = "model.safetensors.index.json"
	// maxShards bounds the files an index may name; the largest published models have a few hundred.
	maxShards = 4096
	// maxIndexed bounds the tensors of all files: 512 experts in 60 layers, one tensor each, are 92,160.
	maxIndexed = 1 << 18
)

// parseIndex reads an index: tensor name to shard's name. Names of shards are judged here: they must be relative
// paths that stay inside the folder. Errors are *inputerr.Error.
func parseIndex(file string, data []byte) (map[string]string, error) {
	s, err := strictjson.New(data)
	var shardOf map[string]string
	if err == nil {
		err = s.Object(func(key string) error {
			if key != "weight_map" {
				return s.Skip() // metadata: total_size is written by tools that disagree on what it counts
			}
			shardOf = map[string]string{}
			return s.Object(func(tensor string) error {
				if len(shardOf) == maxIndexed {
					return &inputerr.Error{File: file, Field: "weight_map", Found: fmt.Sprintf("more than %d tensors", maxIndexed), Want: "fewer", Do: "is this an index?"}
				}
				shard, err := s.String()
				if err != nil {
					return err
				}
				shardOf[tensor] = shard
				return checkShardName(file, tensor, shard)
			})
		})
	}
	if err == nil {
		err = s.End()
	}
	var at *strictjson.Error
	if errors.As(err, &at) {
		return nil, &inputerr.Error{File: file, Field: fmt.Sprintf("byte %d", at.Offset), Found: at.Found, Want: at.Want, Do: "download the file again"}
	}
	if err == nil && len(shardOf) == 0 {
		err = &inputerr.Error{File: file, Field: "weight_map", Found: "nothing", Want: "tensor names with their files", Do: "download the file again"}
	}
	return shardOf, err
}

func checkShardName(file, tensor, shard string) error {
	e := &inputerr.Error{File: file, Field: "weight_map[" + inputerr.Clip(tensor, 80) + "]", Found: inputerr.Clip(shard, 80),
		Want: "the name of a file in the same folder", Do: "do not use this index: a shard must lie beside it"}
	if !fs.ValidPath(shard) || shard == "." || strings.ContainsAny(shard, `\:`) || path.Ext(shard) != ".safetensors" {
		return e
	}
	return nil
}

// openShards opens the single file, or all files the index names, and lists their tensors.
func (c *Checkpoint) openShards() (*inventory, error) {
	inv := &inventory{at: map[string]place{}, taken: map[string]bool{}}
	one, many := c.dir.has(singleFile), c.dir.has(indexFile)
	switch {
	case one && many:
		return nil, &inputerr.Error{File: c.dir.label, Found: singleFile + " and " + indexFile, Want: "one of them",
			Do: "remove the one that does not belong to this model; sibyl does not guess"}
	case one:
		return inv, c.openShard(inv, singleFile, nil)
	case !many:
		return nil, c.noWeights()
	}
	text, err := c.dir.read(indexFile, maxJSON)
	if err != nil {
		return nil, err
	}
	index := c.dir.show(indexFile)
	shardOf, err := parseIndex(index, text)
	if err != nil {
		return nil, err
	}
	shards := slices.Compact(slices.Sorted(maps.Values(shardOf)))
	if len(shards) > maxShards {
		return nil, &inputerr.Error{File: index, Field: "weight_map", Found: fmt.Sprintf("%d files", len(shards)), Want: fmt.Sprintf("at most %d", maxShards), Do: "is this an index?"}
	}
	if err := c.present(index, shards); err != nil {
		return nil, err
	}
	for _, shard := range shards {
		if err := c.openShard(inv, shard, shardOf); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(shardOf)) {
		if _, ok := inv.at[name]; !ok {
			return nil, &inputerr.Error{File: index, Field: "weight_map[" + inputerr.Clip(name, 80) + "]", Found: "a tensor that " + inputerr.Clip(shardOf[name], 80) + " does not hold",
				Want: "the file that holds it", Do: "index and files belong to different versions: download both again"}
		}
	}
	return inv, nil
}

// present names all shards that are not there, before any is opened.
func (c *Checkpoint) present(index string, shards []string) error {
	var gone []string
	for _, s := range shards {
		if !c.dir.has(s) {
			gone = append(gone, s)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	more := ""
	if len(gone) > 3 {
		more = fmt.Sprintf(" and %d more", len(gone)-3)
	}
	return &inputerr.Error{File: index, Field: "weight_map", Found: fmt.Sprintf("%d of %d files missing: %s%s", len(gone), len(shards), strings.Join(gone[:min(len(gone), 3)], ", "), more),
		Want: "all of them in the folder", Do: "the download is not complete: download the missing files"}
}

// openShard opens one file and enters its tensors. shardOf is nil when there is no index.
func (c *Checkpoint) openShard(inv *inventory, name string, shardOf map[string]string) error {
	f, err := c.dir.mapShard(name)
	if err != nil {
		return err
	}
	c.shards = append(c.shards, f)
	tensors := f.Tensors()
	for i := range tensors {
		t := &tensors[i]
		field := "tensor " + inputerr.Clip(t.Name, 120)
		if other, dup := inv.at[t.Name]; dup {
			return &inputerr.Error{File: f.Path(), Field: field, Found: "the tensor in " + other.file + " too", Want: "it in one file",
				Do: "files of different versions are mixed: download the checkpoint again"}
		}
		switch want, listed := shardOf[t.Name]; {
		case shardOf == nil || listed && want == name:
		case !listed:
			return &inputerr.Error{File: f.Path(), Field: field, Found: "a tensor that the index does not list", Want: "an entry in " + indexFile,
				Do: "index and files belong to different versions: download both again"}
		default:
			return &inputerr.Error{File: f.Path(), Field: field, Found: "a tensor that the index places in " + inputerr.Clip(want, 80), Want: "it in that file only",
				Do: "index and files belong to different versions: download both again"}
		}
		inv.at[t.Name] = place{t: t, file: f.Path()}
	}
	return nil
}

// noWeights explains a folder with a config and nothing to read.
func (c *Checkpoint) noWeights() error {
	e := &inputerr.Error{File: c.dir.label, Found: "config.json and no weights", Want: singleFile + " or " + indexFile, Do: "download the safetensors files too"}
	entries, err := fs.ReadDir(c.dir.fsys, ".")
	if err != nil {
		return unreadable(c.dir.label, err)
	}
	for _, entry := range entries {
		name := strings.ToLower(entry.Name())
		switch {
		case strings.HasSuffix(name, ".safetensors"):
			e.Found = "the weights " + inputerr.Clip(entry.Name(), 60) + " and no index"
			e.Do = "rename a single file to " + singleFile + ", or download the index of several"
			return e
		case strings.HasSuffix(name, ".gguf"), strings.HasSuffix(name, ".bin"), strings.HasSuffix(name, ".pt"):
			e.Found = "config.json and " + inputerr.Clip(entry.Name(), 60)
			e.Do = "sibyl reads safetensors only: download or convert the weights"
			return e
		}
	}
	return e
}
