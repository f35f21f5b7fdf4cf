package refcache

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"sibyl/engine"
)

// stateHeader is the first line of a kept state; the tensors' values follow in its order, float32 little endian.
type stateHeader struct {
	Len     int           `json:"len"`
	IDs     []int32       `json:"ids"`
	Tensors []stateTensor `json:"tensors"`
}

type stateTensor struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
}

// Prefill implements engine.Stater: the state after a prompt is kept too, since part 3 of a gate starts from it.
func (e *Engine) Prefill(ctx context.Context, prompt engine.Prompt, path engine.Path) (*engine.State, error) {
	from, ok := e.inner.(engine.Stater)
	if !ok {
		return nil, fmt.Errorf("%s has no states: %w", e.info.Engine, engine.ErrNotShown)
	}
	if e.through(false, nil, nil, nil, path, prompt) || !e.info.Shows.Has(engine.ReadState) {
		return from.Prefill(ctx, prompt, path)
	}
	k := e.textKey("state", path, prompt.IDs)
	if data, ok := e.store.get(k); ok {
		s, err := decodeState(data, prompt.IDs)
		if err == nil {
			e.store.count(func(t *Stats) { t.Known++ })
			return s, nil
		}
		e.store.distrust(e.store.path(k), err.Error())
	}
	e.store.count(func(t *Stats) { t.Run++ })
	s, err := from.Prefill(ctx, prompt, path)
	if err != nil {
		return nil, err
	}
	data, err := encodeState(s, prompt.IDs)
	if err != nil {
		return nil, err
	}
	e.store.put(k, data)
	return s, nil
}

// Step implements engine.Stater. It goes through: the state it starts from is in no key.
func (e *Engine) Step(ctx context.Context, state *engine.State, id int32, topK int) (*engine.Position, error) {
	to, ok := e.inner.(engine.Stater)
	if !ok {
		return nil, fmt.Errorf("%s has no states: %w", e.info.Engine, engine.ErrNotShown)
	}
	return to.Step(ctx, state, id, topK)
}

func encodeState(s *engine.State, ids []int32) ([]byte, error) {
	h := stateHeader{Len: s.Len, IDs: ids}
	names, size := slices.Sorted(maps.Keys(s.Tensors)), 0
	for _, name := range names {
		h.Tensors = append(h.Tensors, stateTensor{name, s.Tensors[name].Shape})
		size += 4 * len(s.Tensors[name].Data)
	}
	line, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("keeping a state: %w", err)
	}
	out := append(make([]byte, 0, len(line)+1+size), line...)
	out = append(out, '\n')
	for _, name := range names {
		for _, x := range s.Tensors[name].Data {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
		}
	}
	return out, nil
}

// decodeState reads what encodeState wrote, for the same ids. Sizes come from the shapes only after they were seen to
// add up to what is there.
func decodeState(data []byte, ids []int32) (*engine.State, error) {
	line, values, ok := bytes.Cut(data, []byte("\n"))
	var h stateHeader
	if !ok || json.Unmarshal(line, &h) != nil {
		return nil, errors.New("it does not hold a state")
	}
	if !slices.Equal(h.IDs, ids) || h.Len != len(ids) {
		return nil, errors.New("it is about other ids")
	}
	s := &engine.State{Len: h.Len, Tensors: make(map[string]engine.StateTensor, len(h.Tensors))}
	for _, t := range h.Tensors {
		n := 1
		for _, d := range t.Shape {
			if d < 0 || d > 0 && n > len(values)/d {
				return nil, errors.New("its shapes and its bytes do not agree: " + strconv.Quote(t.Name))
			}
			n *= d
		}
		if len(values) < 4*n {
			return nil, errors.New("its shapes and its bytes do not agree: " + strconv.Quote(t.Name))
		}
		x := make([]float32, n)
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(values[4*i:]))
		}
		values = values[4*n:]
		s.Tensors[t.Name] = engine.StateTensor{Shape: t.Shape, Data: x}
	}
	if len(values) > 0 {
		return nil, fmt.Errorf("%d bytes are left over", len(values))
	}
	return s, nil
}
