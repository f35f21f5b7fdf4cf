package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/internal/inputerr"
)

// Patch writes a copy of a bundle with other constants.
type Patch struct {
	Bundle string   `arg:"" name:"BUNDLE" help:"A LanguageBundle or .aimodel folder."`
	Set    []string `sep:"none" placeholder:"NAME[I,J]=VALUE" help:"Set one element; may be repeated."`
	Tensor []string `sep:"none" placeholder:"NAME=FILE:TENSOR" help:"Set all elements from a tensor of a safetensors file; may be repeated."`
	Out    string   `name:"out" short:"o" placeholder:"DIR" required:"" help:"The folder to make."`
	Force  bool     `help:"Replace a bundle, or an empty folder; nothing else."`
	JSON
}

// Help is the part of the help below the flags.
func (*Patch) Help() string {
	return `Experimental. Constants keep their dtype and shape; main.hash is written anew; everything else stays
byte for byte. A compiled form (.aimodelc) is left out, as it holds the old weights. The folder is
there in whole or not at all.

NAME is a weight as sibyl inspect BUNDLE --tensors lists it, with .data (the default), .scale,
.offset1, .offset2 or .lut behind it, or key:KEY of a resource. [I,J] counts from 0 in the constant's
shape, one number in its flat order. VALUE is a number, rounded to the dtype, or its bits as 0x3c00.
FILE holds elements of 4 bits packed as U8, the even one in the low half, and others in their dtype.

Examples:

    sibyl patch ./opticks_int8hu --set 'layers.3.mlp.up_proj.weight.scale[0,2]=0.125' -o broken
    sibyl patch ./opticks_int8hu --set 'norm.weight[0]=0x3f800000' -o broken --force --json`
}

// patched is one edit as patch reports it.
type patched struct {
	Name   string  `json:"name"`
	Type   string  `json:"type"`
	Index  []int64 `json:"index,omitempty"`
	Before string  `json:"before,omitempty"`
	After  string  `json:"after,omitempty"`
	Count  int64   `json:"changed"`
	Shared int     `json:"weights_that_share_it"`
}

// patchReport is what --json prints.
type patchReport struct {
	Out      string    `json:"out"`
	Edits    []patched `json:"edits"`
	OldHash  string    `json:"old_main_sha256"`
	NewHash  string    `json:"new_main_sha256"`
	Warnings []string  `json:"warnings"`
}

// Run is the verb.
func (v *Patch) Run(ctx context.Context, a *App) (err error) {
	if len(v.Set)+len(v.Tensor) == 0 {
		return &inputerr.Error{File: "patch", Found: "nothing to change", Want: "--set or --tensor", Do: "sibyl patch --help shows their form"}
	}
	b, err := bundle.OpenBundle(ctx, v.Bundle, bundle.BundleOptions{NoVerify: a.noVerify, Progress: a.Progress("hashing main.mlirb")})
	if err != nil {
		return err
	}
	defer closing(b, &err)
	l, err := b.Listing()
	if err != nil {
		return err
	}
	p := &patcher{l: l, data: map[int64]*bundle.Edit{}}
	for _, text := range v.Set {
		if err := p.set(text); err != nil {
			return err
		}
	}
	for _, text := range v.Tensor {
		if err := p.tensor(text); err != nil {
			return err
		}
	}
	if err := checkDisk(v.Out, b.Asset.Size()); err != nil {
		return err
	}
	r := patchReport{Out: v.Out, Edits: p.done, OldHash: b.Asset.MainHash(), Warnings: append([]string{}, b.Warnings()...)}
	if err := b.Rewrite(ctx, v.Out, p.edits(), bundle.RewriteOptions{Force: v.Force, Progress: a.Progress("writing main.mlirb")}); err != nil {
		return err
	}
	now, err := bundle.OpenBundle(ctx, v.Out, bundle.BundleOptions{SkipHash: true})
	if err != nil {
		return err
	}
	r.NewHash = now.Asset.MainHash()
	if err := now.Close(); err != nil {
		return err
	}
	return a.Emit(v.JSON.JSON, r, r.text)
}

func (r *patchReport) text(w io.Writer) error {
	rows := [][]string{{"constant", "type", "at", "before", "after", "shared by"}}
	for _, e := range r.Edits {
		at := indexText(e.Index)
		if e.Index == nil {
			at = fmt.Sprintf("%d elements", e.Count)
		}
		rows = append(rows, []string{printable(e.Name), e.Type, at, e.Before, e.After, plural(e.Shared, "weight", "weights")})
	}
	for _, s := range r.Warnings {
		fmt.Fprintf(w, "warning: %s\n", s)
	}
	if err := table(w, "llllll", rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s: main.hash %s (was %s)\n", r.Out, r.NewHash, r.OldHash)
	return err
}

// patcher collects edits by the place of their constants.
type patcher struct {
	l    *bundle.Listing
	data map[int64]*bundle.Edit
	done []patched
}

func (p *patcher) edits() (list []bundle.Edit) {
	for _, e := range p.data {
		list = append(list, *e)
	}
	return list
}

// edit gives the bytes that a constant is to have.
func (p *patcher) edit(k *aicode.Const) []byte {
	e := p.data[k.Offset]
	if e == nil {
		e = &bundle.Edit{Const: k, Data: bytes.Clone(k.Data)}
		p.data[k.Offset] = e
	}
	return e.Data
}

// shared counts the weights whose parts are the constant.
func (p *patcher) shared(k *aicode.Const) (n int) {
	for _, w := range p.l.Weights {
		_, consts := w.Constants()
		for _, c := range consts {
			if c.Offset == k.Offset {
				n++
				break
			}
		}
	}
	return n
}

// set is --set NAME[I,J]=VALUE.
func (p *patcher) set(text string) error {
	name, index, value, err := parseSet(text)
	if err != nil {
		return err
	}
	t, err := p.find("--set", name)
	if err != nil {
		return err
	}
	i, index, err := t.element(text, index)
	if err != nil {
		return err
	}
	bits, err := elementBits(text, value, t.k.Type.Elem)
	if err != nil {
		return err
	}
	data := p.edit(t.k)
	now := *t.k
	now.Data = data
	before := elementText(&now, i)
	t.k.Set(data, i, bits)
	p.done = append(p.done, patched{Name: t.name, Type: t.k.Type.String(), Index: index, Before: before, After: elementText(&now, i), Count: 1, Shared: p.shared(t.k)})
	return nil
}

// tensor is --tensor NAME=FILE:TENSOR.
func (p *patcher) tensor(text string) error {
	name, from, ok := cutLast(text, "=")
	if !ok {
		return &inputerr.Error{File: "--tensor", Found: inputerr.Clip(text, 80), Want: "NAME=FILE:TENSOR"}
	}
	t, err := p.find("--tensor", name)
	if err != nil {
		return err
	}
	data, err := storedTensor(from, t.k)
	if err != nil {
		return err
	}
	old := p.edit(t.k)
	changed := int64(0)
	now, next := *t.k, *t.k
	now.Data, next.Data = old, data
	for i := range t.k.Len() {
		if now.Bits(i) != next.Bits(i) {
			changed++
		}
	}
	copy(old, data)
	p.done = append(p.done, patched{Name: t.name, Type: t.k.Type.String(), Count: changed, Shared: p.shared(t.k)})
	return nil
}

// elementText is an element for people: its value, and its bits where the value does not tell them.
func elementText(k *aicode.Const, i int64) string {
	if !k.Type.Elem.IsFloat() {
		return fmt.Sprint(k.Int(i))
	}
	n := k.Type.Elem.Bits() / 8
	var b [8]byte
	v := k.Bits(i)
	for j := range n {
		b[n-1-j] = byte(v >> (8 * j))
	}
	return fmt.Sprintf("%g (0x%s)", k.Float(i), hex.EncodeToString(b[:n]))
}
