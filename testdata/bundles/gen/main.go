// Command gen copies the sample bundles into testdata/bundles and writes manifest.json.
//
//	go run ./testdata/bundles/gen SOURCE
//
// SOURCE holds a folder per sample: bundles of the checkpoints in testdata/goldens and internal/demo, exported on Linux
// with coreai-core 1.0.0b3, coreai-torch 0.4.3 and coreai-opt 0.3.0 (the apple-q35 ones by Apple's public exporter).
// Beside each .aimodel: listing.json, what inspect must find, from a reader held op by op against Apple's own print;
// runtime.safetensors, logits and states of Apple's CPU runtime. quantizer.json is in testdata/quant; ir.txt is left out.
// Everything is copied byte for byte; running it again changes nothing.
//
// tiny-moe-fp16 is none of them: plain experts, which the exporter stores as their transposes. Its files stay as they are
// and are listed too. It was made with the same program and packages that made the others of its kind
// (gen.py testdata/goldens/tiny-moe fp16 OUT --name tiny-moe-fp16), and runtime.safetensors, Apple's CPU runtime on the
// prompt p17 of that golden, token by token, then 16 greedy ones.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
)

type entry struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: gen SOURCE")
	}
	src, dst := os.Args[1], filepath.Join("testdata", "bundles")
	var out []entry
	for _, name := range []string{"tiny-moe-fp16"} {
		files, err := listed(dst, name)
		if err != nil {
			log.Fatal(err)
		}
		out = append(out, files...)
	}
	err := filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == "gen" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.Contains(filepath.ToSlash(rel), "/") || d.Name() == "ir.txt" || d.Name() == "quantizer.json" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		out = append(out, entry{filepath.ToSlash(rel), hex.EncodeToString(sum[:])})
		return write(filepath.Join(dst, rel), b)
	})
	if err != nil {
		log.Fatal(err)
	}
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		log.Fatal(err)
	}
	if err := write(filepath.Join(dst, "manifest.json"), append(b, '\n')); err != nil {
		log.Fatal(err)
	}
}

// listed is a folder's files as they are.
func listed(dst, name string) (out []entry, err error) {
	err = filepath.WalkDir(filepath.Join(dst, name), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dst, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		out = append(out, entry{filepath.ToSlash(rel), hex.EncodeToString(sum[:])})
		return nil
	})
	return out, err
}

func write(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
