package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"sibyl/bundle"
	"sibyl/internal/inputerr"
	"sibyl/model"
	"sibyl/quant"
)

// Quantize writes a checkpoint whose weights a scheme has quantized.
type Quantize struct {
	Model   string `arg:"" optional:"" name:"MODEL" help:"A checkpoint; left out, the demo model."`
	Scheme  string `required:"" placeholder:"NAME" help:"The scheme (sibyl schemes lists them), or recipe:FILE."`
	Out     string `name:"out" short:"o" placeholder:"DIR" help:"The folder to make."`
	Force   bool   `help:"Replace a checkpoint that sibyl quantized, or an empty folder; nothing else."`
	DryRun  bool   `help:"Print what it would do, with every figure, and write nothing."`
	Shard   string `placeholder:"SIZE" help:"Bytes of weights in a file, at most, such as 4GB (the default)."`
	Tensors bool   `help:"Print a line for every tensor, with the sha256 of q and scales."`
	JSON
}

// Help is the part of the help below the flags.
func (*Quantize) Help() string {
	return `The folder opens as any MODEL; its bits are those of the scheme as a part of a subject. SNR is
10 log10 of sum w^2 over sum (w' - w)^2 against the stored weights, over all weights of a group;
its worst block is the one with the least. It streams: a 27B takes less than 2 GB of memory. The
folder is there in whole or not at all.

Examples:

    sibyl quantize --scheme int4lin --dry-run
    sibyl quantize --scheme int8hu-sym -o demo-int8
    sibyl inspect demo-int8 --hash
    sibyl run demo-int8 "The rays of light"
    sibyl quantize --scheme u4-minval --force -o demo-int8 --json`
}

// Run is the verb.
func (v *Quantize) Run(ctx context.Context, a *App) (err error) {
	if v.Out == "" && !v.DryRun {
		return &inputerr.Error{File: "quantize", Field: "--out", Found: "nothing", Want: "the folder to make", Do: "give -o DIR, or --dry-run to see the figures only"}
	}
	opt := quant.Options{DryRun: v.DryRun, Threads: a.Threads, Force: v.Force}
	if v.Shard != "" {
		if opt.ShardBytes, err = parseSize("--shard", v.Shard); err != nil {
			return err
		}
	}
	s, err := a.subject(v.Model)
	if err != nil {
		return err
	}
	if s.Trace != "" || s.String() != s.Model {
		return &inputerr.Error{File: "subject " + inputerr.Clip(v.Model, 80), Found: "more than a model, or a trace", Want: "a MODEL alone",
			Do: "--scheme says what becomes of its weights; engines, contracts and modes have no part in it"}
	}
	scheme, err := model.LookupScheme(v.Scheme)
	if err != nil {
		return err
	}
	ckpt, err := bundle.Open(s.Model)
	if err != nil {
		return err
	}
	defer closing(ckpt, &err)
	if err := v.checkNeeds(a, ckpt, scheme); err != nil {
		return err
	}
	opt.Progress = a.Progress("quantizing")
	r, err := quant.Write(ctx, ckpt, scheme, v.Out, opt)
	if err != nil {
		return err
	}
	return a.Emit(v.JSON.JSON, r, func(w io.Writer) error { return writeQuantized(w, r, scheme, v.Tensors) })
}

// checkNeeds refuses before any work what will not fit into memory or on the disk.
func (v *Quantize) checkNeeds(a *App, ckpt *bundle.Checkpoint, scheme *quant.Scheme) error {
	n, err := scheme.Needs(ckpt, a.Threads)
	if err != nil {
		return err
	}
	err = a.checkMemory(n.Memory+quantizeBytes, "quantize "+ckpt.Name())
	var in *inputerr.Error
	if errors.As(err, &in) && in.Field == "memory" {
		in.Do = "use fewer threads (-t), or free memory; --memory-limit overrides the limit"
	}
	if err != nil || v.DryRun {
		return err
	}
	return checkDisk(v.Out, n.Disk)
}

// quantizeBytes is the program itself and the pages that are being read.
const quantizeBytes = 96 << 20

// diskSlack is for headers, config and tokenizer: 13 MB in the family.
const diskSlack = 32 << 20

// checkDisk compares what will be written with what is free where dir will be. A checkpoint that is replaced counts as
// used: it stays until the new one is complete.
func checkDisk(dir string, need int64) error {
	free, ok := diskFree(filepath.Dir(filepath.Clean(dir)))
	if !ok || need+diskSlack <= free {
		return nil
	}
	return &inputerr.Error{File: dir, Field: "disk", Found: fmt.Sprintf("%s free", bytesText(free)), Want: bytesText(need + diskSlack),
		Do: "free space or choose another place"}
}
