// Command gen reduces the bit goldens of the Core AI contracts to digests, testdata/contracts/SET.json.
//
//	go run ./testdata/contracts/gen SOURCE
//
// SOURCE holds goldens/ and opticks-2m/ with zoo.safetensors (contract coreai-eager and its recorded variants) and
// graph.safetensors (coreai-fp16); zoo.json and graph.json there say how they were made. These contracts promise every
// bit, so a sha256 of each tensor says as much as its 30 MB. Left out: *.f32acc.* (a library's own accumulation order)
// and quant.* (package quant holds them). Running it again changes nothing.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
)

type tensor struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets []int  `json:"data_offsets,omitempty"`
	SHA256  string `json:"sha256"`
	IDs     []int  `json:"ids,omitempty"` // small I32 tensors whole
}

type set struct {
	Source  map[string]string            `json:"source_sha256"`
	Prompts map[string][]int             `json:"prompts"`
	Tensors map[string]map[string]tensor `json:"tensors"` // by file: zoo, graph
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: gen SOURCE")
	}
	dirs, err := filepath.Glob(filepath.Join(os.Args[1], "goldens", "tiny-*"))
	if err != nil {
		log.Fatal(err)
	}
	runtimes(os.Args[1])
	for _, dir := range append(dirs, filepath.Join(os.Args[1], "opticks-2m")) {
		s := set{Source: map[string]string{}, Prompts: map[string][]int{}, Tensors: map[string]map[string]tensor{}}
		for _, file := range []string{"zoo", "graph"} {
			b, err := os.ReadFile(filepath.Join(dir, file+".safetensors"))
			if err != nil {
				continue // not every set has both
			}
			s.Source[file] = sum(b)
			s.Tensors[file] = digests(b)
			var head struct {
				Prompts map[string][]int `json:"prompts"`
			}
			j, err := os.ReadFile(filepath.Join(dir, file+".json"))
			if err != nil {
				log.Fatal(err)
			}
			if err := json.Unmarshal(j, &head); err != nil {
				log.Fatal(err)
			}
			for k, v := range head.Prompts {
				s.Prompts[k] = v
			}
		}
		out, err := json.MarshalIndent(s, "", " ")
		if err != nil {
			log.Fatal(err)
		}
		path := filepath.Join("testdata", "contracts", filepath.Base(dir)+".json")
		if err := os.WriteFile(path, append(out, '\n'), 0o644); err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(out), path)
	}
}

// runtimes reduces aimodel-samples/*/runtime.safetensors, made by Apple's own CPU runtime, to runtime.json.
func runtimes(source string) {
	files, err := filepath.Glob(filepath.Join(source, "aimodel-samples", "*", "runtime.safetensors"))
	if err != nil {
		log.Fatal(err)
	}
	all := map[string]map[string]tensor{}
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f))
		b, err := os.ReadFile(f)
		if err != nil {
			log.Fatal(err)
		}
		all[name] = digests(b)
	}
	out, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", "contracts", "runtime.json"), append(out, '\n'), 0o644); err != nil {
		log.Fatal(err)
	}
}

func digests(b []byte) map[string]tensor {
	n := binary.LittleEndian.Uint64(b)
	var head map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &head); err != nil {
		log.Fatal(err)
	}
	out := map[string]tensor{}
	for name, raw := range head {
		if name == "__metadata__" || strings.Contains(name, ".f32acc.") || strings.HasPrefix(name, "quant.") {
			continue
		}
		var t tensor
		if err := json.Unmarshal(raw, &t); err != nil {
			log.Fatal(err)
		}
		x := b[8+int(n)+t.Offsets[0] : 8+int(n)+t.Offsets[1]]
		t.Offsets, t.SHA256 = nil, sum(x)
		if t.DType == "I32" {
			for ; len(x) > 0; x = x[4:] {
				t.IDs = append(t.IDs, int(int32(binary.LittleEndian.Uint32(x))))
			}
		}
		out[name] = t
	}
	return out
}

func sum(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
