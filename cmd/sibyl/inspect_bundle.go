package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/internal/inputerr"
)

// bundleInspection is what --json prints for a bundle.
type bundleInspection struct {
	Name          string         `json:"name"`
	Kind          string         `json:"kind"`
	Path          string         `json:"path"`
	Profile       string         `json:"profile"`            // "" where the graph is of no known one
	Contract      string         `json:"contract,omitempty"` // of the profile
	Language      *languageInfo  `json:"language,omitempty"` // metadata.json of a LanguageBundle
	Asset         assetInfo      `json:"asset"`
	MainHash      string         `json:"main_hash"` // hashMatches, hashDiffers or hashUnread
	Functions     []functionInfo `json:"functions"`
	Parameters    int64          `json:"parameters"`
	Bytes         int64          `json:"bytes"`
	BytesPerToken int64          `json:"bytes_per_token"`
	Groups        []groupInfo    `json:"groups"`
	Weights       []weightInfo   `json:"weights"`
	Against       *againstInfo   `json:"against,omitempty"`
	Resources     []resourceInfo `json:"resources"`
	Findings      []string       `json:"findings"`
	listing       *bundle.Listing
	totals        *bundle.Totals
	read          bool
}

// What is known of main.hash.
const (
	hashUnread  = "not compared"
	hashMatches = "matches"
	hashDiffers = "differs"
)

// languageInfo is a LanguageBundle's metadata.
type languageInfo struct {
	Name             string              `json:"name"`
	Tokenizer        string              `json:"tokenizer"`
	Vocab            int                 `json:"vocab_size"`
	MaxContext       int                 `json:"max_context_length"`
	Compression      string              `json:"compression"`
	Functions        map[string][]string `json:"function_map"`
	States           map[string]string   `json:"states,omitempty"`
	PrefillChunk     int                 `json:"prefill_chunk_size,omitempty"`
	PrefillThreshold int                 `json:"prefill_chunk_threshold,omitempty"`
	ModelID          string              `json:"hf_model_id,omitempty"`
	Revision         string              `json:"hf_revision,omitempty"`
}

// assetInfo is an .aimodel.
type assetInfo struct {
	Name         string   `json:"name"`
	Producer     string   `json:"producer"`
	AssetVersion string   `json:"asset_version"`
	Created      string   `json:"creation_date"`
	Bytes        int64    `json:"main_mlirb_bytes"`
	SHA256       string   `json:"main_mlirb_sha256,omitempty"` // as main.hash says
	Bytecode     uint64   `json:"bytecode_version"`
	Writer       string   `json:"bytecode_producer"`
	Dialect      string   `json:"aicode_dialect_version"`
	Format       uint64   `json:"format_version"` // the least that the operations need
	Resources    int      `json:"resources"`
	Compiled     []string `json:"compiled,omitempty"`
}

// functionInfo is a graph's signature.
type functionInfo struct {
	Name      string     `json:"name"`
	Private   bool       `json:"private"`
	Composite string     `json:"composite,omitempty"`
	Inputs    []portInfo `json:"inputs"`
	States    []portInfo `json:"states,omitempty"`
	Outputs   []portInfo `json:"outputs"`
	Ops       int        `json:"ops"`
}

type portInfo struct {
	Name  string  `json:"name"`
	DType string  `json:"dtype"`
	Shape []int64 `json:"shape"` // -1 is dynamic
}

// resourceInfo is a blob of the file: all that can be listed where the rest is not known.
type resourceInfo struct {
	Key    string `json:"key"`
	Offset int64  `json:"file_offset"`
	Align  int64  `json:"alignment"`
	Bytes  int    `json:"bytes"`
}

// quickBytes is up to which size a bundle's bytes are read without being asked for: main.hash, ranges of q, NaN and Inf.
const quickBytes = 1 << 30

// quickHash is up to which size every weight is hashed where hashes are shown: that takes several times as long as reading.
const quickHash = 256 << 20

// bundle inspects a LanguageBundle or an .aimodel.
func (v *Inspect) bundle(ctx context.Context, a *App, ref bundle.Ref) (err error) {
	b, err := bundle.OpenBundle(ctx, ref.Path, bundle.BundleOptions{SkipHash: true})
	if err != nil {
		return err
	}
	defer closing(b, &err)
	r := &bundleInspection{Name: b.Name(), Kind: ref.Kind.String(), Path: ref.Path, MainHash: hashUnread, Findings: []string{}}
	r.read = v.Hash || v.Against != "" || v.scans(b.Asset.Size(), quickBytes)
	r.describe(b)
	if r.read && b.Asset.Bytes() != nil {
		if err := r.verify(ctx, a, b, a.noVerify); err != nil {
			return err
		}
	}
	if err := r.program(b); err != nil {
		return r.partly(a, v.JSON.JSON, err)
	}
	hashes := v.Hash || (v.JSON.JSON || v.Tensors) && r.read && b.Asset.Size() <= quickHash
	if r.read {
		if err := b.Read(ctx, r.listing, hashes, a.Progress("reading weights")); err != nil {
			return err
		}
	}
	r.weights()
	r.contradictions(b)
	if v.Against != "" {
		if err := r.against(ctx, a, v.Against); err != nil {
			return err
		}
	}
	if err := a.Emit(v.JSON.JSON, r, func(w io.Writer) error { return r.render(w, v.Tensors, hashes) }); err != nil {
		return err
	}
	if r.broken() {
		return statusError(exitMismatch)
	}
	return nil
}

// verify compares main.hash; what does not match is an error, or with --no-verify a finding.
func (r *bundleInspection) verify(ctx context.Context, a *App, b *bundle.Bundle, noVerify bool) error {
	err := b.Asset.Verify(ctx, a.Progress("hashing main.mlirb"))
	switch {
	case err == nil:
		r.MainHash = hashMatches
		return nil
	case ctx.Err() != nil || !noVerify:
		return err
	}
	r.MainHash = hashDiffers
	told, _, _ := strings.Cut(err.Error(), "; ")
	r.Findings = append(r.Findings, told+" (--no-verify)")
	return nil
}

// describe takes what metadata says.
func (r *bundleInspection) describe(b *bundle.Bundle) {
	as := b.Asset
	r.Asset = assetInfo{Name: as.Name, Producer: as.Producer, AssetVersion: as.AssetVersion, Created: as.CreationDate, Bytes: as.Size(), SHA256: as.MainHash(), Compiled: as.Compiled}
	if l := b.Language; l != nil {
		r.Language = &languageInfo{Name: l.Name, Tokenizer: l.Tokenizer, Vocab: l.VocabSize, MaxContext: l.MaxContext, Compression: l.Compression, Functions: l.Functions,
			States: l.States, PrefillChunk: l.PrefillChunk, PrefillThreshold: l.PrefillThreshold, ModelID: l.ModelID, Revision: l.Revision}
	}
}

// program takes what the program says. A program that cannot be decoded keeps its resources.
func (r *bundleInspection) program(b *bundle.Bundle) error {
	p, err := b.Program()
	if p != nil {
		r.Asset.Bytecode, r.Asset.Writer, r.Asset.Dialect, r.Asset.Format, r.Asset.Resources = p.Bytecode, p.Producer, fmt.Sprintf("%x", p.Dialect), p.AssetVersion, len(p.Resources)
		for _, x := range p.Resources {
			r.Resources = append(r.Resources, resourceInfo{x.Key, x.Offset, x.Align, len(x.Data)})
		}
	}
	if err != nil {
		return err
	}
	for _, g := range p.Graphs {
		r.Functions = append(r.Functions, describeFunction(g))
	}
	if profile, err := b.Profile(); err == nil {
		r.Profile, r.Contract = profile.Name, profile.Contract
	} else {
		told, _, _ := strings.Cut(err.Error(), "; ")
		r.Findings = append(r.Findings, told)
	}
	if r.listing, err = b.Listing(); err != nil {
		return err
	}
	for _, g := range p.Graphs {
		if roles := r.listing.Roles[g.Name]; roles != nil {
			for i, problem := range roles.Problems {
				if i == 3 {
					r.Findings = append(r.Findings, fmt.Sprintf("and %d more places of %s that differ from the family's graph", len(roles.Problems)-i, g.Name))
					break
				}
				r.Findings = append(r.Findings, problem.Error())
			}
		}
	}
	return nil
}

func describeFunction(g *aicode.Graph) functionInfo {
	f := functionInfo{Name: g.Name, Private: g.Private, Composite: g.Composite, Inputs: []portInfo{}, Outputs: []portInfo{}}
	port := func(name string, t *aicode.Type) portInfo {
		return portInfo{name, t.Elem.String(), append([]int64{}, t.Dims...)}
	}
	for _, x := range g.Inputs {
		switch x.Type.Kind {
		case aicode.Handle:
			f.States = append(f.States, port(x.Name, x.Type.Of))
		case aicode.Tensor:
			f.Inputs = append(f.Inputs, port(x.Name, x.Type))
		}
	}
	for _, x := range g.Outputs {
		if x.Type.Kind == aicode.Tensor {
			f.Outputs = append(f.Outputs, port(x.Name, x.Type))
		}
	}
	_ = g.Body.Walk(func(*aicode.Op) error { f.Ops++; return nil }) // it gives no error
	return f
}

// partly prints what could be read of a bundle whose program could not, and gives the error.
func (r *bundleInspection) partly(a *App, asJSON bool, err error) error {
	compiledOnly := len(r.Asset.Compiled) > 0 && r.Asset.Bytes == 0
	if len(r.Resources) == 0 && !compiledOnly {
		return err
	}
	if !compiledOnly {
		r.Findings = append(r.Findings, err.Error())
	}
	if werr := a.Emit(asJSON, r, r.renderParts); werr != nil || compiledOnly {
		return werr // all there is of a compiled model was shown
	}
	return err
}

// bundleModel says whether a MODEL is a bundle, and refuses parts behind it: they choose engines, of which inspect has none.
func bundleModel(text string) (bundle.Ref, bool, error) {
	s, err := ParseSubject(text, pathExists)
	if err != nil {
		return bundle.Ref{}, false, err
	}
	ref, err := bundle.Resolve(s.Model)
	if err != nil || ref.Kind != bundle.LanguageBundle && ref.Kind != bundle.AIModel {
		return ref, false, nil // its errors are told by who opens it
	}
	if s.String() != s.Model {
		return ref, false, &inputerr.Error{File: "subject " + inputerr.Clip(text, 80), Found: "more than a bundle", Want: "the bundle alone", Do: "inspect shows what is stored, whichever engine runs it"}
	}
	return ref, true, nil
}
