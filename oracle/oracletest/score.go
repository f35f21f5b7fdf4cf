package oracletest

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"sibyl/engine"
)

// infoAgrees: what Info says agrees with the model and with the methods present. An engine may have the state methods
// without showing states (a wrapper has them all); then they must say so. One that shows states must have them.
func (s *suite) infoAgrees() {
	i := s.info
	if i.Engine == "" || i.Contract == "" || i.Scheme == "" || i.Subject == "" {
		s.Errorf("Info leaves out who it is: %+v", i)
	}
	if i.VocabSize != s.fx.Config.VocabSize || i.MaxPositions != s.fx.Config.MaxPositions {
		s.Errorf("Info has %d ids and %d positions, the model %d and %d", i.VocabSize, i.MaxPositions, s.fx.Config.VocabSize, s.fx.Config.MaxPositions)
	}
	if !i.Shows.Has(engine.IDs) {
		s.Errorf("Shows is %q; ids are the least", i.Shows)
	}
	if i.Shows.Has(engine.Logits) && !i.Shows.Has(engine.TopK) {
		s.Errorf("Shows is %q; whole rows hold their largest", i.Shows)
	}
	dtypes := []string{"F64", "F32", "F16", "BF16"}
	if i.Shows.Has(engine.TopK) && !slices.Contains(dtypes, i.LogitsDType) {
		s.Errorf("LogitsDType is %q, want one of %v", i.LogitsDType, dtypes)
	}
	_, stater := s.e.(engine.Stater)
	states := i.Shows&(engine.ReadState|engine.TakeState) != 0
	if states && !stater {
		s.Errorf("Shows is %q, but the engine (%T) is no Stater", i.Shows, s.e)
	}
	for _, d := range []string{i.StateDTypes.Recurrent, i.StateDTypes.Conv, i.StateDTypes.KV} {
		if states && !slices.Contains(dtypes, d) {
			s.Errorf("StateDTypes is %+v, want each one of %v", i.StateDTypes, dtypes)
		}
	}
	if i.Mode != "" && i.Mode != "exact" && i.Mode != "fast" && !strings.HasPrefix(i.Mode, "noise:") {
		s.Errorf("Mode is %q, want exact, fast, noise:SEED or nothing", i.Mode)
	}
}

// streamed: an engine that streams tells of each layer before it reads it, once for all prompts, then of parts of the head, and
// shows one prompt after the other. One that does not tells of none.
func (s *suite) streamed() {
	var layers, seqs []int
	n := s.fx.Config.NumLayers
	want := s.want()
	want.Layer = func(l int) {
		if layers = append(layers, l); l < n && len(seqs) > 0 {
			s.Errorf("layer %d after %d positions were shown", l, len(seqs))
		}
	}
	prompts := make([]engine.Prompt, len(s.fx.Prompts))
	for i, ids := range s.fx.Prompts {
		prompts[i].IDs = ids
	}
	if err := s.e.Score(s.Context(), prompts, want, func(p *engine.Position) error { seqs = append(seqs, p.Seq); return nil }); err != nil {
		s.Fatal(err)
	}
	if !s.info.Streams {
		if len(layers) > 0 {
			s.Errorf("layers %v were told of by an engine that does not stream", layers)
		}
		return
	}
	if told := slices.Compact(slices.Clone(layers)); len(told) != n+1 || len(layers) <= n || layers[n-1] != n-1 || !slices.IsSorted(told) {
		s.Errorf("layers %v were told of, want each of %d once and then the head", layers, n)
	}
	if !slices.IsSorted(seqs) {
		s.Errorf("prompts were shown in the order %v, want one after the other", seqs)
	}
}

// scoreOrder: every position of every prompt, once, in order within its prompt.
func (s *suite) scoreOrder() {
	for seq, positions := range s.score(s.want(), s.fx.Prompts...) {
		if len(positions) != len(s.fx.Prompts[seq]) {
			s.Errorf("prompt %d: %d positions of %d", seq, len(positions), len(s.fx.Prompts[seq]))
		}
		for i, p := range positions {
			if p.Pos != i {
				s.Errorf("prompt %d: position %d came as number %d", seq, p.Pos, i)
			}
			if p.ID < 0 || int(p.ID) >= s.info.VocabSize {
				s.Errorf("prompt %d, position %d: id %d", seq, p.Pos, p.ID)
			}
			if !slices.Contains(p.Ties, p.ID) || !slices.IsSorted(p.Ties) || p.Ties[0] != p.ID {
				s.Errorf("prompt %d, position %d: id %d and ties %v, want them ascending with the id first", seq, p.Pos, p.ID, p.Ties)
			}
		}
	}
}

// scoreFrom: positions below From are run, not reported, and change nothing.
func (s *suite) scoreFrom() {
	ids := s.fx.Prompts[0]
	whole := s.score(s.want(), ids)[0]
	for _, from := range []int{1, len(ids) - 1, len(ids)} {
		w := s.want()
		w.From = from
		s.sequence(fmt.Sprintf("From %d against all", from), s.bound(), whole[from:], s.score(w, ids)[0])
	}
}

// topK: sorted, ties by id, no id twice, at least two, never more than the vocabulary, the first is the argmax;
// and a smaller k gives the front of a larger one.
func (s *suite) topK() {
	ids := s.fx.Prompts[0]
	all := s.score(engine.Want{TopK: s.info.VocabSize + 3}, ids)[0]
	for _, k := range []int{1, 2, 7, s.info.VocabSize + 3} {
		for i, p := range s.score(engine.Want{TopK: k}, ids)[0] {
			if want := min(max(2, k), s.info.VocabSize); len(p.Top) != want {
				s.Fatalf("k = %d, position %d: %d candidates, want %d", k, p.Pos, len(p.Top), want)
			}
			for j, c := range p.Top {
				if j > 0 && (c.Logit > p.Top[j-1].Logit || c.Logit == p.Top[j-1].Logit && c.ID <= p.Top[j-1].ID) {
					s.Errorf("k = %d, position %d: candidate %+v after %+v; want larger first, ties by id", k, p.Pos, c, p.Top[j-1])
				}
				if s.exact() && c != all[i].Top[j] {
					s.Errorf("k = %d, position %d: candidate %d is %+v, of all it is %+v", k, p.Pos, j, c, all[i].Top[j])
				}
			}
			tied := 0
			for _, c := range p.Top {
				if c.Logit == p.Top[0].Logit {
					tied++
				}
			}
			if p.Top[0].ID != p.ID || len(p.Ties) < tied {
				s.Errorf("k = %d, position %d: id %d, ties %v, candidates %v", k, p.Pos, p.ID, p.Ties, p.Top)
			}
			if p.Logits != nil {
				s.Errorf("k = %d, position %d: logits that nobody asked for", k, p.Pos)
			}
		}
	}
}

// logits: id, ties, candidates and log-sum-exp are those of the row.
func (s *suite) logits() {
	for _, p := range s.score(s.want(), s.fx.Prompts[0])[0] {
		if len(p.Logits) != s.info.VocabSize {
			s.Fatalf("position %d: %d logits of %d", p.Pos, len(p.Logits), s.info.VocabSize)
		}
		top := float64(p.Logits[p.ID])
		sum, largest := 0.0, 0.0
		var ties []int32
		for id, l := range p.Logits {
			if float64(l) > top {
				s.Errorf("position %d: id %d has %v, the argmax %d only %v", p.Pos, id, l, p.ID, top)
			}
			if float64(l) == top {
				ties = append(ties, int32(id))
			}
			sum += math.Exp(float64(l) - top)
			largest = max(largest, math.Abs(float64(l)))
		}
		// A wider row is rounded to float32 in Logits, so only there may ids tie that do not tie in the row.
		if s.info.LogitsDType != "F64" && !slices.Equal(ties, p.Ties) {
			s.Errorf("position %d: ties %v, in the row %v", p.Pos, p.Ties, ties)
		}
		for _, c := range p.Top {
			if float32(c.Logit) != p.Logits[c.ID] {
				s.Errorf("position %d: candidate %d has %v, in the row %v", p.Pos, c.ID, c.Logit, p.Logits[c.ID])
			}
		}
		// Rounding a row to float32 moves each logit, hence the log-sum-exp, by at most 2^-24 of the largest; summing
		// V terms in float64 by V * 2^-53. An engine that sums in float32 does not pass.
		s.near(fmt.Sprintf("position %d: log-sum-exp and that of the row", p.Pos), 0x1p-23*max(1, largest), p.LSE, top+math.Log(sum))
	}
}

// pathsOf is the cuts every engine must agree on with itself.
var pathsOf = []engine.Path{{Chunk: 0}, {Chunk: 1}, {Chunk: 3}, {Chunk: 64}}

// paths: prefill, step and chunks of any size give the same; where calls matter, paths that are the same calls do.
func (s *suite) paths() {
	w := s.want()
	w.Path = engine.Path{}
	whole := s.score(w, s.fx.Prompts...)
	for _, path := range pathsOf[1:] {
		w.Path = path
		for seq, got := range s.score(w, s.fx.Prompts...) {
			if !s.sameCalls(path, engine.Path{}, len(got)) {
				continue
			}
			s.sequence(fmt.Sprintf("prompt %d, prefill and %s", seq, path), s.bound(), whole[seq], got)
		}
	}
}

// calls: a path is the calls it says, each going on from the state that the one before left. An engine that says that
// calls matter shows it.
func (s *suite) calls() {
	ids := s.fx.Prompts[0]
	steps := s.score(s.want(), ids)[0]
	differ := false
	for _, path := range append(slices.Clone(pathsOf), engine.Path{Last: true}, engine.Path{Chunk: 3, Last: true}) {
		w := s.want()
		w.Path = path
		whole := s.score(w, ids)[0]
		var parts []engine.Position
		var state *engine.State
		for i := 0; i < len(ids); {
			end, left := path.End(i, len(ids)), new(engine.State)
			w.Path, w.State, w.FinalState = engine.Path{}, state, left
			parts = append(parts, s.score(w, ids[i:end])[0]...)
			i, state = end, left
		}
		s.sequence(fmt.Sprintf("path %s and its calls one by one", path), s.stateBound(), whole, parts)
		for i := range whole {
			differ = differ || whole[i].LSE != steps[i].LSE
		}
	}
	if s.info.CallsMatter && s.info.Shows.Has(engine.TopK) && !differ {
		s.Errorf("Info says that calls matter, and no path shows it")
	}
}

// raggedBatch: each prompt alone gives what it gives among the others, in any order.
func (s *suite) raggedBatch() {
	prompts := slices.Clone(s.fx.Prompts)
	together := s.score(s.want(), prompts...)
	slices.Reverse(prompts)
	reversed := s.score(s.want(), prompts...)
	for i, ids := range s.fx.Prompts {
		alone := s.score(s.want(), ids)[0]
		s.sequence(fmt.Sprintf("prompt %d alone and among others", i), s.bound(), alone, together[i])
		s.sequence(fmt.Sprintf("prompt %d in another order", i), s.bound(), together[i], reversed[len(prompts)-1-i])
	}
}

// again: nothing is left over from one call to the next.
func (s *suite) again() {
	first := s.score(s.want(), s.fx.Prompts[0])[0]
	s.score(s.want(), s.fx.Prompts[1])
	o := s.options()
	o.MaxTokens = 2
	s.generate(o, s.fx.Prompts[1])
	s.sequence("the first run and one after others", s.bound(), first, s.score(s.want(), s.fx.Prompts[0])[0])
}
