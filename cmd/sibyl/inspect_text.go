package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"sibyl/config"
)

// configInfo is the config as inspect shows it.
type configInfo struct {
	ModelType      string   `json:"model_type"`
	Layers         int      `json:"layers"`
	LayerTypes     []string `json:"layer_types"`
	Hidden         int      `json:"hidden_size"`
	Vocab          int      `json:"vocab_size"`
	MaxPositions   int      `json:"max_position_embeddings"`
	Heads          int      `json:"attention_heads"`
	KVHeads        int      `json:"kv_heads"`
	HeadDim        int      `json:"head_dim"`
	RotaryDim      int      `json:"rotary_dim"`
	RopeTheta      float64  `json:"rope_theta"`
	MRopeSection   [3]int   `json:"mrope_section"`
	KeyHeads       int      `json:"gdn_key_heads"`
	ValueHeads     int      `json:"gdn_value_heads"`
	KeyDim         int      `json:"gdn_key_dim"`
	ValueDim       int      `json:"gdn_value_dim"`
	ConvKernel     int      `json:"gdn_conv_kernel"`
	Intermediate   int      `json:"intermediate_size,omitempty"`
	Experts        int      `json:"experts,omitempty"`
	ExpertsTopK    int      `json:"experts_per_token,omitempty"`
	ExpertsInner   int      `json:"expert_intermediate_size,omitempty"`
	SharedInner    int      `json:"shared_expert_intermediate_size,omitempty"`
	RMSNormEps     float64  `json:"rms_norm_eps"`
	TiedEmbeddings bool     `json:"tied_embeddings"`
	EOS            []int32  `json:"eos_token_ids"`
}

func describeConfig(c *config.Config) configInfo {
	info := configInfo{ModelType: c.ModelType, Layers: c.NumLayers, Hidden: c.HiddenSize, Vocab: c.VocabSize,
		MaxPositions: c.MaxPositions, Heads: c.NumHeads, KVHeads: c.NumKVHeads, HeadDim: c.HeadDim, RotaryDim: c.RotaryDim,
		RopeTheta: c.RopeTheta, MRopeSection: c.MRopeSection, KeyHeads: c.KeyHeads, ValueHeads: c.ValueHeads,
		KeyDim: c.KeyDim, ValueDim: c.ValueDim, ConvKernel: c.ConvKernel, Intermediate: c.IntermediateSize,
		RMSNormEps: c.RMSNormEps, TiedEmbeddings: c.TieWordEmbeddings, EOS: c.EOS}
	for _, k := range c.Layers {
		info.LayerTypes = append(info.LayerTypes, k.String())
	}
	if m := c.MoE; m != nil {
		info.Experts, info.ExpertsTopK, info.ExpertsInner, info.SharedInner = m.NumExperts, m.TopK, m.IntermediateSize, m.SharedIntermediateSize
	}
	return info
}

// layerMap draws the layers, four a group: g for GatedDeltaNet, A for attention.
func (c *configInfo) layerMap() string {
	var b strings.Builder
	for i, kind := range c.LayerTypes {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		if kind == config.FullAttention.String() {
			b.WriteByte('A')
		} else {
			b.WriteByte('g')
		}
	}
	return b.String()
}

// render writes the inspection for people.
func (r *inspection) render(w io.Writer, everyTensor bool) error {
	c := &r.Config
	mlp := fmt.Sprintf("SwiGLU, inner width %s", countText(int64(c.Intermediate)))
	if c.Experts > 0 {
		mlp = fmt.Sprintf("%d experts of inner width %d, %d a token, and a shared one of %d", c.Experts, c.ExpertsInner, c.ExpertsTopK, c.SharedInner)
	}
	head := "own weights"
	switch {
	case c.TiedEmbeddings:
		head = "tied to the embedding"
	case r.Quantization != nil && r.Quantization.UntiedHead:
		head = "a copy of its own, untied from the embedding by the scheme"
	}
	rows := [][]string{
		{"name", r.Name},
		{"kind", r.Kind},
		{"architecture", c.ModelType},
		{"parameters", fmt.Sprintf("%s, %s as stored (%s)", countText(r.Parameters), bytesText(r.Bytes), dtypesText(r.dtypes))},
		{"per token", bytesText(r.BytesPerToken) + " of weights"},
		{"layers", fmt.Sprintf("%d: %s (g GatedDeltaNet, A attention)", c.Layers, c.layerMap())},
		{"hidden", fmt.Sprintf("%s, vocabulary %s, up to %s positions", countText(int64(c.Hidden)), countText(int64(c.Vocab)), countText(int64(c.MaxPositions)))},
		{"GatedDeltaNet", fmt.Sprintf("%s of %d, %s of %d, conv %d", plural(c.KeyHeads, "key head", "key heads"), c.KeyDim, plural(c.ValueHeads, "value head", "value heads"), c.ValueDim, c.ConvKernel)},
		{"attention", fmt.Sprintf("%s, %s of %d; rope on %d dims, theta %g, mrope %v", plural(c.Heads, "head", "heads"), plural(c.KVHeads, "kv head", "kv heads"), c.HeadDim, c.RotaryDim, c.RopeTheta, c.MRopeSection)},
		{"MLP", mlp},
		{"head", head},
		{"config sha256", r.ConfigSHA256},
	}
	rows = append(rows, r.quantRows()...)
	if r.WeightsSHA256 != "" {
		rows = append(rows, []string{"weights sha256", r.WeightsSHA256})
	}
	if err := table(w, "", rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n")
	if err := r.renderGroups(w); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n")
	if err := r.renderTensors(w, everyTensor); err != nil {
		return err
	}
	return r.renderFindings(w)
}

// renderTensors lists the tensors, or folds those of one role, dtype and shape. Of a quantized checkpoint it shows how
// each is kept, and in the whole list the hash of q and scales.
func (r *inspection) renderTensors(w io.Writer, every bool) error {
	rows := [][]string{{"tensor", "count", "dtype", "shape", "bytes"}}
	if r.Quantization != nil {
		if rows[0] = append(rows[0], "kept as, block"); every {
			rows[0] = append(rows[0], "sha256 of q and scales")
		}
	}
	index := map[string]int{}
	var counts []int
	var bytes []int64
	for _, t := range r.Tensors {
		name, key, kept := t.Name, t.Name, ""
		if t.quantizedTensor != nil {
			kept = t.text()
		}
		if !every {
			name = t.role
			key = t.role + t.DType + kept + shapeText(t.Shape)
		}
		i, seen := index[key]
		if !seen {
			i = len(counts)
			index[key], counts, bytes = i, append(counts, 0), append(bytes, 0)
			row := []string{name, "", t.DType, shapeText(t.Shape), "", kept}
			if every && kept != "" {
				row = append(row, t.SHA256)
			}
			rows = append(rows, row)
		}
		counts[i]++
		bytes[i] += t.Bytes
	}
	for i := range counts {
		rows[i+1][1], rows[i+1][4] = strconv.Itoa(counts[i]), bytesText(bytes[i])
	}
	return table(w, "lrllr", rows)
}

// renderFindings ends with what does not match, or says that nothing was found.
func (r *inspection) renderFindings(w io.Writer) error {
	var b strings.Builder
	b.WriteByte('\n')
	unused := 0
	for _, t := range r.Unused {
		if knownUnused(t.Name) {
			unused++
		}
	}
	if unused > 0 {
		fmt.Fprintf(&b, "%s of the vision tower or the mtp head left out\n", plural(unused, "tensor", "tensors"))
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "note: %s\n", f)
	}
	if r.NonFinite == nil {
		fmt.Fprintf(&b, "NaN and Inf were not looked for (--scan reads all %s)\n", bytesText(r.Bytes))
	} else if len(r.NonFinite) == 0 && r.Quantization != nil {
		b.WriteString("no NaN or Inf in the scales and in the weights that are not quantized\n")
	} else if len(r.NonFinite) == 0 {
		b.WriteString("no NaN or Inf in the weights\n")
	}
	b.WriteString(r.about())
	_, err := io.WriteString(w, b.String())
	return err
}
