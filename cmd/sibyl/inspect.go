package main

import (
	"context"
	"io"

	"sibyl/bundle"
	"sibyl/internal/inputerr"
)

// Inspect shows what is in a checkpoint, a bundle or a trace file.
type Inspect struct {
	Model   string `arg:"" optional:"" name:"MODEL" help:"A checkpoint, a bundle, or a trace file; left out, the demo model."`
	Tensors bool   `help:"List every tensor; the default folds those of one role."`
	Hash    bool   `help:"Compute the sha256 of the weights (reads all of them); of a quantized checkpoint, compare q and scales with their record."`
	Scan    *bool  `negatable:"" help:"Look for NaN and Inf in the weights, which reads all of them (on by itself for a checkpoint of up to 256 MiB)."`
	Against string `placeholder:"CHECKPOINT" help:"Hold every weight of a bundle against the checkpoint it was made from (demo: the demo model)."`
	JSON
}

// Help is the part of the help below the flags.
func (*Inspect) Help() string {
	return `Sizes are as stored. "per token" is what decoding one token must read. Of a checkpoint that sibyl
quantized, --tensors and --json show each weight's sha256 of q followed by its scales.
A NaN, an Inf, and weights or a trace whose bytes do not match their hash are exit code 1. Only headers
are read of a checkpoint of more than 256 MiB, and the last line says so: --scan and --hash read it all.

Of a bundle: functions with inputs, states and outputs, every weight by the name its place in the graph
gives it, scheme, block, range of q, and what contradicts name or metadata. Up to 1 GiB the bytes are
read and main.hash is verified; a larger one is listed at once and read with --scan or --hash. Hashes are
in --json and --tensors, of more than 256 MiB only with --hash. --against quantizes the checkpoint's
tensors again: names by matching bytes, folded constants by their formulas, and by how much the rest
differs (exit 1).

Examples:

    sibyl inspect
    sibyl inspect --tensors --hash
    sibyl inspect --json
    sibyl inspect ./opticks_int8hu
    sibyl inspect ./opticks_int8hu --against demo`
}

// inspection is what --json prints for a checkpoint.
type inspection struct {
	Name          string         `json:"name"`
	Kind          string         `json:"kind"`
	Path          string         `json:"path,omitempty"`
	Config        configInfo     `json:"config"`
	ConfigSHA256  string         `json:"config_sha256"`
	WeightsSHA256 string         `json:"weights_sha256,omitempty"`
	Parameters    int64          `json:"parameters"`
	Bytes         int64          `json:"bytes"`
	BytesPerToken int64          `json:"bytes_per_token"`
	Quantization  *quantInfo     `json:"quantization,omitempty"`
	Groups        []groupInfo    `json:"groups"`
	Tensors       []tensorInfo   `json:"tensors"`
	Unused        []tensorInfo   `json:"unused"`
	NonFinite     []nonFinite    `json:"non_finite"` // null: not looked for (--scan does it)
	Findings      []string       `json:"findings"`   // what does not match
	dtypes        map[string]int // bytes by dtype, without A_log and the gated norm
}

// groupInfo is the size of a part of the model.
type groupInfo struct {
	Name     string `json:"name"`
	Bytes    int64  `json:"bytes"`
	PerToken int64  `json:"bytes_per_token"`
	Q        int64  `json:"q_bytes,omitempty"`
	Scales   int64  `json:"scale_bytes,omitempty"` // minvals included
}

// tensorInfo is one tensor, or, folded, all of one role.
type tensorInfo struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
	Bytes int64  `json:"bytes"`
	File  string `json:"file"`
	*quantizedTensor
	role  string
	group bundle.Group
}

// nonFinite counts what is no number in a tensor.
type nonFinite struct {
	Tensor string `json:"tensor"`
	NaN    int64  `json:"nan"`
	Inf    int64  `json:"inf"`
}

// quickScan is up to which size a checkpoint's weights are looked at for NaN and Inf unasked: what costs tens of milliseconds
// from memory. More would make every look at a header a read of the whole model.
const quickScan = 256 << 20

// scans says whether so many bytes are read to look at them: if asked, and unasked up to limit.
func (v *Inspect) scans(bytes, limit int64) bool {
	if v.Scan != nil {
		return *v.Scan
	}
	return bytes <= limit
}

// Run is the verb.
func (v *Inspect) Run(ctx context.Context, a *App) (err error) {
	if ref, ok, err := bundleModel(v.Model); err != nil {
		return err
	} else if ok {
		return v.bundle(ctx, a, ref)
	}
	if err := v.checkAgainst(); err != nil {
		return err
	}
	s, err := a.subject(v.Model)
	if err != nil {
		return err
	}
	if s.Trace != "" && v.Hash {
		return &inputerr.Error{File: s.Trace, Field: "--hash", Found: "a trace file", Want: "a checkpoint", Do: "leave it out: a trace's data is always compared with its hash"}
	}
	if s.Trace != "" {
		return inspectTrace(a, s.Trace, v.JSON.JSON, v.Tensors)
	}
	ref, err := bundle.Resolve(s.Model)
	if err != nil {
		return err
	}
	c, err := bundle.Open(s.Model)
	if err != nil {
		return err
	}
	defer closing(c, &err)
	r := &inspection{Name: c.Name(), Kind: ref.Kind.String(), Path: ref.Path, Config: describeConfig(c.Config()),
		ConfigSHA256: c.ConfigSHA256(), Unused: []tensorInfo{}, Findings: []string{}, dtypes: map[string]int{}}
	if err := r.weights(c); err != nil {
		return err
	}
	r.quantization(c)
	if v.Hash {
		if err := r.hash(ctx, c, a); err != nil {
			return err
		}
	}
	if v.scans(r.Bytes, quickScan) {
		if err := r.scan(ctx, c, a); err != nil {
			return err
		}
	}
	r.findings()
	if err := a.Emit(v.JSON.JSON, r, func(w io.Writer) error { return r.render(w, v.Tensors) }); err != nil {
		return err
	}
	if len(r.NonFinite) > 0 || r.Quantization != nil && r.Quantization.Record == recordDiffers {
		return statusError(exitMismatch)
	}
	return nil
}
