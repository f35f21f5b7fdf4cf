package plain64

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/trace"
)

// rows64 gives the float64 logits of every position and the state at the end.
func rows64(t *testing.T, e *Engine, p engine.Prompt, chunk int) (rows []float64, s *state) {
	t.Helper()
	s, err := newState(e.d.cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = e.feed(context.Background(), p, engine.Path{Chunk: chunk}, s, &taps{}, 0, func(_ int, row []float64) error {
		rows = append(rows, row...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows, s
}

// TestPaths: step, chunk=n and prefill agree in float64, logits and states. They differ only where gonum cuts its sums
// by matrix size: n * 2^-53 * sum|w*x| per product, about 1e-14 here, carried through the layers. The bound asked for is 1e-9.
func TestPaths(t *testing.T) {
	t.Parallel()
	for _, set := range []struct{ name, prompt string }{{"tiny-asym", "p70"}, {"tiny-dense-gva", "p131"}, {"tiny-moe", "p131"}, {"edge-cancel", "p70"}} {
		t.Run(set.name, func(t *testing.T) {
			t.Parallel()
			e, worst := open(t, set.name), 0.0
			p := engine.Prompt{IDs: golden(t, set.name)[set.prompt+".input_ids"].ids()}
			want, wantState := rows64(t, e, p, 0)
			for _, chunk := range []int{1, 2, 3, 5, 63, 64, 65, len(p.IDs) - 1} {
				got, gotState := rows64(t, e, p, chunk)
				d, _ := distance(got, want)
				worst = max(worst, d)
				wantState.each(e.d.cfg, func(tap trace.Tap, l int, parts [][]float64) {
					gotState.each(e.d.cfg, func(tap2 trace.Tap, l2 int, parts2 [][]float64) {
						if tap == tap2 && l == l2 {
							d, _ := distance(slices.Concat(parts2...), slices.Concat(parts...))
							worst = max(worst, d)
						}
					})
				})
				if worst > 1e-9 {
					t.Fatalf("chunk=%d: %g away from prefill", chunk, worst)
				}
			}
			t.Logf("worst %.2g", worst)
		})
	}
}

// TestConverted: a model too large to keep is converted piece by piece at every use, with the same results.
func TestConverted(t *testing.T) {
	t.Parallel()
	for _, set := range []struct{ name, prompt string }{{"tiny-dense-tied", "p17"}, {"tiny-moe", "p17"}} {
		g, e := golden(t, set.name), open(t, set.name)
		p := engine.Prompt{IDs: g[set.prompt+".input_ids"].ids()}
		kept, _ := rows64(t, e, p, 0)
		for _, m := range e.d.matrices() {
			m.keep, m.f64 = false, nil
		}
		converted, _ := rows64(t, e, p, 0)
		if d, _ := distance(converted, kept); d > 1e-9 {
			t.Errorf("%s: converted weights give logits %g away from kept ones", set.name, d)
		}
		for _, m := range e.d.matrices() {
			if m.f64 != nil {
				t.Fatalf("%s: a matrix of a model that is not kept was kept", set.name)
			}
		}
	}
}

// TestPieces: a matrix larger than a piece, whose rows are all equal, gives equal sums: ties stay ties.
func TestPieces(t *testing.T) {
	t.Parallel()
	const cols = 48
	rows := 2*pieceElems/cols + 1000
	m := &matrix{rows: rows, cols: cols}
	m.stored.DType, m.stored.Data = "BF16", make([]byte, 2*rows*cols)
	for i := range rows * cols {
		m.stored.Data[2*i], m.stored.Data[2*i+1] = byte(17*(i%cols)), 0x3f
	}
	if m.pieces() != 3 {
		t.Errorf("%d numbers are converted in %d pieces, want 3", rows*cols, m.pieces())
	}
	x := make([]float64, cols)
	for i := range x {
		x[i] = math.Sin(float64(i))
	}
	y, want := m.mul(x), 0.0
	for i, w := range m.rowsOf(0, 1) {
		want += w * x[i]
	}
	if math.Abs(y[0]-want) > 1e-12 {
		t.Errorf("row 0: got %g, want %g", y[0], want)
	}
	for i, v := range y {
		if v != y[0] {
			t.Fatalf("row %d of %d: %g, row 0: %g, though the rows are equal", i, rows, v, y[0])
		}
	}
}

// TestKeep: the bound on converted weights.
func TestKeep(t *testing.T) {
	t.Parallel()
	fits := []*matrix{{rows: keepLimit / 16, cols: 1}, {rows: 1, cols: keepLimit / 16}}
	if keep(fits); !fits[0].keep || !fits[1].keep {
		t.Error("matrices of exactly the limit are not kept")
	}
	if keep(append(fits, &matrix{rows: 1, cols: 1})); fits[0].keep || fits[1].keep {
		t.Error("matrices beyond the limit are kept")
	}
}

// TestTaps: every tap of the table is emitted with the right size, for each kind of layer, in chunks too, and nothing beside them.
func TestTaps(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tiny-asym", "tiny-moe"} {
		e := open(t, name)
		prompts := []engine.Prompt{{IDs: []int32{1, 2, 3, 4, 5, 6, 7}}, {IDs: []int32{9}}}
		c := &collector{t: t}
		err := e.Score(context.Background(), prompts, engine.Want{Taps: c, From: 6, Path: engine.Path{Chunk: 3}},
			func(p *engine.Position) error {
				if p.Pos != 6 {
					t.Errorf("position %d was reported below From", p.Pos)
				}
				return nil
			})
		if err != nil {
			t.Fatal(err)
		}
		for seq, p := range prompts {
			all := trace.All(e.d.cfg)
			for _, entry := range all {
				want := 1
				for _, n := range entry.Shape(e.d.cfg, len(p.IDs)) {
					want *= n
				}
				rows := len(p.IDs)
				if entry.Tap.Cache() {
					rows = 1
				}
				if got := len(c.data[seq][entry.Name]); got != want || c.rows[seq][entry.Name] != rows {
					t.Errorf("%s: sequence %d: %s has %d numbers in %d rows, want %d in %d", name, seq, entry.Name, got, c.rows[seq][entry.Name], want, rows)
				}
			}
			if len(c.data[seq]) != len(all) {
				t.Errorf("%s: %d tensors were emitted, the table has %d", name, len(c.data[seq]), len(all))
			}
		}
	}
}

// failing is a sink that fails at one tap.
type failing struct{ at string }

var errSink = errors.New("disk full")

func (f failing) Wants(name string) bool                     { return name == f.at }
func (f failing) Put(string, int, int, int, []float32) error { return errSink }

// TestStops: an error of the sink or the callback, and a cancelled context, end the run and come back.
func TestStops(t *testing.T) {
	t.Parallel()
	e, ids := open(t, "tiny-asym"), []engine.Prompt{{IDs: []int32{1, 2, 3}}}
	nothing := func(*engine.Position) error { return nil }
	for _, tap := range []string{"embed", "layer2.gdn.g", "layer3.attn.q_rope", "logits", "cache.layer3.key"} {
		if err := e.Score(context.Background(), ids, engine.Want{Taps: failing{tap}}, nothing); !errors.Is(err, errSink) {
			t.Errorf("sink failed at %s: got %v", tap, err)
		}
	}
	shown := 0
	err := e.Score(context.Background(), ids, engine.Want{}, func(*engine.Position) error { shown++; return errSink })
	if !errors.Is(err, errSink) || shown != 1 {
		t.Errorf("callback failed: got %v after %d calls", err, shown)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.Score(ctx, ids, engine.Want{}, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

// TestStates: a state taken out, in float32, and continued is one pass, up to that rounding; it is not changed; and it is
// the same from Prefill, Score and Generate.
func TestStates(t *testing.T) {
	t.Parallel()
	ctx, g, e := context.Background(), golden(t, "tiny-asym"), open(t, "tiny-asym")
	ids := g["p70.input_ids"].ids()
	whole, _ := score(t, e, engine.Prompt{IDs: ids}, engine.Want{})

	st, err := e.Prefill(ctx, engine.Prompt{IDs: ids[:69]}, engine.Path{})
	if err != nil {
		t.Fatal(err)
	}
	if st.Len != 69 || len(st.Tensors) != 2*4 {
		t.Fatalf("state of %d tokens with %d tensors", st.Len, len(st.Tensors))
	}
	before := fmt.Sprint(st)
	for range 2 { // twice: the first must leave it alone
		p, err := e.Step(ctx, st, ids[69], 5)
		if err != nil {
			t.Fatal(err)
		}
		row := make([]float64, len(p.Logits))
		for i, v := range p.Logits {
			row[i] = float64(v)
		}
		if d, _ := distance(row, whole[69]); d > 1e-5 {
			t.Errorf("step from a state: logits %g away from one pass", d)
		}
		if p.Pos != 69 || len(p.Top) != 5 || p.Top[0].ID != p.ID {
			t.Errorf("step shows position %d, top %v, id %d", p.Pos, p.Top, p.ID)
		}
		if fmt.Sprint(st) != before {
			t.Fatal("Step changed the state it was given")
		}
	}

	st, err = e.Prefill(ctx, engine.Prompt{IDs: ids[:40]}, engine.Path{Chunk: 7})
	if err != nil {
		t.Fatal(err)
	}
	final := new(engine.State)
	rest, _ := score(t, e, engine.Prompt{IDs: ids[40:]}, engine.Want{State: st, FinalState: final})
	if d, _ := distance(slices.Concat(rest...), slices.Concat(whole[40:]...)); d > 1e-5 {
		t.Errorf("continued prefill: logits %g away from one pass", d)
	}
	if final.Len != 70 {
		t.Errorf("final state of %d tokens, want 70", final.Len)
	}

	generated := new(engine.State)
	force := ids[60:]
	err = e.Generate(ctx, engine.Prompt{IDs: ids[:60]}, engine.Options{Force: force, FinalState: generated, Logits: true},
		func(tok *engine.Token) error {
			if tok.ID != force[tok.Index] {
				t.Errorf("forced token %d is %d, want %d", tok.Index, tok.ID, force[tok.Index])
			}
			for i, v := range tok.Logits {
				if math.Abs(float64(v)-whole[59+tok.Index][i]) > 1e-5 {
					t.Fatalf("forced token %d: logit %d is %g, one pass gives %g", tok.Index, i, v, whole[59+tok.Index][i])
				}
			}
			return nil
		})
	if err != nil || generated.Len != 69 {
		t.Errorf("forced rollout ends at length %d, want 69 (the last token is not consumed): %v", generated.Len, err)
	}
	if conv := generated.Tensors["cache.layer0.conv_state"]; !slices.Equal(conv.Shape, []int{e.d.cfg.QKVDim(), 4}) {
		t.Errorf("conv state has shape %v", conv.Shape)
	}
}

// TestGenerate: Choose, Stop and TopK.
func TestGenerate(t *testing.T) {
	t.Parallel()
	e := open(t, "tiny-asym")
	lowest := func(logits []float32) int32 { return int32(slices.Index(logits, slices.Min(logits))) }
	var got []int32
	opt := engine.Options{MaxTokens: 6, Choose: lowest, TopK: 4}
	run := func() error {
		got = nil
		return e.Generate(context.Background(), engine.Prompt{IDs: []int32{5, 6}}, opt, func(tok *engine.Token) error {
			got = append(got, tok.ID)
			if tok.ID == tok.Position.ID || len(tok.Top) != 4 || tok.Logits != nil {
				t.Errorf("token %d: chosen %d, argmax %d, %d candidates, %d logits", tok.Index, tok.ID, tok.Position.ID, len(tok.Top), len(tok.Logits))
			}
			return nil
		})
	}
	if err := run(); err != nil || len(got) != 6 {
		t.Fatalf("%v: %v", got, err)
	}
	all := got
	opt.Stop = []int32{all[2]}
	if err := run(); err != nil || !slices.Equal(got, all[:slices.Index(all, all[2])+1]) {
		t.Errorf("stop at %d: got %v of %v: %v", all[2], got, all, err)
	}
	opt.Choose = func([]float32) int32 { return -1 }
	if err := run(); err == nil || !strings.Contains(err.Error(), "chosen id: ids[0]: found -1") {
		t.Errorf("an id outside the vocabulary was chosen: %v", err)
	}
}

// TestGeneratePositions: after a prompt with positions of its own, generated tokens go on from the largest of them.
func TestGeneratePositions(t *testing.T) {
	t.Parallel()
	e, ids := open(t, "tiny-asym"), []int32{3, 1, 4, 1, 5, 9}
	pos := [][3]int32{{0, 0, 0}, {1, 1, 1}, {1, 1, 30}, {1, 2, 8}, {31, 31, 31}, {32, 32, 32}}
	want, _ := score(t, e, engine.Prompt{IDs: ids, PositionIDs: pos}, engine.Want{From: 3})
	text, _ := score(t, e, engine.Prompt{IDs: ids}, engine.Want{From: 3})
	opt := engine.Options{Force: []int32{5, 9, 2}, Logits: true}
	err := e.Generate(context.Background(), engine.Prompt{IDs: ids[:4], PositionIDs: pos[:4]}, opt, func(tok *engine.Token) error {
		for i, v := range tok.Logits {
			if math.Abs(float64(v)-want[tok.Index][i]) > 1e-6 {
				t.Fatalf("token %d: logit %d is %g, the same positions given give %g, text positions %g", tok.Index, i, v, want[tok.Index][i], text[tok.Index][i])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := distance(text[2], want[2]); d < 1e-3 {
		t.Errorf("the positions change the logits by %g only: the test shows nothing", d)
	}
}

// TestTies: equal head rows are exact ties in float64, in a model that is kept and in one that is not.
func TestTies(t *testing.T) {
	t.Parallel()
	g, e := golden(t, "edge-ties"), open(t, "edge-ties")
	for _, keep := range []bool{true, false} {
		for _, m := range e.d.matrices() {
			m.keep = keep
		}
		for p, ids := range prompts(g) {
			err := e.Score(context.Background(), []engine.Prompt{{IDs: ids}}, engine.Want{}, func(pos *engine.Position) error {
				if want := int32(g[p+".argmax_lowest"].data[pos.Pos]); pos.ID != want {
					t.Errorf("%s position %d: id %d, want the lowest of the tie, %d", p, pos.Pos, pos.ID, want)
				}
				if want := int(g[p+".tie_count"].data[pos.Pos]); len(pos.Ties) != want || pos.Ties[0] != pos.ID {
					t.Errorf("%s position %d: ties %v, want %d of them", p, pos.Pos, pos.Ties, want)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestBrokenWeights: NaN in a weight runs to the end and shows, and neither panics nor ties with everything.
func TestBrokenWeights(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tiny-asym", "tiny-moe"} {
		e := open(t, name)
		e.d.layers[0].inputNorm[3] = math.NaN()
		err := e.Score(context.Background(), []engine.Prompt{{IDs: []int32{1, 2}}}, engine.Want{}, func(p *engine.Position) error {
			if len(p.Ties) != 1 || p.LSE == p.LSE {
				t.Errorf("%s: a row of NaN shows %d ties and LSE %g", name, len(p.Ties), p.LSE)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		// No id is chosen of such a row, unless somebody asks for it.
		for _, asked := range []bool{false, true} {
			tokens, opt := 0, engine.Options{MaxTokens: 2, NonFinite: asked}
			err := e.Generate(context.Background(), engine.Prompt{IDs: []int32{1, 2}}, opt, func(*engine.Token) error { tokens++; return nil })
			refused := err != nil && strings.Contains(err.Error(), "@fp64: logits after position 1: found NaN for id 0, want numbers") && tokens == 0
			if asked && (err != nil || tokens != 2) || !asked && !refused {
				t.Errorf("%s: NonFinite %v: %d tokens, %v", name, asked, tokens, err)
			}
		}
	}
}

// TestRefused: bad input, with the whole text of each error.
func TestRefused(t *testing.T) {
	t.Parallel()
	ctx, e := context.Background(), open(t, "tiny-asym")
	st, err := e.Prefill(ctx, engine.Prompt{IDs: []int32{1, 2, 3}}, engine.Path{})
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(*engine.State)) *engine.State {
		c := &engine.State{Len: st.Len, Tensors: map[string]engine.StateTensor{}}
		for k, v := range st.Tensors {
			c.Tensors[k] = v
		}
		f(c)
		return c
	}
	text := func(n int) engine.Prompt { return engine.Prompt{IDs: make([]int32, n)} }
	file := e.d.cfg.File
	for _, tt := range []struct {
		name, why string
		prompts   []engine.Prompt
		want      engine.Want
		err       string
	}{
		{"empty", "no position exists", []engine.Prompt{text(1), text(0)}, engine.Want{},
			"prompt 1: ids: found no token, want at least one; give a text or ids that are not empty"},
		{"id-high", "one past the vocabulary", []engine.Prompt{{IDs: []int32{1, 170}}}, engine.Want{},
			"prompt 0: ids[1]: found 170, want 0..169 (vocab_size of " + file + "); use this model's tokenizer"},
		{"id-negative", "an index before the embedding", []engine.Prompt{{IDs: []int32{-1}}}, engine.Want{},
			"prompt 0: ids[0]: found -1, want 0..169 (vocab_size of " + file + "); use this model's tokenizer"},
		{"too-long", "one past max_position_embeddings", []engine.Prompt{text(4097)}, engine.Want{},
			"prompt 0: length: found 4097 tokens, want at most 4096 (max_position_embeddings of " + file + "); shorten the prompt or generate fewer tokens"},
		{"too-long-on-state", "the state counts", []engine.Prompt{text(4094)}, engine.Want{State: st},
			"prompt 0: length: found 4097 tokens, want at most 4096 (max_position_embeddings of " + file + "); shorten the prompt or generate fewer tokens"},
		{"positions-short", "a token without a position", []engine.Prompt{{IDs: []int32{1, 2}, PositionIDs: [][3]int32{{}}}}, engine.Want{},
			"prompt 0: position ids: found 1 of them, want 2, one triple a token; give [3,T] positions for the same tokens"},
		{"position-negative", "no such position", []engine.Prompt{{IDs: []int32{1}, PositionIDs: [][3]int32{{0, -2, 0}}}}, engine.Want{},
			"prompt 0: position ids[0]: found [0 -2 0], want 0..4095; correct the positions"},
		{"chunk-negative", "no such path", []engine.Prompt{text(1)}, engine.Want{Path: engine.Path{Chunk: -1}},
			"prompt 0: path: found chunks of -1 tokens, want prefill, step or chunk=N (prefill+1, chunk=N+1: the last token in a call of its own); choose one of them"},
		{"two-with-state", "which of them continues?", []engine.Prompt{text(1), text(1)}, engine.Want{State: st},
			"prompts: found 2 of them, want one, since a state goes in or out; score the prompts one at a time"},
		{"state-missing", "half a state", []engine.Prompt{text(1)}, engine.Want{State: edit(func(s *engine.State) { delete(s.Tensors, "cache.layer3.value") })},
			"state: cache.layer3.value: found shape [] with 0 numbers, want shape [2 3 48]; give a state of this model, made by a prefill"},
		{"state-shape", "another model's, or transposed", []engine.Prompt{text(1)}, engine.Want{State: edit(func(s *engine.State) {
			s.Tensors["cache.layer3.key"] = engine.StateTensor{Shape: []int{3, 2, 48}, Data: make([]float32, 288)}
		})},
			"state: cache.layer3.key: found shape [3 2 48] with 288 numbers, want shape [2 3 48]; give a state of this model, made by a prefill"},
		{"state-data", "the shape lies", []engine.Prompt{text(1)}, engine.Want{State: edit(func(s *engine.State) {
			s.Tensors["cache.layer3.key"] = engine.StateTensor{Shape: []int{2, 3, 48}, Data: make([]float32, 287)}
		})},
			"state: cache.layer3.key: found shape [2 3 48] with 287 numbers, want shape [2 3 48]; give a state of this model, made by a prefill"},
		{"state-extra", "a deeper model's", []engine.Prompt{text(1)}, engine.Want{State: edit(func(s *engine.State) { s.Tensors["cache.layer7.key"] = engine.StateTensor{} })},
			"state: tensors: found 9 of them, want the 8 states of this model; give a state of this model, made by a prefill"},
		{"state-length", "a length from nowhere must not be allocated", []engine.Prompt{text(1)}, engine.Want{State: edit(func(s *engine.State) { s.Len = math.MinInt })},
			"prompt 0: state: found a length of -9223372036854775808 tokens, want 0..4096; give a state of this model"},
	} {
		err := e.Score(ctx, tt.prompts, tt.want, func(*engine.Position) error {
			t.Errorf("%s: a position was shown", tt.name)
			return errSink
		})
		if bad := new(inputerr.Error); errText(err) != tt.err || !errors.As(err, &bad) {
			t.Errorf("%s: Score\ngot  %v\nwant %s\nwhy: %s", tt.name, err, tt.err, tt.why)
		}
	}

	none := func(*engine.Token) error { return nil }
	if err := e.Generate(ctx, text(4000), engine.Options{MaxTokens: math.MaxInt}, none); !strings.Contains(errText(err), "want at most 4096") {
		t.Errorf("Generate of MaxInt tokens: %v", err)
	}
	if err := e.Generate(ctx, text(1), engine.Options{Force: []int32{3, 170}}, none); !strings.HasPrefix(errText(err), "forced ids: ids[1]: found 170, want 0..169") {
		t.Errorf("Generate with a forced id outside the vocabulary: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := e.Score(ctx, []engine.Prompt{text(1)}, engine.Want{}, nil); errText(err) != "fp64: the engine is closed" {
		t.Errorf("Score after Close: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// TestOpen: what fp64 does not have is refused by name.
func TestOpen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		spec engine.Spec
		want string
	}{
		{engine.Spec{Model: "m", Contract: "hf-fp32"}, `m@fp64: contract: found "hf-fp32", want none`},
		{engine.Spec{Model: "m", Scheme: "int8lin"}, `m@fp64: scheme: found "int8lin", want none`},
		{engine.Spec{Model: "m", Mode: "exact"}, `m@fp64: mode: found "exact", want none`},
		{engine.Spec{Model: "m", Delta: "chunk"}, `m@fp64: delta: found "chunk", want none`},
	} {
		if _, err := engine.Open(context.Background(), "fp64", tt.spec); !strings.HasPrefix(errText(err), tt.want) {
			t.Errorf("Open(%+v) = %v, want %s", tt.spec, err, tt.want)
		}
	}
	info := open(t, "opticks-2m").Info()
	if !info.Shows.Has(engine.IDs|engine.TopK|engine.Logits|engine.Taps|engine.ReadState|engine.TakeState) || info.LogitsDType != "F64" || info.Contract != "float64" {
		t.Errorf("info %+v", info)
	}
}

// matrices lists every matrix of the model.
func (d *decoder) matrices() []*matrix {
	out := []*matrix{d.embed, d.head}
	for _, l := range d.layers {
		if w := l.gdn; w != nil {
			out = append(out, w.inProjQKV, w.inProjZ, w.inProjB, w.inProjA, w.outProj)
		}
		if w := l.attn; w != nil {
			out = append(out, w.qProj, w.kProj, w.vProj, w.oProj)
		}
		all := []*mlp{l.mlp}
		if w := l.moe; w != nil {
			out, all = append(out, w.router, w.sharedGate), []*mlp{&w.shared}
			for e := range w.experts {
				all = append(all, &w.experts[e])
			}
		}
		for _, w := range all {
			out = append(out, w.gate, w.up, w.down)
		}
	}
	return out
}
