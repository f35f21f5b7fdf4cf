// Package refcache keeps on disk what a reference showed, so that the second gate against it need not run it again: a
// folder of small files named by their content's key, each with a checksum that is verified when it is read. An engine
// is wrapped (Store.Wrap); the wrapper is an engine with the same Info and the same answers, bit for bit.
//
// Everything a result depends on is in the key: hashes of weights and config, engine, contract, scheme, arithmetic,
// the calls the ids reach the model in, the ids, and Numerics. A file that is damaged, or is not what its name says,
// is named in a warning, ignored, and written again; it is never trusted. Files are written under a temporary name and
// renamed, so any number of processes may share a folder.
package refcache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/google/renameio/v2/maybe"

	"sibyl/internal/inputerr"
	"sibyl/internal/userfile"
)

// Numerics counts the changes to sibyl's engines that changed a bit of a result. It is part of every key, so that
// results of an older sibyl are not taken for this one's. TestNumerics fails when it must be raised.
const Numerics = 1

// schema names the form of the files.
const schema = "sibyl-refcache/1"

// maxFile bounds what is read or written: the states of a 27B after 10,000 tokens are 1.5 GB.
const maxFile = 4 << 30

// Store is a folder of results. Its methods may be called from several goroutines, and by several processes.
type Store struct {
	dir  string
	warn func(text string)

	mu    sync.Mutex
	stats Stats
}

// Stats counts what was asked of a store.
type Stats struct {
	Known   int // answered from a file
	Run     int // not there: run and written
	Refused int // files that were damaged or foreign
}

// Open opens or makes the folder dir. warn, which may be nil, is told about files that are not trusted and about
// writes that fail; neither ends a run.
func Open(dir string, warn func(text string)) (*Store, error) {
	bad := func(found string, err error) error {
		return &inputerr.Error{File: "--ref-cache", Found: found, Want: "a folder that can be written to", Err: err}
	}
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return nil, bad(fmt.Sprintf("%q, which is no folder", dir), nil)
	case err == nil:
	default:
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, bad("", err)
		}
	}
	if warn == nil {
		warn = func(string) {}
	}
	return &Store{dir: dir, warn: warn}, nil
}

// Stats says what was asked so far.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func (s *Store) count(f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

// key is all that a result depends on, by name.
type key map[string]string

// with is k with more entries.
func (k key) with(more key) key {
	out := maps.Clone(k)
	maps.Copy(out, more)
	return out
}

// header is the first line of a file; the content follows it.
type header struct {
	Schema string `json:"schema"`
	Key    key    `json:"key"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // of the content
}

// path is where the result of k is kept.
func (s *Store) path(k key) string {
	text, _ := json.Marshal(k) // keys sorted; strings always marshal
	sum := sha256.Sum256(text)
	return filepath.Join(s.dir, k["kind"]+"-"+hex.EncodeToString(sum[:16])+".ref")
}

// get gives the content of k's file, if there is one that is whole and is k's.
func (s *Store) get(k key) ([]byte, bool) {
	path := s.path(k)
	f, err := userfile.Open(path)
	if err != nil {
		if !os.IsNotExist(err) {
			s.distrust(path, err.Error())
		}
		return nil, false
	}
	defer f.Close()
	data, err := contents(f, k)
	if err != nil {
		s.distrust(path, err.Error())
		return nil, false
	}
	return data, true
}

// contents reads a file and checks all of it.
func contents(f *os.File, k key) ([]byte, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("found no regular file")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("found %d bytes, want at most %d", info.Size(), int64(maxFile))
	}
	data, err := io.ReadAll(io.LimitReader(f, info.Size()+1))
	if err != nil {
		return nil, err
	}
	line, content, ok := bytes.Cut(data, []byte("\n"))
	var h header
	if !ok || json.Unmarshal(line, &h) != nil || h.Schema != schema {
		return nil, fmt.Errorf("its first line is not a %s header", schema)
	}
	for _, name := range sortedKeys(h.Key, k) {
		if a, b := h.Key[name], k[name]; a != b {
			return nil, fmt.Errorf("it is another result's: %s is %s, want %s", name, inputerr.Clip(a, 80), inputerr.Clip(b, 80))
		}
	}
	if h.Bytes != int64(len(content)) {
		return nil, fmt.Errorf("it is cut: %d bytes of %d", len(content), h.Bytes)
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != h.SHA256 {
		return nil, fmt.Errorf("its content does not have the recorded sha256")
	}
	return content, nil
}

// put writes the content of k; a failure is a warning, since the result itself is right.
func (s *Store) put(k key, content []byte) {
	sum := sha256.Sum256(content)
	line, err := json.Marshal(header{Schema: schema, Key: k, Bytes: int64(len(content)), SHA256: hex.EncodeToString(sum[:])})
	if err == nil && int64(len(content)+len(line)) < maxFile {
		err = maybe.WriteFile(s.path(k), append(append(line, '\n'), content...), 0o644)
	}
	if err != nil {
		s.warn("reference cache: not written: " + err.Error())
	}
}

// distrust names a file that cannot be used.
func (s *Store) distrust(path, why string) {
	s.count(func(t *Stats) { t.Refused++ })
	s.warn(fmt.Sprintf("reference cache: %s: %s; ignored, to be written again", path, why))
}

// memo gives the content of k, which compute makes if it is not there.
func (s *Store) memo(k key, compute func() ([]byte, error)) ([]byte, error) {
	if data, ok := s.get(k); ok {
		return data, nil
	}
	data, err := compute()
	if err == nil {
		s.put(k, data)
	}
	return data, err
}

// sortedKeys are the names in a or b.
func sortedKeys(a, b key) []string {
	all := maps.Clone(b)
	maps.Copy(all, a)
	return sorted(all)
}

// idsKey identifies a list of ids in a key; files hold the list itself besides.
func idsKey(ids []int32) string {
	h := sha256.New()
	var b []byte
	for _, id := range ids {
		b = strconv.AppendInt(b[:0], int64(id), 10)
		h.Write(append(b, ' '))
	}
	return hex.EncodeToString(h.Sum(nil))
}
