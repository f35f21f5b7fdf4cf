// Command gen copies the golden sets into testdata/goldens and writes manifest.json.
//
//	go run ./testdata/goldens/gen SOURCE
//
// SOURCE holds goldens/ and opticks-2m/, made by the original implementations (each set's golden.json says how).
// Tensors that no test reads are left out (drop below); everything else is copied byte for byte. Running it
// again changes nothing.
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
	"regexp"
	"sort"
	"strings"
)

// drop: tensors of golden.safetensors that are left out, and why.
var drop = []struct {
	set string
	re  *regexp.Regexp
	why string
}{
	{"opticks-2m", regexp.MustCompile(`^(passage|p40)\.int\d_head`), "whole logits of fake-quantized variants; golden.json keeps their flip positions"},
}

type entry struct {
	File           string   `json:"file"`
	SHA256         string   `json:"sha256"`
	OriginalSHA256 string   `json:"original_sha256,omitempty"`
	LeftOut        []string `json:"left_out,omitempty"`
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: gen SOURCE")
	}
	src, dst := os.Args[1], filepath.Join("testdata", "goldens")
	var out []entry
	sets, err := filepath.Glob(filepath.Join(src, "goldens", "*"))
	if err != nil {
		log.Fatal(err)
	}
	for _, set := range append(sets, filepath.Join(src, "opticks-2m")) {
		name := filepath.Base(set)
		if name == "gen" || name == "quant-edge" || name == "bf16-modules" {
			continue
		}
		files, err := os.ReadDir(set)
		if err != nil {
			log.Fatal(err)
		}
		for _, f := range files {
			keep := f.Name() == "golden.json" || f.Name() == "golden.safetensors" || f.Name() == "config.json" ||
				strings.HasPrefix(f.Name(), "model")
			if name == "opticks-2m" { // the model itself is internal/demo
				keep = strings.HasPrefix(f.Name(), "golden.")
			}
			if keep {
				out = append(out, copyFile(filepath.Join(set, f.Name()), filepath.Join(dst, name, f.Name()), name))
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].File < out[j].File })
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		log.Fatal(err)
	}
	write(filepath.Join(dst, "manifest.json"), append(b, '\n'))
}

func copyFile(from, to, set string) entry {
	b, err := os.ReadFile(from)
	if err != nil {
		log.Fatal(err)
	}
	e := entry{File: filepath.ToSlash(strings.TrimPrefix(to, filepath.Join("testdata", "goldens")+string(filepath.Separator)))}
	orig := sum(b)
	if strings.HasSuffix(from, "golden.safetensors") {
		b, e.LeftOut = subset(b, set)
	}
	e.SHA256 = sum(b)
	if e.SHA256 != orig {
		e.OriginalSHA256 = orig
	}
	write(to, b)
	return e
}

// subset rewrites a safetensors file without the dropped tensors, the others in their order.
func subset(b []byte, set string) ([]byte, []string) {
	n := binary.LittleEndian.Uint64(b)
	var head map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &head); err != nil {
		log.Fatal(err)
	}
	type tensor struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	var names, left []string
	ts := map[string]tensor{}
	for k, raw := range head {
		if k == "__metadata__" {
			continue
		}
		var t tensor
		if err := json.Unmarshal(raw, &t); err != nil {
			log.Fatal(err)
		}
		dropped := false
		for _, d := range drop {
			dropped = dropped || d.set == set && d.re.MatchString(k)
		}
		if dropped {
			left = append(left, k)
			continue
		}
		ts[k] = t
		names = append(names, k)
	}
	if len(left) == 0 {
		return b, nil
	}
	sort.Strings(left)
	sort.Slice(names, func(i, j int) bool { return ts[names[i]].Offsets[0] < ts[names[j]].Offsets[0] })
	var data []byte
	h := map[string]any{}
	if m, ok := head["__metadata__"]; ok {
		h["__metadata__"] = m
	}
	for _, k := range names {
		t := ts[k]
		x := b[8+int(n)+t.Offsets[0] : 8+int(n)+t.Offsets[1]]
		t.Offsets = [2]int{len(data), len(data) + len(x)}
		data = append(data, x...)
		h[k] = t
	}
	j, err := json.Marshal(h)
	if err != nil {
		log.Fatal(err)
	}
	for len(j)%8 != 0 {
		j = append(j, ' ')
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(j))), j...), data...), left
}

func sum(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }

func write(path string, b []byte) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(b), path)
}
