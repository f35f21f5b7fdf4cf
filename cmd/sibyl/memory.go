package main

import (
	"errors"
	"fmt"
	"strings"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/internal/memlimit"
	"sibyl/precision"
)

// job is what is about to run, as far as its memory goes.
type job struct {
	tokens    int // of the prompt (the longest, if there are several)
	generated int
	seqs      int   // prompts at once
	have      int   // tokens in the state it starts from
	extra     int64 // bytes the verb itself keeps: recorded taps
	path      engine.Path
	position  [][3]int32
	stream    bool // layer by layer: all prompts at once, one layer's states
	narrowKV  bool // keys and values in two bytes each
}

// checkJob refuses before any work what cannot be run: ids or lengths the model has no place for, then a need of
// memory that the machine or cgroup cannot meet. It says where a scheme cannot be followed.
func (a *App) checkJob(c bundle.Source, s Subject, ids []int32, j job) error {
	if err := a.checkLength(c, "prompt", ids, j); err != nil {
		return err
	}
	a.noteScheme(c, s)
	j.stream, j.narrowKV = a.stream, s.narrowKV()
	return a.checkMemory(need(c.Config(), c.Sizes().Total(), s.Engine, a.Threads, j), s.display())
}

// checkTogether is checkJob for subjects of one model that are open at the same time: what they need is added up, but
// for the program itself and what the verb keeps.
func (a *App) checkTogether(c bundle.Source, subjects []Subject, ids []int32, j job) error {
	j.stream = a.stream
	total, names := runtimeBytes(c.Config())+j.extra, []string{}
	for _, s := range subjects {
		if err := a.checkLength(c, "prompt", ids, j); err != nil {
			return err
		}
		j.narrowKV = s.narrowKV()
		total += need(c.Config(), c.Sizes().Total(), s.Engine, a.Threads, j) - runtimeBytes(c.Config()) - j.extra
		names = append(names, s.display())
	}
	return a.checkMemory(total, strings.Join(names, " and "))
}

// checkMemory compares a need with --memory-limit, or with what is left on this machine; where that is not known
// there is nothing to hold the job to.
func (a *App) checkMemory(need int64, what string) error {
	left, err := a.memoryLeft()
	switch {
	case errors.Is(err, memlimit.ErrUnknown):
		return nil
	case err != nil:
		return err
	case need <= left.Bytes:
		return nil
	}
	return &inputerr.Error{File: what, Field: "memory", Found: fmt.Sprintf("a need of about %s", bytesText(need)),
		Want: fmt.Sprintf("at most %s, %s", bytesText(left.Bytes), left.Source),
		Do:   "use fewer tokens or taps, or free memory; --memory-limit overrides the limit"}
}

// memoryLeft is --memory-limit, or what is left on this machine.
func (a *App) memoryLeft() (left memlimit.Limit, err error) {
	if a.memoryLimit == "" {
		return memlimit.Left()
	}
	left.Source = "the --memory-limit"
	left.Bytes, err = parseSize("--memory-limit", a.memoryLimit)
	return left, err
}

// spareMemory is memoryLeft for a job that takes what there is; a gigabyte where nothing is known.
func (a *App) spareMemory() (int64, error) {
	left, err := a.memoryLeft()
	if errors.Is(err, memlimit.ErrUnknown) {
		return 1 << 30, nil
	}
	return left.Bytes, err
}

// The engines cut prompts into passes of at most this many rows, of at most this many sequences at once, of each so many at
// least.
const (
	callRows  = 256
	callSeqs  = 8
	callChunk = 64
)

// narrowKV says whether s keeps keys and values in two bytes: a CPU engine whose contract, by its name, stores them on a grid of
// so many. A bundle's own contract is not looked up, and counts as wide.
func (s Subject) narrowKV() bool {
	if !s.onCPU() || s.Contract == "" || s.Contract == precision.RuntimeName {
		return false
	}
	c, err := precision.Choose(s.Contract)
	return err == nil && c.Contract.KV != precision.F32
}

// need estimates, from above, the bytes a job takes beside mapped files: weights, and traces that diff spools. Those are
// not counted: the system drops them from memory when it must. The terms are caches over all tokens, activations and logits of one call.
func need(c *config.Config, weights int64, engineName string, threads int, j job) int64 {
	const f32 = 4
	total := int64(j.have + j.tokens + j.generated)
	seqs := int64(max(1, min(j.seqs, callSeqs)))
	if j.stream {
		seqs = int64(max(1, j.seqs))
	}
	rows := min(max(1, int64(j.tokens)*seqs), max(callRows, callChunk*min(seqs, callSeqs)))

	var attention, gdn int64
	for _, kind := range c.Layers {
		if kind == config.FullAttention {
			attention++
		} else {
			gdn++
		}
	}
	// Caches grow by appending: up to twice their content while they move. States are also copied once to be shown.
	kvSize := int64(f32)
	if j.narrowKV {
		kvSize = 2
	}
	kv := attention * 2 * int64(c.KVWidth()) * total * kvSize * 2
	state := gdn * (int64(c.ValueHeads)*int64(c.KeyDim)*int64(c.ValueDim) + int64(c.QKVDim())*int64(c.ConvKernel)) * f32 * 2
	inner := int64(c.IntermediateSize)
	if c.MoE != nil {
		inner = int64(c.MoE.SharedIntermediateSize) + int64(c.MoE.TopK)*int64(c.MoE.IntermediateSize) + 2*int64(c.MoE.NumExperts)
	}
	width := 6*int64(c.HiddenSize) + 3*inner + max(3*int64(c.QKVDim())+4*int64(c.ValueWidth()), 5*int64(c.QWidth())+4*int64(c.KVWidth()))
	activations := rows * width * f32 * 2 // twice: what a layer leaves is collected late
	scores := int64(threads) * total * f32
	logits := min(rows, max(1, 16<<20/int64(c.VocabSize))) * int64(c.VocabSize) * f32 * 2
	perSeq := seqs * (kv + state)
	if j.stream { // one layer's states, but every row's residual stream, which is put in order once
		perSeq = max(perSeq/int64(len(c.Layers)), seqs*(kv/max(1, attention)+state/max(1, gdn))) + 2*seqs*total*int64(c.HiddenSize)*f32
		logits = min(int64(j.tokens+j.generated)*seqs*int64(c.VocabSize)*f32, 256<<20) // a block, which is lent
		logits += logits / 8                                                           // and a stripe's part of it
	}

	n := perSeq + activations + scores + logits + j.extra + runtimeBytes(c)
	if weights <= 32<<20 {
		n += 2 * weights // a small model's weights are kept as float32 where they are rounded or quantized
	}
	if strings.HasPrefix(engineName, "metal") { // device buffers of its own; a scheme's weights are made once; a thread's fibers
		n += weights + activations + logits + int64(max(1, threads))*8<<20
	}
	if engineName == "fp64" {
		n += perSeq + activations + scores + logits // eight bytes a number
		n += min(4*weights, 1<<30) + 64<<20         // a small model's weights are kept as float64
	}
	return n
}

// runtimeBytes is the program itself (24 MB resident with the demo model) and the tokenizer, whose tables grow with the
// vocabulary: 192 MB together for the 248,044 tokens of the published models.
func runtimeBytes(c *config.Config) int64 { return 32<<20 + 680*int64(c.VocabSize) }
