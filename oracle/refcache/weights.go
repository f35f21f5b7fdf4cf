package refcache

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sibyl/bundle"
)

// settled is how old a file must be before its size and time stand for its content: one that is written twice within
// the resolution of the file system's clock would look unchanged.
const settled = 2 * time.Second

// WeightsSHA256 is c.WeightsSHA256, computed once for each state of the files: it is kept by their paths, sizes and
// times of change. A checkpoint that does not lie in files (the embedded demo) is hashed each time.
func (s *Store) WeightsSHA256(ctx context.Context, c bundle.Source, progress func(done, total int64)) (string, error) {
	compute := func() ([]byte, error) {
		sum, err := c.WeightsSHA256(ctx, progress)
		return []byte(sum), err
	}
	files, ok := stamps(c)
	if !ok {
		sum, err := compute()
		return string(sum), err
	}
	k := key{"kind": "weights", "config_sha256": c.ConfigSHA256(), "files": files}
	data, err := s.memo(k, compute)
	if err != nil {
		return "", err
	}
	if sum := string(data); len(sum) == 64 && isHex(sum) {
		return sum, nil
	}
	s.distrust(s.path(k), "it does not hold a sha256")
	data, err = compute()
	return string(data), err
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil
}

// stamps lists path, size and time of change of the checkpoint's files; ok is false if one is not a settled file.
func stamps(c bundle.Source) (list string, ok bool) {
	var b strings.Builder
	for _, file := range c.Files() { // none of a file system of another kind, whatever its name is
		path, err := filepath.Abs(file)
		if err != nil {
			return "", false
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < settled {
			return "", false
		}
		fmt.Fprintf(&b, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
	}
	return b.String(), b.Len() > 0
}

// NonFinite is c.NonFinite for weights of a known hash, scanned once.
func (s *Store) NonFinite(ctx context.Context, c bundle.Source, weights string, progress func(done, total int64)) (found []bundle.NonFinite, err error) {
	compute := func() ([]byte, error) {
		found, err := c.NonFinite(ctx, progress)
		if err != nil {
			return nil, err
		}
		return json.Marshal(found)
	}
	k := key{"kind": "nonfinite", "weights_sha256": weights}
	data, err := s.memo(k, compute)
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(data, &found) != nil {
		s.distrust(s.path(k), "it does not hold a list of tensors")
		return c.NonFinite(ctx, progress)
	}
	return found, nil
}

func sorted(m key) []string { return slices.Sorted(maps.Keys(m)) }
