// Command accuracy measures docs/accuracy.md: every engine of this build against the original implementation's recorded
// numbers in testdata, held to the bounds it prints. No figure of the document is typed by hand but the quoted ones,
// which it names as such. The exit code is 1 if a figure misses its bound.
//
//	go run ./internal/accuracy -o docs/accuracy.md
//
// SIBYL_TOKENIZER_DATA is the folder of the real vocabularies (.ci/fetch-tokenizers); without it those rows say that
// they were not measured.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
)

func main() {
	out := flag.String("o", "", "write the document to this file instead of standard output")
	only := flag.String("only", "", "measure this section alone (metal, graph, ...), to look at it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r := &report{}
	if err := measure(ctx, r, *only); err != nil {
		fmt.Fprintln(os.Stderr, "accuracy:", err)
		os.Exit(2)
	}
	text := r.document()
	if *out == "" {
		os.Stdout.Write(text)
	} else if err := os.WriteFile(*out, text, 0o666); err != nil {
		fmt.Fprintln(os.Stderr, "accuracy:", err)
		os.Exit(2)
	}
	for _, f := range r.failed {
		fmt.Fprintln(os.Stderr, "accuracy: beyond its bound:", f)
	}
	if len(r.failed) > 0 {
		os.Exit(1)
	}
}

// measure fills the report, section by section; only, if not empty, is the one that is wanted.
func measure(ctx context.Context, r *report, only string) error {
	for _, s := range []struct {
		name string
		run  func(context.Context, *report) error
	}{
		{"taps", taps}, {"long", long}, {"edge", edge}, {"rms", rmsToFloat64}, {"float64", float64Row},
		{"greedy ids", ids}, {"tokenizer", tokens}, {"gate", gate}, {"hashes", hashes}, {"bundles", bundles},
		{"graph", graphs}, {"shipped", shipped}, {"metal", metalKernels},
	} {
		if only != "" && s.name != only {
			continue
		}
		fmt.Fprintln(os.Stderr, "accuracy: measuring", s.name)
		if err := s.run(ctx, r); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

const preface = `# Accuracy

Measured by ` + "`make accuracy`" + ` (` + "`go run ./internal/accuracy -o docs/accuracy.md`" + `); nothing here is typed by hand but
the quoted figures, which are marked. A share is the largest difference divided by the bound: 1 would just pass. The
references are recorded outputs of Hugging Face transformers (testdata/goldens; each set's golden.json names the version
and the generator). *exact* and *fast* are the two arithmetics of the CPU engine under hf-fp32; *fp64* is the float64
engine that shares no arithmetic with it.

`

// machine says where the times and the fast figures come from; the exact figures are the same everywhere.
func machine() string {
	return fmt.Sprintf("Measured with %s on %s/%s, %d cores.\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
}
