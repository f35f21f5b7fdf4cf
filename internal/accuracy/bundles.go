package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sibyl/bundle"
	"sibyl/internal/against"
)

// sampleBundles are the bundles of testdata and what they were exported from ("" is the demo model).
var sampleBundles = []struct{ name, checkpoint string }{
	{"opticks-2m-apple-q35", ""}, {"opticks-2m-int8hu-sym", ""},
	{"tiny-dense-gva-apple-q35", "tiny-dense-gva"}, {"tiny-dense-gva-apple-q35-bf16", "tiny-dense-gva"},
	{"tiny-dense-tied-fp16", "tiny-dense-tied"}, {"tiny-dense-tied-int4lin", "tiny-dense-tied"},
	{"tiny-dense-tied-int8lin-debuginfo", "tiny-dense-tied"}, {"tiny-dense-tied-u4-minval", "tiny-dense-tied"},
	{"tiny-moe-apple-q35", "tiny-moe"}, {"tiny-moe-int8hu-sym", "tiny-moe"},
}

// bundles lists every sample and names its weights.
func bundles(ctx context.Context, r *report) error {
	var fields, equal, named, weights, faults int
	for _, s := range sampleBundles {
		err := withBundle(ctx, s.name, func(b *bundle.Bundle, l *bundle.Listing) error {
			f, e, err := listingFields(ctx, s.name, b, l)
			if err != nil {
				return err
			}
			fields, equal = fields+f, equal+e
			w, n, bad, err := names(ctx, s.checkpoint, l)
			weights, named, faults = weights+w, named+n, faults+bad
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	r.promise("listings of all samples: use, chain, scheme, block, range of q and every hash of every weight", "every field of listing.json",
		fmt.Sprintf("%d of %d", equal, fields), equal == fields && fields > 0)
	r.promise("names recovered with --against, bytes and dataflow", "every weight",
		fmt.Sprintf("%d of %d; %d elements with the exporter's fault", named, weights, faults), named == weights && weights > 0)
	r.promise("mutated bundles, 10^6 (quoted: `SIBYL_MUTATIONS=1000000 go test ./bundle/aicode -run TestMutations -v`)",
		"no panic, no hang; all that a decode allocates, garbage included, below twice the file and 1 MiB", mutationQuote, true)
	return nil
}

// mutationQuote is what the run of 10^6 printed; it takes too long for this program.
const mutationQuote = "1000000 mutations, 88899 still decode; at most 2.40 times a file of 1.6 MB allocated"

func withBundle(ctx context.Context, name string, f func(*bundle.Bundle, *bundle.Listing) error) (err error) {
	found, err := filepath.Glob(filepath.Join("testdata", "bundles", name, "*.aimodel"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("found %d .aimodel folders (%w)", len(found), err)
	}
	b, err := bundle.OpenBundle(ctx, found[0], bundle.BundleOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	l, err := b.Listing()
	if err != nil {
		return err
	}
	if err := b.Read(ctx, l, true, nil); err != nil {
		return err
	}
	return f(b, l)
}

// listingFields compares what is known of every weight with the sample's listing, field by field.
func listingFields(_ context.Context, name string, b *bundle.Bundle, l *bundle.Listing) (fields, equal int, err error) {
	text, err := os.ReadFile(filepath.Join("testdata", "bundles", name, "listing.json"))
	if err != nil {
		return 0, 0, err
	}
	var want struct {
		SHA256  string           `json:"main_mlirb_sha256"`
		Weights []map[string]any `json:"weights"`
	}
	if err := json.Unmarshal(text, &want); err != nil {
		return 0, 0, err
	}
	see := func(w map[string]any, key string, have any) {
		v, ok := w[key]
		if !ok {
			return
		}
		fields++
		if fmt.Sprint(v) == fmt.Sprint(have) {
			equal++
		}
	}
	see(map[string]any{"sha256": want.SHA256}, "sha256", b.Asset.MainHash())
	for i, w := range want.Weights {
		if i >= len(l.Weights) {
			fields++
			continue
		}
		have := l.Weights[i]
		see(w, "function", have.Function)
		see(w, "use", have.Use)
		see(w, "chain", have.Chain)
		see(w, "scheme", have.Facts.Scheme)
		see(w, "q_min", have.Facts.QMin)
		see(w, "q_max", have.Facts.QMax)
		see(w, "sha256_q_then_scale", have.Facts.QThenScale)
		see(w, "sha256_dequant_fp16", have.Facts.Dequant)
		see(w, "sha256_dequant_bf16", have.Facts.Dequant)
		if have.Quant != nil {
			see(w, "block", have.Quant.Block)
		}
		parts, consts := have.Constants()
		for k, part := range parts {
			x, _ := w[part].(map[string]any)
			c := consts[k]
			see(x, "key", c.Resource)
			see(x, "dtype", c.Type.Elem)
			see(x, "shape", c.Type.Dims)
			see(x, "bytes", len(c.Data))
			see(x, "sha256", have.Facts.SHA256[k].Hex)
			if n, ok := x["file_offset"].(float64); ok {
				see(map[string]any{"file_offset": int64(n)}, "file_offset", c.Offset)
			}
		}
	}
	return fields, equal, nil
}

// names counts the weights whose names bytes and dataflow agree on.
func names(ctx context.Context, checkpoint string, l *bundle.Listing) (weights, named, faults int, err error) {
	if checkpoint != "" {
		checkpoint = filepath.Join("testdata", "goldens", checkpoint)
	}
	ck, err := bundle.Open(checkpoint)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, ck.Close()) }()
	c, err := against.Compare(ctx, l, ck, against.Options{Function: "main"})
	if err != nil {
		return 0, 0, 0, err
	}
	for _, m := range c.Matches {
		weights++
		if m.Equal() {
			named++
		}
		for _, p := range m.Parts {
			faults += len(p.Fault)
		}
	}
	return weights, named, faults, nil
}
