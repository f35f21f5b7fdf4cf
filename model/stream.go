package model

import (
	"sync"

	"sibyl/bundle"
	"sibyl/internal/ragged"
	"sibyl/precision"
)

// stream reads a model that is larger than the memory: a layer's pages are asked for while the layer before is computed,
// and dropped after it. Results have the same bits: only the order of reading changes.
type stream struct {
	src     bundle.Source
	reading sync.WaitGroup // requests under way: the mapping must outlive them
}

// done drops layer l and asks for the layer after the next one to come.
func (s *stream) done(l int) {
	if s == nil {
		return
	}
	s.src.DropLayer(l)
	s.ahead(l + 2)
}

// wait returns when nothing is under way.
func (s *stream) wait() {
	if s != nil {
		s.reading.Wait()
	}
}

// ahead asks for the pages of layer l, if there is one, without waiting for them.
func (s *stream) ahead(l int) {
	if l < s.src.Config().NumLayers {
		s.reading.Go(func() { s.src.WillNeedLayer(l) })
	}
}

// pass is one call of a layer-major run between two layers.
type pass struct {
	seqs   []ragged.Seq
	states []*State
	rows   int
	x      []float32 // residual stream [rows, H]
	tables map[precision.Round][2][]float32
}

// layerMajor runs all calls of all prompts through one layer after the other, so that each layer is read once. Only one
// layer's states live at a time, unless the caller asked for the final ones.
func (r *run) layerMajor() error {
	d, call, st := r.e.d, &r.s.call, r.e.stream
	st.ahead(0)
	st.ahead(1)
	passes := r.embedded()
	for l := range d.Layers {
		for _, s := range r.s.States {
			d.begin(s, l)
		}
		for i := range passes {
			if err := r.ctx.Err(); err != nil {
				return err
			}
			p := &passes[i]
			p.enter(call)
			d.Layer(l, p.x, call)
			p.tables = call.tables
			if call.Err != nil {
				return call.Err
			}
		}
		st.done(l)
		if err := r.letGo(l); err != nil {
			return err
		}
	}
	for i := range passes {
		passes[i].enter(call)
		if err := r.shown(passes[i].x); err != nil {
			return err
		}
		passes[i].x = nil
	}
	return nil
}

// embedded makes the passes, each at the input of the first layer.
func (r *run) embedded() (passes []pass) {
	d, call := r.e.d, &r.s.call
	for feeds := range r.cuts() {
		ids := r.s.prepare(feeds)
		x := make([]float32, call.Rows*d.Config.HiddenSize)
		d.Embedding(x, ids, call)
		call.advance() // where the next call of these sequences begins
		passes = append(passes, pass{seqs: call.Seqs, states: call.States, rows: call.Rows, x: x})
	}
	return passes
}

// enter makes p the call.
func (p *pass) enter(c *Call) {
	c.Seqs, c.States, c.Rows, c.tables = p.seqs, p.states, p.rows, p.tables
}

// letGo hands the states of layer l to the taps and frees them, unless they are needed after the run: by the caller, or
// by steps that follow.
func (r *run) letGo(l int) error {
	if r.want.FinalState != nil || r.steps {
		return nil // finish hands them over
	}
	if err := r.putStates(l); err != nil {
		return err
	}
	for _, s := range r.s.States {
		s.GDN[l], s.KV[l] = nil, nil
	}
	return nil
}
