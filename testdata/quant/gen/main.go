// Command gen writes testdata/quant: what the field's own quantizer (coreai-opt 0.3.0) made of the golden
// checkpoints and of the demo model, as hashes, and the tensors of quant-edge as they are.
//
//	go run ./testdata/quant/gen SOURCE
//
// SOURCE holds goldens/ (zoo.json of each set, quant-edge) and aimodel-samples/ (quantizer.json of each), made by the
// original implementations; their READMEs say how. Everything but hashes, shapes and names is left out. Running it
// again changes nothing.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sort"
)

// file is an entry of manifest.json.
type file struct {
	File           string `json:"file"`
	SHA256         string `json:"sha256"`
	Original       string `json:"original"`
	OriginalSHA256 string `json:"original_sha256"`
}

// zoo is the part of zoo.json that is kept.
type zoo struct {
	Quantization map[string]string `json:"quantization"`
	Quantized    map[string]struct {
		Tensors map[string]struct {
			QShape     []int  `json:"q_shape"`
			ScaleShape []int  `json:"scale_shape"`
			QMin       int    `json:"q_min"`
			QMax       int    `json:"q_max"`
			QScale     string `json:"sha256_q_then_scale"`
			Dequant    string `json:"sha256_dequant_fp16"`
		} `json:"tensors"`
		FP16 []string `json:"fp16"`
	} `json:"quantized"`
	FP16Weights map[string]struct {
		Shape  []int  `json:"shape"`
		SHA256 string `json:"sha256"`
	} `json:"fp16_weights_sha256"`
}

// hashed is one array of quantizer.json.
type hashed struct {
	DType  string `json:"dtype"`
	Shape  []int  `json:"shape"`
	SHA256 string `json:"sha256"`
}

// sample is a tensor of quantizer.json. zero_point is left out: it is all zeros.
type sample struct {
	Data   hashed  `json:"quantized_data"`
	Scale  hashed  `json:"scale"`
	Min    *hashed `json:"minval,omitempty"`
	QScale string  `json:"sha256_q_then_scale"`
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: gen SOURCE")
	}
	src, dst := os.Args[1], filepath.Join("testdata", "quant")
	var out []file
	put := func(original, name string, from, to []byte) {
		check(os.WriteFile(filepath.Join(dst, name), to, 0o644))
		rel, err := filepath.Rel(src, original)
		check(err)
		out = append(out, file{name, sum(to), filepath.ToSlash(rel), sum(from)})
	}
	for _, original := range glob(src, "goldens", "*", "zoo.json") {
		from, err := os.ReadFile(original)
		check(err)
		var z zoo
		check(json.Unmarshal(from, &z))
		put(original, filepath.Base(filepath.Dir(original))+".zoo.json", from, text(z))
	}
	for _, original := range glob(src, "aimodel-samples", "*", "quantizer.json") {
		from, err := os.ReadFile(original)
		check(err)
		var q map[string]sample
		check(json.Unmarshal(from, &q))
		if len(q) > 0 {
			put(original, filepath.Base(filepath.Dir(original))+".quantizer.json", from, text(q))
		}
	}
	for _, original := range glob(src, "goldens", "quant-edge", "quant_edge.*") {
		from, err := os.ReadFile(original)
		check(err)
		put(original, filepath.Base(original), from, from)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].File < out[j].File })
	check(os.WriteFile(filepath.Join(dst, "manifest.json"), text(out), 0o644))
}

func glob(parts ...string) []string {
	found, err := filepath.Glob(filepath.Join(parts...))
	check(err)
	if len(found) == 0 {
		log.Fatalf("nothing at %s", filepath.Join(parts...))
	}
	return found
}

// text is JSON without needless space; maps come out sorted.
func text(v any) []byte {
	b, err := json.Marshal(v)
	check(err)
	return append(bytes.ReplaceAll(b, []byte(`},"`), []byte("},\n\"")), '\n')
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func check(err error) {
	if err != nil {
		log.Fatal(fmt.Errorf("gen: %w", err))
	}
}
