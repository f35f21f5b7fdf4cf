package refcache

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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
// largest logits and the log-sum-exp of texts scored and of greedy or forced decode paths, whole rows of logits of
// texts scored with them (up to maxRows a text), and states after a prompt. Calls for taps, sampling, position ids or
// a state to begin from go through.
type Engine struct {
	inner  engine.Engine
	store  *Store
	base   key
	info   engine.Info
	closed bool
}

var (
	_ engine.Stater  = (*Engine)(nil)
	_ engine.Batcher = (*Engine)(nil)
)

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

// maxRows bounds the rows of logits kept of a text: 256 MB are 270 positions of a vocabulary of 248,320.
const maxRows = 256 << 20

// rowBytes is how many bytes the rows of a text take, 0 if they are not asked for.
func (e *Engine) rowBytes(logits bool, ids []int32) int64 {
	if !logits {
		return 0
	}
	return 4 * int64(e.info.VocabSize) * int64(len(ids))
}

// load gives what is kept under k if it is about ids and shows topK candidates; rows are the rows of logits after it,
// of that many bytes. A record of a decode path may hold more tokens than ids: it begins with them.
func (e *Engine) load(k key, ids []int32, topK int, rowBytes int64) (shown []oracle.Seen, rows []byte, ok bool) {
	data, ok := e.store.get(k)
	if !ok {
		return nil, nil, false
	}
	line, rows, _ := bytes.Cut(data, []byte("\n"))
	var r record
	why := ""
	switch err := json.Unmarshal(line, &r); {
	case err != nil:
		why = err.Error()
	case len(r.IDs) < len(ids) || !slices.Equal(r.IDs[:len(ids)], ids) || r.Shown.From+len(r.Shown.Seen) != len(r.IDs):
		why = "it is about other ids"
	case slices.ContainsFunc(r.IDs, func(id int32) bool { return id < 0 || int(id) >= e.info.VocabSize }):
		why = "its ids are not of this vocabulary"
	case int64(len(rows)) != rowBytes:
		why = fmt.Sprintf("it holds %d bytes of logits, want %d", len(rows), rowBytes)
	}
	if why != "" {
		e.store.distrust(e.store.path(k), why)
		return nil, nil, false
	}
	for i := range r.Shown.Seen {
		if e.info.Shows.Has(engine.TopK) && len(r.Shown.Seen[i].Top) < min(max(2, topK), e.info.VocabSize) {
			return nil, nil, false // fewer candidates were asked for then
		}
	}
	return r.Shown.Seen, rows, true
}

// save keeps what was shown of ids, and the rows of logits behind it.
func (e *Engine) save(k key, part oracle.PartName, from int, ids []int32, shown []oracle.Seen, rows []byte) {
	data, err := json.Marshal(record{IDs: ids, Shown: oracle.Shown{By: oracle.RoleRef, Part: part, From: from, Seen: shown}})
	if err != nil {
		e.store.warn("reference cache: not written: " + err.Error())
		return
	}
	if rows != nil {
		data = append(append(data, '\n'), rows...)
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
	if e.through(false, want.Taps, want.State, want.FinalState, want.Path, prompts...) || e.notShown(want.TopK, want.Logits) {
		return e.inner.Score(ctx, prompts, want, each)
	}
	known := make([][]oracle.Seen, len(prompts))
	var run []int
	for i, p := range prompts {
		if known[i], _ = e.text(p.IDs, want); known[i] == nil {
			run = append(run, i)
		}
	}
	if len(run) > 0 && len(run) < len(prompts) && want.Logits && e.info.Streams {
		// It reads its weights once for any number of texts, and who compares rows needs the texts in order.
		run = run[:0]
		for i := range prompts {
			known[i], run = nil, append(run, i)
		}
	}
	if len(run) > 0 {
		if err := e.scoreRest(ctx, prompts, run, want, each); err != nil {
			return err
		}
	}
	e.store.count(func(t *Stats) { t.Known += len(prompts) - len(run); t.Run += len(run) })
	for i, p := range prompts {
		if known[i] == nil {
			continue
		}
		if err := e.show(ctx, i, p.IDs, want, each); err != nil {
			return err
		}
	}
	return nil
}

// notShown says that the engine itself must refuse.
func (e *Engine) notShown(topK int, logits bool) bool {
	return topK > 0 && !e.info.Shows.Has(engine.TopK) || logits && !e.info.Shows.Has(engine.Logits)
}

// scored is the key of a text that was scored, with rows of logits or without.
func (e *Engine) scored(ids []int32, want engine.Want) key {
	if want.Logits {
		return e.textKey("rows", want.Path, ids)
	}
	return e.textKey("text", want.Path, ids)
}

// text gives what is kept of a text.
func (e *Engine) text(ids []int32, want engine.Want) ([]oracle.Seen, []byte) {
	n := e.rowBytes(want.Logits, ids)
	if n > maxRows {
		return nil, nil
	}
	shown, rows, _ := e.load(e.scored(ids, want), ids, want.TopK, n)
	return shown, rows
}

// show shows a text that is kept. Its rows are read a second time, so that those of all texts are never in memory at
// once; each reading checks the whole file.
func (e *Engine) show(ctx context.Context, seq int, ids []int32, want engine.Want, each func(*engine.Position) error) error {
	shown, rows := e.text(ids, want)
	if shown == nil {
		return fmt.Errorf("reference cache: what was kept of prompt %d has gone while it was used", seq)
	}
	for pos := max(0, want.From); pos < len(ids); pos++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("reference cache stopped at position %d of prompt %d: %w", pos, seq, err)
		}
		p := position(&shown[pos], seq, pos, want.TopK)
		if want.Logits {
			p.Logits = floats(rows, pos, e.info.VocabSize)
		}
		if err := each(&p); err != nil {
			return err
		}
	}
	return nil
}

// floats is row pos of [positions, vocab] float32, little endian.
func floats(rows []byte, pos, vocab int) []float32 {
	out := make([]float32, vocab)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(rows[4*(pos*vocab+i):]))
	}
	return out
}

// scoreRest runs the texts that are not kept. Each is kept as soon as its last position is shown, so that a long job
// that is interrupted has not run for nothing; one of which only the end was asked for is not kept.
func (e *Engine) scoreRest(ctx context.Context, prompts []engine.Prompt, run []int, want engine.Want, each func(*engine.Position) error) error {
	rest := make([]engine.Prompt, len(run))
	for k, i := range run {
		rest[k] = prompts[i]
	}
	shown, rows := make([][]oracle.Seen, len(run)), make([][]byte, len(run))
	return e.inner.Score(ctx, rest, want, func(p *engine.Position) error {
		k := p.Seq
		if k < 0 || k >= len(run) {
			return fmt.Errorf("the engine showed a position of prompt %d of %d", k, len(run))
		}
		ids := rest[k].IDs
		keep := p.Pos == len(shown[k]) && e.rowBytes(want.Logits, ids) <= maxRows
		if keep {
			shown[k] = append(shown[k], seen(p))
			for _, x := range p.Logits {
				rows[k] = binary.LittleEndian.AppendUint32(rows[k], math.Float32bits(x))
			}
		}
		q := *p
		q.Seq = run[k]
		if err := each(&q); err != nil {
			return err
		}
		if keep && p.Pos == len(ids)-1 {
			e.save(e.scored(ids, want), oracle.TeacherForced, 0, ids, shown[k], rows[k])
			shown[k], rows[k] = nil, nil
		}
		return nil
	})
}

// Generate implements engine.Engine, for greedy and forced decode paths.
func (e *Engine) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	k := e.decodeKey(prompt, opt)
	if k == nil {
		return e.inner.Generate(ctx, prompt, opt, each)
	}
	if known := e.decoded(k, prompt, opt); known != nil {
		e.store.count(func(t *Stats) { t.Known++ })
		return e.replay(ctx, known, prompt, opt, each)
	}
	e.store.count(func(t *Stats) { t.Run++ })
	w := e.watch(prompt, opt)
	err := e.inner.Generate(ctx, prompt, opt, func(t *engine.Token) error {
		w.add(t)
		return each(t)
	})
	if err == nil {
		w.save(k)
	}
	return err
}

// GenerateAll implements engine.Batcher. What is not kept is run together, if the engine can, before what is known is shown.
func (e *Engine) GenerateAll(ctx context.Context, all []engine.Continuation, opt engine.Options, each func(*engine.Token) error) error {
	of := func(i int) engine.Options { return all[i].Options(opt) }
	inner, together := e.inner.(engine.Batcher)
	keys, late, asked := make([]key, len(all)), make([]bool, len(all)), map[string]bool{}
	var run []int
	for i, c := range all {
		if keys[i] = e.decodeKey(c.Prompt, of(i)); keys[i] != nil {
			path := e.store.path(keys[i])
			late[i] = asked[path] || e.decoded(keys[i], c.Prompt, of(i)) != nil
			asked[path] = true
		}
		if !late[i] {
			run = append(run, i)
		}
	}
	one := func(i int) error {
		err := e.Generate(ctx, all[i].Prompt, of(i), func(t *engine.Token) error {
			t.Seq = i
			return each(t)
		})
		if err != nil {
			err = &engine.PromptError{Seq: i, Err: err}
		}
		return err
	}
	if !together || len(run) < 2 {
		for i := range all {
			if err := one(i); err != nil {
				return err
			}
		}
		return nil
	}
	rest, watched := make([]engine.Continuation, len(run)), make([]*watch, len(run))
	for k, i := range run {
		rest[k], watched[k] = all[i], e.watch(all[i].Prompt, of(i))
	}
	e.store.count(func(t *Stats) { t.Run += len(run) })
	var refused error // by each
	err := inner.GenerateAll(ctx, rest, opt, func(t *engine.Token) error {
		k := t.Seq
		if k < 0 || k >= len(run) {
			return fmt.Errorf("the engine showed a token of prompt %d of %d", k, len(run))
		}
		watched[k].add(t)
		t.Seq = run[k]
		if refused = each(t); refused == nil && keys[run[k]] != nil && watched[k].ended() {
			watched[k].save(keys[run[k]])
		}
		return refused
	})
	if refused != nil {
		return refused
	}
	if err != nil {
		if p, ok := errors.AsType[*engine.PromptError](err); ok && p.Seq >= 0 && p.Seq < len(run) {
			return &engine.PromptError{Seq: run[p.Seq], Err: p.Err}
		}
		return err
	}
	for i := range all {
		if !late[i] {
			continue
		}
		if err := one(i); err != nil {
			return err
		}
	}
	return nil
}

// decodeKey is the key of a decode path; nil if it asks for what is not kept.
func (e *Engine) decodeKey(prompt engine.Prompt, opt engine.Options) key {
	n := opt.Tokens()
	if e.through(opt.Logits || opt.Choose != nil, opt.Taps, opt.State, opt.FinalState, opt.Path, prompt) || e.notShown(opt.TopK, false) ||
		n <= 0 || n > e.info.MaxPositions-len(prompt.IDs)+1 {
		return nil
	}
	k := e.textKey("decode", opt.Path, prompt.IDs).with(key{"forced": ""})
	if opt.Force != nil {
		k["forced"] = idsKey(opt.Force[:n-1]) // the last one is not consumed
	}
	return k
}

// decoded is what is kept of a decode path, nil if it is not, or not far enough.
func (e *Engine) decoded(k key, prompt engine.Prompt, opt engine.Options) []oracle.Seen {
	n := opt.Tokens()
	known, _, ok := e.load(k, prompt.IDs, opt.TopK, 0)
	if ok {
		known, ok = enough(known, n, opt)
	}
	if !ok {
		return nil
	}
	return known
}

// watch gathers a decode path while it is shown.
type watch struct {
	e      *Engine
	prompt engine.Prompt
	opt    engine.Options
	ids    []int32 // consumed
	row    []oracle.Seen
}

func (e *Engine) watch(prompt engine.Prompt, opt engine.Options) *watch {
	return &watch{e: e, prompt: prompt, opt: opt, ids: slices.Clone(prompt.IDs)}
}

func (w *watch) add(t *engine.Token) {
	w.row = append(w.row, seen(&t.Position))
	if len(w.row) > 1 {
		w.ids = append(w.ids, w.e.consumed(w.row, w.opt, len(w.row)-2))
	}
}

// ended says whether nothing more is asked for.
func (w *watch) ended() bool {
	return len(w.row) == w.opt.Tokens() || w.opt.Force == nil && slices.Contains(w.opt.Stop, w.row[len(w.row)-1].ID)
}

// save keeps the path, which has ended.
func (w *watch) save(k key) {
	if len(w.row) > 0 {
		w.e.save(k, oracle.Rollout, len(w.prompt.IDs)-1, w.ids, w.row, nil)
	}
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
		if err := opt.CheckChoice(e.info.Subject, &t.Position); err != nil {
			return err
		}
		if err := each(&t); err != nil {
			return err
		}
	}
	return nil
}
