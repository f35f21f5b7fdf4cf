package model

import (
	"context"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// TestStream: layer by layer, all prompts at once, and with pages dropped, every tap, state, logit and generated id has
// the bits of the plain run.
func TestStream(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"tiny-dense-gva", "tiny-moe"} {
		for _, spec := range []engine.Spec{{}, {Contract: "coreai-fp16", Scheme: "int8hu-sym"}} {
			t.Run(set+"/"+spec.Contract, func(t *testing.T) {
				t.Parallel()
				g := goldens.Load(t, set, "golden")
				spec.Model = g.Model
				plain := openSpec(t, spec)
				spec.Stream = true
				stream := openSpec(t, spec)
				stream.stream.stripe = 1 // the head in as many stripes as it can have
				if !stream.Info().Streams || plain.Info().Streams {
					t.Errorf("Info().Streams = %v, %v of the plain engine", stream.Info().Streams, plain.Info().Streams)
				}
				var prompts []engine.Prompt
				for _, name := range sortedNames(g.Prompts()) {
					prompts = append(prompts, engine.Prompt{IDs: g.Prompts()[name]})
				}
				for len(prompts) < callSeqs+3 { // more than one plain batch
					prompts = append(prompts, prompts[0])
				}
				for _, path := range []engine.Path{{}, {Chunk: 1}, {Chunk: 7}} {
					sameScore(t, plain, stream, prompts, path)
				}
				sameGenerate(t, plain, stream, prompts[0])
			})
		}
	}
}

func openSpec(t *testing.T, spec engine.Spec) *Engine {
	t.Helper()
	e, err := engine.Open(context.Background(), "cpu", spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e.(*Engine)
}

func sortedNames(m map[string][]int32) (names []string) {
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// everySeq keeps the taps of each sequence.
type everySeq map[int]collect

func (b everySeq) Wants(string) bool { return true }

func (b everySeq) Put(name string, seq, pos, rows int, x []float32) error {
	if b[seq] == nil {
		b[seq] = collect{}
	}
	return b[seq].Put(name, seq, pos, rows, x)
}

func sameScore(t *testing.T, plain, stream *Engine, prompts []engine.Prompt, path engine.Path) {
	t.Helper()
	run := func(e *Engine) (taps everySeq, shown map[[2]int]engine.Position) {
		taps, shown = everySeq{}, map[[2]int]engine.Position{}
		err := e.Score(t.Context(), prompts, engine.Want{From: 1, TopK: 3, Path: path, Taps: taps}, func(p *engine.Position) error {
			q := *p
			q.Top, q.Ties = slices.Clone(p.Top), slices.Clone(p.Ties)
			shown[[2]int{p.Seq, p.Pos}] = q
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return taps, shown
	}
	wantTaps, want := run(plain)
	gotTaps, got := run(stream)
	if len(got) != len(want) {
		t.Errorf("%v: %d positions, want %d", path, len(got), len(want))
	}
	for at, w := range want {
		if q := got[at]; q.ID != w.ID || math.Float64bits(q.LSE) != math.Float64bits(w.LSE) || !slices.Equal(q.Top, w.Top) || !slices.Equal(q.Ties, w.Ties) {
			t.Fatalf("%v: position %v: %+v, want %+v", path, at, q, w)
		}
	}
	for seq, taps := range wantTaps {
		if len(gotTaps[seq]) != len(taps) {
			t.Errorf("%v: prompt %d: %d taps, want %d", path, seq, len(gotTaps[seq]), len(taps))
		}
		for name, w := range taps {
			if !sameBits(gotTaps[seq][name], w) {
				t.Errorf("%v: prompt %d: %s has other bits than the plain run's", path, seq, name)
			}
		}
	}
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// sameGenerate: tokens after a streamed prompt continue on its states, and the final state and taps are those of the end.
func sameGenerate(t *testing.T, plain, stream *Engine, prompt engine.Prompt) {
	t.Helper()
	run := func(e *Engine) (ids []int32, st engine.State, taps collect) {
		taps = collect{}
		err := e.Generate(t.Context(), prompt, engine.Options{MaxTokens: 5, Taps: taps, FinalState: &st}, func(tok *engine.Token) error {
			ids = append(ids, tok.ID)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return ids, st, taps
	}
	wantIDs, wantState, wantTaps := run(plain)
	ids, st, taps := run(stream)
	if !slices.Equal(ids, wantIDs) || st.Len != wantState.Len || len(st.Tensors) != len(wantState.Tensors) || len(taps) != len(wantTaps) {
		t.Fatalf("ids %v, %d tokens, %d tensors, %d taps; want %v, %d, %d, %d", ids, st.Len, len(st.Tensors), len(taps), wantIDs, wantState.Len, len(wantState.Tensors), len(wantTaps))
	}
	for name, w := range wantState.Tensors {
		if !sameBits(st.Tensors[name].Data, w.Data) {
			t.Errorf("state %s has other bits", name)
		}
	}
	for name, w := range wantTaps {
		if !sameBits(taps[name], w) {
			t.Errorf("tap %s has other bits", name)
		}
	}
}

// counting is a model whose hints about pages are counted.
type counting struct {
	bundle.Source
	layers []int          // DropLayer, by layer
	forgot []int          // the layers that were forgotten
	stored map[string]int // bytes dropped of weights that are not a layer's, by name
}

func (c *counting) DropLayer(l int) { c.layers[l]++; c.Source.DropLayer(l) }

func (c *counting) ForgetLayer(l int) { c.forgot = append(c.forgot, l); c.Source.ForgetLayer(l) }

func (c *counting) Drop(t bundle.Tensor, lo, hi int) {
	if hi >= 0 {
		c.stored[t.Name] += hi - lo
	} else {
		c.stored[t.Name] += 0
	}
	c.Source.Drop(t, lo, hi)
}

// TestStreamReadsOnce: however many prompts, a streamed pass reads each layer once and lets go of it, and of every byte of
// the head for each block of positions, and of the embedding.
func TestStreamReadsOnce(t *testing.T) {
	t.Parallel()
	src, err := bundle.Open(goldens.Load(t, "tiny-dense-gva", "golden").Model)
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{Source: src, layers: make([]int, src.Config().NumLayers), stored: map[string]int{}}
	e, err := New(c, &Plan{Contract: precision.HFFP32}, kernels.Exact, engine.Spec{Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	e.stream.stripe = 1
	var prompts []engine.Prompt
	for i := range 2*callSeqs + 1 {
		prompts = append(prompts, engine.Prompt{IDs: make([]int32, 40+i)})
	}
	for pass := 1; pass <= 2; pass++ {
		e.stream.short, e.stream.shortHead = pass == 2, pass == 2
		var layers, seqs []int
		want := engine.Want{From: 39, Layer: func(l int) { layers = append(layers, l) }}
		err := e.Score(t.Context(), prompts, want, func(p *engine.Position) error { seqs = append(seqs, p.Seq); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if n, told := len(c.layers), slices.Compact(slices.Clone(layers)); len(told) != n+1 || layers[n-1] != n-1 || !slices.IsSorted(told) {
			t.Errorf("layers %v were told of, want 0 to %d once, and parts of the head", layers, n-1)
		}
		if !slices.IsSorted(seqs) || len(seqs) != len(prompts)*(len(prompts)+1)/2 {
			t.Errorf("%d positions, of prompts %v, want one prompt after the other", len(seqs), seqs)
		}
		for l, n := range c.layers {
			if n != pass {
				t.Errorf("layer %d was let go of %d times after %d passes", l, n, pass)
			}
		}
	}
	for l, f := range c.forgot { // in the second pass, each when the next one begins
		if f != l || len(c.forgot) != len(c.layers)-1 {
			t.Fatalf("layers %v were forgotten, want 0 to %d once", c.forgot, len(c.layers)-2)
		}
	}
	if len(c.forgot) == 0 {
		t.Error("a model that does not stay in memory was kept there")
	}
	head, err := src.Tensor(config.Head, 0)
	if err != nil {
		t.Fatal(err)
	}
	embed, err := src.Tensor(config.Embed, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := c.stored[head.Name]; n == 0 || n%len(head.Data) != 0 {
		t.Errorf("%d bytes of the head were let go of, want a multiple of its %d", n, len(head.Data))
	}
	if _, ok := c.stored[embed.Name]; !ok {
		t.Errorf("the embedding %s was not let go of", embed.Name)
	}
}

// TestHeadInStripes: the head in stripes gives the bits of the head at once, in every arithmetic and for any rows, in fast
// arithmetic too: a logit's sum does not know where a stripe ends.
func TestHeadInStripes(t *testing.T) {
	t.Parallel()
	for _, spec := range []engine.Spec{{}, {Mode: "fast"}, {Contract: "coreai-fp16", Scheme: "int8hu-sym", Mode: "fast"}, {Contract: "coreai-fp16", Scheme: "int4lin"}} {
		spec.Model, spec.Stream = goldens.Load(t, "tiny-dense-gva", "golden").Model, true
		e := openSpec(t, spec)
		e.stream.stripe = 1
		d := e.d
		V, H := d.Config.VocabSize, d.Config.HiddenSize
		if V <= 2*stripeUnit {
			t.Fatalf("%d rows are no three stripes", V)
		}
		for _, rows := range []int{1, 5, 40} {
			s := d.NewSession(nil, e.pool, e.arith, nil)
			x, want, got := make([]float32, rows*H), make([]float32, rows*V), make([]float32, rows*V)
			for i := range x {
				x[i] = float32(i%23)/7 - 1.5
			}
			d.Logits(want, x, rows, &s.call)
			if err := e.stream.head(got, x, rows, d.Head, &s.call, func() {}); err != nil {
				t.Fatal(err)
			}
			d.roundLogits(got, &s.call)
			if !sameBits(got, want) {
				t.Errorf("%+v, %d rows: other bits in stripes", spec, rows)
			}
		}
	}
}

// TestStreamStops: a cancelled context ends a streamed run between passes of a layer.
func TestStreamStops(t *testing.T) {
	t.Parallel()
	e := openSpec(t, engine.Spec{Model: goldens.Load(t, "tiny-moe", "golden").Model, Stream: true})
	ctx, cancel := context.WithCancel(t.Context())
	sink := &cancelling{cancel: cancel}
	err := e.Score(ctx, []engine.Prompt{{IDs: []int32{1, 2, 3}}}, engine.Want{Taps: sink}, func(*engine.Position) error { return nil })
	if err != context.Canceled || sink.layers.Load() != 1 {
		t.Errorf("Score = %v after %d layers, want %v after 1", err, sink.layers.Load(), context.Canceled)
	}
}

// cancelling cancels at the end of the first layer and counts the layers.
type cancelling struct {
	cancel func()
	layers atomic.Int32
}

func (c *cancelling) Wants(name string) bool { return len(name) > 4 && name[len(name)-4:] == ".out" }

func (c *cancelling) Put(string, int, int, int, []float32) error {
	c.layers.Add(1)
	c.cancel()
	return nil
}
