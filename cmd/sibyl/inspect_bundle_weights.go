package main

import (
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/config"
	"sibyl/tokenizer"
)

// weightInfo is one weight of one function.
type weightInfo struct {
	Function   string      `json:"function"`
	Name       string      `json:"name"` // "" where its role is not known
	Parts      []partInfo  `json:"parts,omitempty"`
	Use        string      `json:"use"`
	Chain      string      `json:"chain"`
	Scheme     string      `json:"scheme"`
	Block      []int64     `json:"block,omitempty"`
	Constants  []constInfo `json:"constants"`
	QMin       *int64      `json:"q_min,omitempty"` // null: not read
	QMax       *int64      `json:"q_max,omitempty"`
	Bytes      int64       `json:"bytes"`
	PerToken   int64       `json:"bytes_per_token"`
	Share      float64     `json:"share_of_bytes_per_token"`
	QThenScale string      `json:"sha256_q_then_scale,omitempty"`
	Dequant    string      `json:"sha256_dequant,omitempty"`
	DequantAs  string      `json:"dequant_dtype,omitempty"`
	NaN        int64       `json:"nan,omitempty"`
	Inf        int64       `json:"inf,omitempty"`
	dtype      string
}

// partInfo is a tensor of the checkpoint in a weight.
type partInfo struct {
	Name string        `json:"name"`
	Form string        `json:"stored_as"`
	Rows []bundle.Span `json:"rows,omitempty"` // of a fused one
}

// constInfo is a stored constant.
type constInfo struct {
	Part   string  `json:"part"`
	Key    string  `json:"key,omitempty"` // of the resource; none: inline
	DType  string  `json:"dtype"`
	Shape  []int64 `json:"shape"`
	Splat  bool    `json:"splat,omitempty"`
	Offset int64   `json:"file_offset"`
	Bytes  int     `json:"bytes"`
	SHA256 string  `json:"sha256,omitempty"`
}

// weights lists the weights and sums them up.
func (r *bundleInspection) weights() {
	t := r.listing.Totals("main")
	r.totals = t
	r.Parameters, r.Bytes, r.BytesPerToken = t.Parameters, t.Bytes(), t.TotalPerToken()+t.Other
	for g := range bundle.NumGroups {
		if t.Stored[g]+t.PerToken[g] > 0 {
			r.Groups = append(r.Groups, groupInfo{Name: g.String(), Bytes: t.Stored[g], PerToken: t.PerToken[g]})
		}
	}
	if t.Other > 0 {
		r.Groups = append(r.Groups, groupInfo{Name: "other", Bytes: t.Other, PerToken: t.Other})
	}
	for _, w := range r.listing.Weights {
		r.Weights = append(r.Weights, r.weight(w))
	}
}

func (r *bundleInspection) weight(w *bundle.Weight) weightInfo {
	info := weightInfo{Function: w.Function, Name: w.Name(), Use: w.Use, Chain: w.Chain, Bytes: w.Bytes(), PerToken: r.listing.PerToken(w), dtype: w.Data.Const.Type.Elem.String()}
	info.Share = float64(info.PerToken) / float64(max(1, r.BytesPerToken))
	info.Scheme = info.dtype
	if roles := r.listing.Roles[w.Function]; roles != nil && roles.InvFreq == w.Data {
		info.Name = invFreqName
	}
	for _, u := range w.Parts {
		info.Parts = append(info.Parts, partInfo{u.Name(), u.Form.String(), u.Spans})
	}
	names, consts := w.Constants()
	for i, c := range consts {
		k := constInfo{Part: names[i], Key: c.Resource, DType: c.Type.Elem.String(), Shape: append([]int64{}, c.Type.Dims...), Splat: c.Splat, Offset: c.Offset, Bytes: len(c.Data)}
		if w.Facts != nil && len(w.Facts.SHA256) > i {
			k.SHA256 = w.Facts.SHA256[i].Hex
		}
		info.Constants = append(info.Constants, k)
	}
	if q := w.Quant; q != nil {
		info.Block = q.Block
		if info.Scheme = q.Scheme(0, 0); info.Scheme == "int8 with_clipping" {
			info.Scheme = "int8" // which of the two, only q's range tells
		}
	}
	if f := w.Facts; f != nil {
		info.Scheme, info.NaN, info.Inf = f.Scheme, f.NaN, f.Inf
		info.QThenScale, info.Dequant, info.DequantAs = f.QThenScale, f.Dequant, f.DequantAs
		if w.Quant != nil {
			info.QMin, info.QMax = &f.QMin, &f.QMax
		}
	}
	return info
}

// invFreqName stands for the one constant that no checkpoint has.
const invFreqName = "(inverse frequencies of rope)"

// notFinite says whether weights hold what is no number.
func (r *bundleInspection) notFinite() bool {
	return slices.ContainsFunc(r.Weights, func(w weightInfo) bool { return w.NaN+w.Inf > 0 })
}

// broken says whether something is wrong with the bytes: exit code 1.
func (r *bundleInspection) broken() bool {
	return r.notFinite() || r.MainHash == hashDiffers || r.Against != nil && r.Against.Differ+len(r.Against.Missing) > 0
}

// scalesText says how a weight's scales lie: "per-block-32", "per-channel", "per-tensor".
func scalesText(block, shape []int64) string {
	n := len(block)
	if n == 0 {
		return ""
	}
	last := block[n-1]
	rest := int64(1)
	for _, b := range block[:n-1] {
		rest *= b
	}
	switch {
	case rest == 1 && last == shape[n-1]:
		return "per-channel"
	case rest == 1:
		return fmt.Sprintf("per-block-%d", last)
	case slices.Equal(block, shape):
		return "per-tensor"
	}
	return "blocks of " + strings.ReplaceAll(strings.Trim(fmt.Sprint(block), "[]"), " ", "x")
}

var (
	claimChannel = regexp.MustCompile(`(?i)per[-_ ]?ch(an(nel)?)?(?:$|[-_. ])`)
	claimBits    = regexp.MustCompile(`(?i)(?:^|[-_.])(fp16|f16|bf16|int8|int4|u4|uint4|w8|w4)(hu|lin)?(?:$|[-_.])`)
	claimHead    = regexp.MustCompile(`(?i)(?:^|[-_.])int[48](hu|lin)(?:$|[-_.])`)
)

// contradictions holds what names and metadata claim against the bytes.
func (r *bundleInspection) contradictions(b *bundle.Bundle) {
	claims := map[string]string{"the bundle's name": r.Name, "the asset's name": strings.TrimSuffix(r.Asset.Name, ".aimodel")}
	if r.Language != nil {
		claims["metadata's name"], claims["metadata's compression"] = r.Language.Name, r.Language.Compression
	}
	said := map[string]bool{}
	for _, where := range slices.Sorted(maps.Keys(claims)) {
		for _, f := range r.nameAgainstBytes(claims[where]) {
			if !said[f] {
				said[f] = true
				r.Findings = append(r.Findings, where+": "+f)
			}
		}
	}
	r.Findings = append(r.Findings, nameClaims(sizeOnly(r.Name), r.Parameters, nil)...)
	if blocks := r.blocks(); len(blocks) > 1 {
		r.Findings = append(r.Findings, "weights of several block sizes: "+strings.Join(blocks, ", "))
	}
	for _, w := range r.Weights {
		if w.NaN+w.Inf > 0 {
			r.Findings = append(r.Findings, fmt.Sprintf("not finite: %s: %d NaN, %d Inf", printable(w.Name), w.NaN, w.Inf))
		}
	}
	if r.Language != nil {
		r.metadataClaims(b)
	}
}

// sizeOnly keeps the part of a name that says a size, so that dtypes are judged once, against the bundle's own kinds.
func sizeOnly(name string) string {
	if m := nameSize.FindStringSubmatch(strings.ReplaceAll(name, "_", "-")); m != nil {
		return m[1] + "b"
	}
	return ""
}

// blocks lists how scales lie, the most weights first. A row that is no longer than other weights' blocks is one block.
func (r *bundleInspection) blocks() (out []string) {
	counts, whole := map[string]int{}, map[string]int{}
	for _, w := range r.Weights {
		if w.Block == nil || w.Function != "main" {
			continue
		}
		shape := w.Constants[0].Shape
		if text := scalesText(w.Block, shape); text == "per-channel" {
			whole[fmt.Sprintf("per-block-%d", shape[len(shape)-1])]++
		} else {
			counts[text]++
		}
	}
	for text, n := range whole {
		if counts[text] == 0 {
			text = "per-channel"
		}
		counts[text] += n
	}
	for _, k := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return counts[b] - counts[a] }) {
		out = append(out, fmt.Sprintf("%s (%s)", k, plural(counts[k], "weight", "weights")))
	}
	return out
}

// nameAgainstBytes lists what a name claims and the bytes deny.
func (r *bundleInspection) nameAgainstBytes(name string) (out []string) {
	blocks := r.blocks()
	if claimChannel.MatchString(name) && len(blocks) > 0 && !strings.HasPrefix(blocks[0], "per-channel") {
		out = append(out, "per-channel in the name; "+blocks[0]+" in the bytes")
	}
	if m := claimBits.FindStringSubmatch(name); m != nil {
		claim := map[string]string{"fp16": "f16", "f16": "f16", "bf16": "bf16", "int8": "i8", "w8": "i8", "int4": "i4", "w4": "i4", "u4": "u4", "uint4": "u4"}[strings.ToLower(m[1])]
		if most := r.mostBytes(); claim != most && !(claim == "i4" && most == "u4") {
			out = append(out, fmt.Sprintf("%s in the name; %s in the bytes", m[1], most))
		}
	}
	if m := claimHead.FindStringSubmatch(name); m != nil {
		if head := r.head(); head != nil {
			quantized := head.Block != nil
			switch {
			case strings.EqualFold(m[1], "hu") && !quantized:
				out = append(out, "hu (a quantized head of its own) in the name; the head is "+head.Scheme)
			case strings.EqualFold(m[1], "lin") && quantized:
				out = append(out, "lin (a head that is not quantized) in the name; the head is "+head.Scheme+", "+scalesText(head.Block, head.Constants[0].Shape))
			}
		}
	}
	return out
}

// mostBytes is the dtype with most of the bytes in main's linears.
func (r *bundleInspection) mostBytes() string {
	sum := map[string]int64{}
	for _, w := range r.Weights {
		if w.Function == "main" && (w.Use == "linear" || w.Use == "experts") {
			sum[w.dtype] += w.Bytes
		}
	}
	best := ""
	for _, k := range slices.Sorted(maps.Keys(sum)) {
		if best == "" || sum[k] > sum[best] {
			best = k
		}
	}
	return best
}

// head is the weight that is main's head.
func (r *bundleInspection) head() *weightInfo {
	for i, w := range r.listing.Weights {
		for _, u := range w.Parts {
			if u.Role == config.Head && w.Function == "main" {
				return &r.Weights[i]
			}
		}
	}
	return nil
}

// metadataClaims holds metadata.json against the graph and the tokenizer.
func (r *bundleInspection) metadataClaims(b *bundle.Bundle) {
	l := r.Language
	note := func(format string, args ...any) {
		r.Findings = append(r.Findings, "metadata.json: "+fmt.Sprintf(format, args...))
	}
	p := r.listing.Program
	main := p.Graph("main")
	for _, role := range slices.Sorted(maps.Keys(l.Functions)) {
		for _, f := range l.Functions[role] {
			if g := p.Graph(f); g == nil || g.Private {
				note("function_map names %s, which the program does not have", printable(f))
			}
		}
	}
	if main == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(l.States)) {
		if !slices.ContainsFunc(main.Inputs, func(x aicode.Arg) bool { return x.State == name }) {
			note("states names %s, which main does not have", printable(name))
		}
	}
	for _, x := range main.Outputs {
		if x.Name != "logits" || x.Type.Kind != aicode.Tensor || len(x.Type.Dims) == 0 {
			continue
		}
		vocab := x.Type.Dims[len(x.Type.Dims)-1]
		if int64(l.Vocab) != vocab {
			note("vocab_size is %d, the logits have %d", l.Vocab, vocab)
		}
		r.tokenizerClaims(b, vocab)
	}
}

// tokenizerClaims: a tokenizer that makes ids beyond the logits is another model's.
func (r *bundleInspection) tokenizerClaims(b *bundle.Bundle, vocab int64) {
	var fsys fs.FS
	fsys, dir, err := b.Tokenizer()
	if err != nil {
		return // there is none, and metadata says so
	}
	t, _, err := tokenizer.LoadFS(fsys, dir)
	switch {
	case err != nil:
		told, _, _ := strings.Cut(err.Error(), "; ")
		r.Findings = append(r.Findings, "tokenizer: "+told)
	case int64(t.VocabSize()) > vocab, int64(t.VocabSize()) < vocab-vocab/8: // rows of padding are few
		r.Findings = append(r.Findings, fmt.Sprintf("the tokenizer has %d ids, the logits have %d: it is another model's", t.VocabSize(), vocab))
	}
}
