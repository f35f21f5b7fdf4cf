package tokenizer

import "slices"

// mergeTable maps a pair of ids to the rank of their merge and the id it makes. It is an open-addressing table rather than
// a Go map: a look-up is the inner loop of encoding, and filling it a good part of loading.
type mergeTable struct {
	keys []uint64 // pair+1, 0 = empty
	vals []merge
	mask uint64
}

// merge is one line of the merges: the pair becomes id; lower ranks go first.
type merge struct{ rank, id int32 }

func newMergeTable(n int) mergeTable {
	size := 16
	for size < 2*n {
		size *= 2
	}
	return mergeTable{keys: make([]uint64, size), vals: make([]merge, size), mask: uint64(size - 1)}
}

func pairKey(a, b int32) uint64 { return (uint64(uint32(a))<<32 | uint64(uint32(b))) + 1 }

// slot is where the key is or would go: Fibonacci hashing, linear probing.
func (m *mergeTable) slot(key uint64) uint64 {
	h := key * 0x9e3779b97f4a7c15
	i := (h ^ h>>32) & m.mask
	for m.keys[i] != 0 && m.keys[i] != key {
		i = (i + 1) & m.mask
	}
	return i
}

// add returns false if the pair is there already.
func (m *mergeTable) add(a, b int32, v merge) bool {
	k := pairKey(a, b)
	i := m.slot(k)
	if m.keys[i] != 0 {
		return false
	}
	m.keys[i], m.vals[i] = k, v
	return true
}

func (m *mergeTable) get(a, b int32) (merge, bool) {
	k := pairKey(a, b)
	i := m.slot(k)
	return m.vals[i], m.keys[i] != 0
}

const noRank = int32(1<<31 - 1)

// shortWord is the length in bytes up to which scanning for the lowest rank beats a heap.
const shortWord = 24

// mergeWork is scratch memory, reused from word to word.
type mergeWork struct {
	ids, prev, next []int32
	cand            []merge // cand[i]: what ids[i], ids[i+1] would merge to (short words only)
	heap            []heapItem
}

// heapItem is a merge that was possible when it was pushed: of symbol pos with the one after it.
type heapItem struct {
	key uint64 // rank<<32 | pos: lowest rank first, then leftmost
	id  int32
}

// merge runs BPE over the bytes of word. The result is valid until the next call.
func (w *mergeWork) merge(t *Tokenizer, word string) []int32 {
	w.ids = w.ids[:0]
	for i := range len(word) {
		w.ids = append(w.ids, t.byteID[word[i]])
	}
	switch {
	case len(word) < 2:
	case len(word) <= shortWord:
		w.mergeShort(&t.merges)
	default:
		w.mergeLong(&t.merges)
	}
	return w.ids
}

// mergeShort is the definition: again and again the lowest-ranked pair, the leftmost of equals, becomes one. O(n^2).
func (w *mergeWork) mergeShort(m *mergeTable) {
	ids := w.ids
	cand := w.cand[:0]
	at := func(i int) merge {
		if v, ok := m.get(ids[i], ids[i+1]); ok {
			return v
		}
		return merge{rank: noRank}
	}
	for i := range len(ids) - 1 {
		cand = append(cand, at(i))
	}
	for len(cand) > 0 {
		best := 0
		for i, c := range cand {
			if c.rank < cand[best].rank {
				best = i
			}
		}
		if cand[best].rank == noRank {
			break
		}
		ids[best] = cand[best].id
		ids = slices.Delete(ids, best+1, best+2)
		cand = slices.Delete(cand, best, best+1)
		if best > 0 {
			cand[best-1] = at(best - 1)
		}
		if best < len(cand) {
			cand[best] = at(best)
		}
	}
	w.ids, w.cand = ids, cand[:0]
}

// mergeLong does the same with a linked list and a heap, as Word::merge_all of the Rust library: O(n log n), so that a
// megabyte without a space is no attack.
func (w *mergeWork) mergeLong(m *mergeTable) {
	n := int32(len(w.ids))
	ids := w.ids
	w.prev, w.next = slices.Grow(w.prev[:0], int(n))[:n], slices.Grow(w.next[:0], int(n))[:n]
	prev, next := w.prev, w.next
	h := heapOf(w.heap[:0])
	for i := range n {
		prev[i], next[i] = i-1, i+1
		if i+1 < n {
			if v, ok := m.get(ids[i], ids[i+1]); ok {
				h = append(h, heapItem{uint64(v.rank)<<32 | uint64(i), v.id})
			}
		}
	}
	h.init()
	for len(h) > 0 {
		top := h.pop()
		a := int32(uint32(top.key))
		if ids[a] < 0 || next[a] == n {
			continue // swallowed by its left neighbour, or nothing to its right any more
		}
		b := next[a]
		// An entry is stale when the pair changed after the push. The test is on the id it makes, as in the Rust library.
		if v, ok := m.get(ids[a], ids[b]); !ok || v.id != top.id {
			continue
		}
		ids[a], ids[b] = top.id, -1
		next[a] = next[b]
		if c := next[a]; c < n {
			prev[c] = a
			if v, ok := m.get(ids[a], ids[c]); ok {
				h.push(heapItem{uint64(v.rank)<<32 | uint64(a), v.id})
			}
		}
		if p := prev[a]; p >= 0 {
			if v, ok := m.get(ids[p], ids[a]); ok {
				h.push(heapItem{uint64(v.rank)<<32 | uint64(p), v.id})
			}
		}
	}
	w.heap = h[:0]
	w.ids = ids[:0]
	for i := int32(0); i < n; i = next[i] {
		w.ids = append(w.ids, ids[i])
	}
	if n > 1<<16 { // a huge word is rare: do not keep its memory for the rest of the text
		w.heap, w.prev, w.next = nil, nil, nil
	}
}

// heapOf is a binary min-heap by key, written out because container/heap's interface calls cost three times as much here.
type heapOf []heapItem

func (h heapOf) init() {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h heapOf) down(i int) {
	x := h[i]
	for {
		c := 2*i + 1
		if c >= len(h) {
			break
		}
		if c+1 < len(h) && h[c+1].key < h[c].key {
			c++
		}
		if x.key <= h[c].key {
			break
		}
		h[i] = h[c]
		i = c
	}
	h[i] = x
}

func (h *heapOf) push(x heapItem) {
	*h = append(*h, x)
	s := *h
	i := len(s) - 1
	for i > 0 {
		p := (i - 1) / 2
		if s[p].key <= x.key {
			break
		}
		s[i] = s[p]
		i = p
	}
	s[i] = x
}

func (h *heapOf) pop() heapItem {
	s := *h
	top := s[0]
	last := len(s) - 1
	s[0] = s[last]
	*h = s[:last]
	if last > 0 {
		(*h).down(0)
	}
	return top
}
