package model

import (
	"sync"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
)

// stream reads a model that is larger than the memory: a layer's pages are asked for while the layer before is computed,
// and dropped after it, and the head is read in stripes likewise. Results have the same bits: only the order of reading
// changes.
type stream struct {
	src     bundle.Source
	reading sync.WaitGroup // requests under way: the mapping must outlive them
	stripe  int            // bytes of the head in memory at a time
	// The model, or the head alone, does not stay in memory: what was read leaves it, so that what comes next has room.
	short, shortHead bool
	rows             []float32 // a stripe's logits
}

// headStripe is stream.stripe: little beside a layer of a model that needs streaming.
const headStripe = 128 << 20

// done drops layer l and asks for the layer after the next one to come: what a step of tokens does, which goes through a
// layer faster than it is read.
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

// ahead asks for the pages of layer l, or of the head's first stripe after the last one, without waiting for them.
func (s *stream) ahead(l int) {
	switch n := s.src.Config().NumLayers; {
	case l < n:
		s.reading.Go(func() { s.src.WillNeedLayer(l) })
	case l == n:
		if t, err := s.src.Tensor(config.Head, 0); err == nil {
			s.reading.Go(func() { s.src.WillNeed(t, 0, s.stripe) })
		}
	}
}

// rowsAhead asks for rows of the embedding: a row that is missed when it is read brings in a window around it, for nothing.
func (s *stream) rowsAhead(m *kernels.Matrix, ids []int32) {
	t, err := s.src.Tensor(config.Embed, 0)
	if err != nil {
		return
	}
	row := len(t.Data) / m.Rows
	for _, id := range ids {
		s.src.WillNeed(t, int(id)*row, int(id+1)*row)
	}
}

// letGo drops what was read of a table that is not a layer's.
func (s *stream) letGo(r config.Role) {
	if t, err := s.src.Tensor(r, 0); err == nil {
		s.src.Drop(t, 0, -1)
	}
}

// stripeUnit is what a stripe of the head has a multiple of, in rows: whole register tiles and whole blocks of scales.
const stripeUnit = 96

// head is Linear of the head, out [rows, V] of normed rows [rows, H], in stripes of its rows. A logit is a sum over one row
// of the head: where stripes end changes no bit.
// reach is told before each stripe.
func (s *stream) head(out, normed []float32, rows int, head *kernels.Matrix, call *Call, reach func()) error {
	t, err := s.src.Tensor(config.Head, 0)
	if err != nil {
		return err
	}
	V, rowBytes := head.Rows, max(1, int(head.Bytes())/head.Rows)
	size := min(V, max(1, s.stripe/rowBytes/stripeUnit)*stripeUnit)
	if rows > 1 && cap(s.rows) < rows*size {
		s.rows = make([]float32, rows*size)
	}
	stored := len(t.Data) / V // of a row; scales beside it are dropped and come back
	for lo := 0; lo < V; lo += size {
		hi := min(lo+size, V)
		if reach(); s.shortHead && lo > 0 {
			s.src.Forget(t, (lo-size)*stored, lo*stored)
		}
		s.reading.Go(func() { s.src.WillNeed(t, hi*stored, min(hi+size, V)*stored) })
		part := head.Slice(lo, hi)
		if rows == 1 {
			call.Arith.Linear(call.Pool, out[lo:hi], normed, 1, part)
		} else {
			block := s.rows[:rows*(hi-lo)]
			call.Arith.Linear(call.Pool, block, normed, rows, part)
			call.Pool.For(rows, hi-lo, func(a, b int) {
				for i := a; i < b; i++ {
					copy(out[i*V+lo:i*V+hi], block[i*(hi-lo):])
				}
			})
		}
		s.src.Drop(t, lo*stored, hi*stored)
	}
	s.wait()
	s.src.Drop(t, 0, -1) // what lies across two stripes
	return nil
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
	passes := r.embedded()
	st.letGo(config.Embed)
	for l := range d.Layers {
		if r.reach(l); st.short && l > 0 {
			st.src.ForgetLayer(l - 1) // who reads it beside this run has done so
		}
		st.ahead(l + 1)
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
			r.passed(p.rows)
		}
		st.src.DropLayer(l)
		if err := r.letGo(l); err != nil {
			return err
		}
	}
	return r.shown(r.inOrder(passes))
}

// reach tells who asked for it that layer l is next, or, after the last, a part of the head.
func (r *run) reach(l int) {
	if r.want.Layer != nil {
		r.want.Layer(l)
	}
}

// inOrder makes one call of all passes, the prompts one after the other, and gives its residual stream: the head then shows
// them in an order that others can follow, in blocks that are as large whatever the cuts were.
func (r *run) inOrder(passes []pass) []float32 {
	call, H := &r.s.call, r.e.d.Config.HiddenSize
	rows := 0
	for i := range passes {
		rows += passes[i].rows
	}
	seqs, x := []ragged.Seq(nil), make([]float32, 0, rows*H)
	for i := range r.prompts {
		all := ragged.Seq{Index: r.first + i, Row: len(x) / H}
		for _, p := range passes {
			for _, s := range p.seqs {
				if s.Index != all.Index {
					continue
				}
				if all.Len == 0 {
					all.Pos = s.Pos
				}
				all.Len += s.Len
				x = append(x, p.x[s.Row*H:][:s.Len*H]...)
			}
		}
		seqs = append(seqs, all)
	}
	clear(passes)
	call.Seqs, call.States, call.Rows, call.tables = seqs, nil, rows, nil
	return x
}

// embedded makes the passes, each at the input of the first layer.
func (r *run) embedded() (passes []pass) {
	d, call := r.e.d, &r.s.call
	for _, p := range r.prompts {
		r.e.stream.rowsAhead(d.Embed, p.IDs)
	}
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
