package refcache

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strconv"

	"sibyl/engine"
	"sibyl/oracle"
)

// Identity is what an engine's Info does not say of the things its results depend on.
type Identity struct {
	WeightsSHA256, ConfigSHA256 string
	// ContractSHA256 and SchemeSHA256 are of the files of a contract or recipe of the user's own, "" for named ones.
	ContractSHA256, SchemeSHA256 string
	Delta                        string // form of the delta rule, "" for recurrent
}

// Engine answers from the store what is there and asks the engine it wraps for the rest. Kept are ids, ties, the
// largest logits and the log-sum-exp of texts scored and of greedy or forced decode paths, and states after a prompt.
// Calls for rows of logits, taps, sampling, position ids or a state to begin from go through.
type Engine struct {
	inner  engine.Engine
	store  *Store
	base   key
	info   engine.Info
	closed bool
}

var _ engine.Stater = (*Engine)(nil)

// Wrap keeps what e shows. The wrapper owns e: it closes it.
func (s *Store) Wrap(e engine.Engine, id Identity) *Engine {
	i := e.Info()
	k := key{"numerics": strconv.Itoa(Numerics), "weights_sha256": id.WeightsSHA256, "config_sha256": id.ConfigSHA256,
		"engine": i.Engine, "contract": i.Contract, "contract_sha256": id.ContractSHA256, "scheme": i.Scheme, "scheme_sha256": id.SchemeSHA256,
		"mode": i.Mode, "delta": id.Delta, "shows": i.Shows.String()}
	if i.Mode != "exact" {
		k["arch"] = runtime.GOARCH // only exact arithmetic has the same bits everywhere
	}
	if i.Mode == "fast" {
		k["threads"] = strconv.Itoa(i.Threads)
	}
	return &Engine{inner: e, store: s, base: k, info: i}
}

// Info is the wrapped engine's, with the hashes of Identity.
func (e *Engine) Info() engine.Info {
	i := e.inner.Info()
	i.WeightsSHA256, i.ConfigSHA256 = e.base["weights_sha256"], e.base["config_sha256"]
	return i
}

// Close closes the wrapped engine.
func (e *Engine) Close() error {
	e.closed = true
	return e.inner.Close()
}

// record is what a file holds: the tokens consumed and what was shown after them.
type record struct {
	IDs   []int32      `json:"ids"`
	Shown oracle.Shown `json:"shown"`
}

// load gives what is kept under k if it is about ids and shows topK candidates. A record of a decode path may hold
// more tokens than ids: it begins with them.
func (e *Engine) load(k key, ids []int32, topK int) ([]oracle.Seen, bool) {
	data, ok := e.store.get(k)
	if !ok {
		return nil, false
	}
	var r record
	why := ""
	switch err := json.Unmarshal(data, &r); {
	case err != nil:
		why = err.Error()
	case len(r.IDs) < len(ids) || !slices.Equal(r.IDs[:len(ids)], ids) || r.Shown.From+len(r.Shown.Seen) != len(r.IDs):
		why = "it is about other ids"
	case slices.ContainsFunc(r.IDs, func(id int32) bool { return id < 0 || int(id) >= e.info.VocabSize }):
		why = "its ids are not of this vocabulary"
	}
	if why != "" {
		e.store.distrust(e.store.path(k), why)
		return nil, false
	}
	for i := range r.Shown.Seen {
		if e.info.Shows.Has(engine.TopK) && len(r.Shown.Seen[i].Top) < min(max(2, topK), e.info.VocabSize) {
			return nil, false // fewer candidates were asked for then
		}
	}
	return r.Shown.Seen, true
}

func (e *Engine) save(k key, part oracle.PartName, from int, ids []int32, seen []oracle.Seen) {
	data, err := json.Marshal(record{IDs: ids, Shown: oracle.Shown{By: oracle.RoleRef, Part: part, From: from, Seen: seen}})
	if err != nil {
		e.store.warn("reference cache: not written: " + err.Error())
		return
	}
	e.store.put(k, data)
}

// seen copies a position.
func seen(p *engine.Position) oracle.Seen {
	return oracle.Seen{ID: p.ID, Ties: slices.Clone(p.Ties), Top: slices.Clone(p.Top), LSE: p.LSE}
}

// position is a position as the engine showed it, with the candidates asked for.
func position(s *oracle.Seen, seq, pos, topK int) engine.Position {
	return engine.Position{Seq: seq, Pos: pos, ID: s.ID, Ties: slices.Clone(s.Ties), LSE: s.LSE,
		Top: slices.Clone(s.Top[:min(len(s.Top), max(2, topK))])}
}

// textKey is the key of a text scored along a path.
func (e *Engine) textKey(kind string, path engine.Path, ids []int32) key {
	return e.base.with(key{"kind": kind, "path": path.String(), "tokens": strconv.Itoa(len(ids)), "ids_sha256": idsKey(ids)})
}

// through says that a call asks for what is not kept.
func (e *Engine) through(logits bool, taps engine.Sink, from, final *engine.State, path engine.Path, prompts ...engine.Prompt) bool {
	return e.closed || logits || taps != nil || from != nil || final != nil || path.Chunk < 0 ||
		slices.ContainsFunc(prompts, func(p engine.Prompt) bool { return p.PositionIDs != nil || len(p.IDs) == 0 })
}

// Score implements engine.Engine. Texts that are not there are run as one batch, before the known ones are shown: what
// cannot be run is then refused before anything is shown.
func (e *Engine) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	if e.through(want.Logits, want.Taps, want.State, want.FinalState, want.Path, prompts...) || want.TopK > 0 && !e.info.Shows.Has(engine.TopK) {
		return e.inner.Score(ctx, prompts, want, each)
	}
	known := make([][]oracle.Seen, len(prompts))
	var run []int
	for i, p := range prompts {
		var ok bool
		if known[i], ok = e.load(e.textKey("text", want.Path, p.IDs), p.IDs, want.TopK); !ok {
			run = append(run, i)
		}
	}
	if len(run) > 0 {
		if err := e.scoreRest(ctx, prompts, run, want, each); err != nil {
			return err
		}
	}
	e.store.count(func(t *Stats) { t.Known += len(prompts) - len(run); t.Run += len(run) })
	for i, p := range prompts {
		for pos := max(0, want.From); known[i] != nil && pos < len(p.IDs); pos++ {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("reference cache stopped at position %d of prompt %d: %w", pos, i, err)
			}
			q := position(&known[i][pos], i, pos, want.TopK)
			if err := each(&q); err != nil {
				return err
			}
		}
	}
	return nil
}

// scoreRest runs the texts that are not kept. Each is kept as soon as its last position is shown, so that a long job
// that is interrupted has not run for nothing; one of which only the end was asked for is not kept.
func (e *Engine) scoreRest(ctx context.Context, prompts []engine.Prompt, run []int, want engine.Want, each func(*engine.Position) error) error {
	rest := make([]engine.Prompt, len(run))
	for k, i := range run {
		rest[k] = prompts[i]
	}
	rows := make([][]oracle.Seen, len(run))
	return e.inner.Score(ctx, rest, want, func(p *engine.Position) error {
		k := p.Seq
		if k < 0 || k >= len(run) {
			return fmt.Errorf("the engine showed a position of prompt %d of %d", k, len(run))
		}
		ids := rest[k].IDs
		if p.Pos == len(rows[k]) {
			rows[k] = append(rows[k], seen(p))
		}
		q := *p
		q.Seq = run[k]
		if err := each(&q); err != nil {
			return err
		}
		if p.Pos == len(ids)-1 && len(rows[k]) == len(ids) {
			e.save(e.textKey("text", want.Path, ids), oracle.TeacherForced, 0, ids, rows[k])
			rows[k] = nil
		}
		return nil
	})
}

// Generate implements engine.Engine, for greedy and forced decode paths.
func (e *Engine) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	n := opt.MaxTokens
	if opt.Force != nil {
		n = len(opt.Force)
	}
	if e.through(opt.Logits || opt.Choose != nil, opt.Taps, opt.State, opt.FinalState, opt.Path, prompt) || opt.TopK > 0 && !e.info.Shows.Has(engine.TopK) ||
		n <= 0 || n > e.info.MaxPositions-len(prompt.IDs)+1 {
		return e.inner.Generate(ctx, prompt, opt, each)
	}
	k := e.textKey("decode", opt.Path, prompt.IDs).with(key{"forced": ""})
	if opt.Force != nil {
		k["forced"] = idsKey(opt.Force[:n-1]) // the last one is not consumed
	}
	if known, ok := e.load(k, prompt.IDs, opt.TopK); ok {
		if known, ok = enough(known, n, opt); ok {
			e.store.count(func(t *Stats) { t.Known++ })
			return e.replay(ctx, known, prompt, opt, each)
		}
	}
	e.store.count(func(t *Stats) { t.Run++ })
	ids, row := slices.Clone(prompt.IDs), []oracle.Seen(nil)
	err := e.inner.Generate(ctx, prompt, opt, func(t *engine.Token) error {
		row = append(row, seen(&t.Position))
		if len(row) > 1 {
			ids = append(ids, e.consumed(row, opt, len(row)-2))
		}
		return each(t)
	})
	if err == nil && len(row) > 0 {
		e.save(k, oracle.Rollout, len(prompt.IDs)-1, ids, row)
	}
	return err
}

// consumed is the id that was consumed after token i was shown.
func (e *Engine) consumed(row []oracle.Seen, opt engine.Options, i int) int32 {
	if opt.Force != nil {
		return opt.Force[i]
	}
	return row[i].ID
}

// enough cuts what is kept to what is asked for: n tokens, or up to a stop id. ok is false if it does not reach.
func enough(known []oracle.Seen, n int, opt engine.Options) (cut []oracle.Seen, ok bool) {
	for i := range min(n, len(known)) {
		if opt.Force == nil && slices.Contains(opt.Stop, known[i].ID) {
			return known[:i+1], true
		}
	}
	if len(known) < n {
		return nil, false
	}
	return known[:n], true
}

// replay shows a decode path that is kept.
func (e *Engine) replay(ctx context.Context, known []oracle.Seen, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	for i := range known {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("reference cache stopped after %d tokens: %w", i, err)
		}
		t := engine.Token{Index: i, ID: e.consumed(known, opt, i), Position: position(&known[i], 0, len(prompt.IDs)-1+i, opt.TopK)}
		if err := each(&t); err != nil {
			return err
		}
	}
	return nil
}
