package oracletest

import (
	"errors"
	"fmt"

	"sibyl/engine"
	"sibyl/trace"
)

// record runs prompts on a path and gives all taps.
func (s *suite) record(path engine.Path, prompts ...[]int32) *trace.Recorder {
	s.Helper()
	rec := trace.NewRecorder("suite", s.fx.Config, nil, prompts...)
	w := s.want()
	w.Path, w.Taps = path, rec
	positions := s.score(w, prompts...)
	for seq := range prompts {
		if _, err := rec.Sequence(seq); err != nil { // every row came once, in the right shape
			s.Fatalf("taps of prompt %d on path %s: %v", seq, path, err)
		}
		if !s.info.Shows.Has(engine.Logits) {
			continue
		}
		logits := rec.Rows(seq, trace.Logits.Name(-1))
		for i, p := range positions[seq] {
			if v := s.info.VocabSize; len(logits) == len(positions[seq])*v {
				s.rows(fmt.Sprintf("prompt %d, position %d: logits shown and tapped", seq, p.Pos), 0, p.Logits, logits[i*v:][:v])
			}
		}
	}
	return rec
}

// tapsComplete: every tensor of the table, in its shape, of every sequence.
func (s *suite) tapsComplete() {
	rec := s.record(engine.Path{}, s.fx.Prompts...)
	for seq, ids := range s.fx.Prompts {
		for _, e := range trace.All(s.fx.Config) {
			if want := volume(e.Shape(s.fx.Config, len(ids))); len(rec.Rows(seq, e.Name)) != want {
				s.Errorf("prompt %d: %s has %d values, want %d", seq, e.Name, len(rec.Rows(seq, e.Name)), want)
			}
		}
	}
}

// tapsPaths: stepping, chunks and another batch give the tensors that one prefill gives. A tap of experts is
// compared only where bits are promised: a near tie of two experts may fall either way.
func (s *suite) tapsPaths() {
	whole := s.record(engine.Path{}, s.fx.Prompts[0])
	for i, path := range pathsOf[:3] {
		if (i == 0) != s.info.CallsMatter { // there only the batch may be another
			continue
		}
		cut := s.record(path, s.fx.Prompts...)
		for _, e := range trace.All(s.fx.Config) {
			if e.Tap == trace.MoETopKIndex && !s.exact() {
				continue
			}
			s.rows(fmt.Sprintf("%s, prefill alone and %s in a batch", e.Name, path), s.bound(), whole.Rows(0, e.Name), cut.Rows(0, e.Name))
		}
	}
}

// picky wants two taps and refuses all others.
type picky struct {
	names map[string]int
	err   error
}

func (p *picky) Wants(name string) bool { _, ok := p.names[name]; return ok }

func (p *picky) Put(name string, _, _, rows int, _ []float32) error {
	if _, ok := p.names[name]; !ok {
		return fmt.Errorf("%s was handed over, which nobody wants", name)
	}
	p.names[name] += rows
	return p.err
}

// tapsWanted: a sink gets what it wants and nothing else, also along a rollout, whose tokens but the last are rows.
func (s *suite) tapsWanted() {
	ids := s.fx.Prompts[0]
	mid, end := trace.LayerOut.Name(s.fx.Config.NumLayers-1), trace.FinalNorm.Name(-1)
	sink := &picky{names: map[string]int{mid: 0, end: 0}}
	w := s.want()
	w.Taps, w.From = sink, len(ids)-1 // rows are of all positions, whatever is reported
	s.score(w, ids)
	if sink.names[mid] != len(ids) || sink.names[end] != len(ids) {
		s.Errorf("rows by name: %v, want %d each", sink.names, len(ids))
	}
	sink.names[mid], sink.names[end] = 0, 0
	o := s.options()
	o.MaxTokens, o.Taps = 3, sink
	s.generate(o, ids)
	if want := len(ids) + 2; sink.names[mid] != want || sink.names[end] != want {
		s.Errorf("rows by name of a rollout: %v, want %d each", sink.names, want)
	}
}

// tapsSinkError: a sink that fails ends the run with its error.
func (s *suite) tapsSinkError() {
	full := errors.New("disk full")
	for _, name := range []string{trace.Embed.Name(-1), trace.LayerOut.Name(0), trace.Logits.Name(-1)} {
		w := s.want()
		w.Taps = &picky{names: map[string]int{name: 0}, err: full}
		if err := s.e.Score(s.Context(), asPrompts(s.fx.Prompts...), w, func(*engine.Position) error { return nil }); !errors.Is(err, full) {
			s.Errorf("a sink that fails at %s: Score = %v, want its error", name, err)
		}
	}
}
