package tokenizer

import (
	"slices"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// composeNFC brings s to NFC. x/text's norm.NFC.String cannot be used: it is "stream-safe" and inserts U+034F into a run of
// more than 30 combining marks, which Unicode's NFC and Hugging Face do not. Its property tables are right, so they serve
// here; only the composition is ours (UAX #15, section 1.3; the shape is that of the Rust crate
// unicode-normalization-alignments 0.1, recompose.rs).
//
// align maps each code point of the result to the code point of s whose place it has; nil when s was NFC already or none
// was asked for. It is the Rust library's idea of alignment: a composed character takes the place of its first part, and
// after a reordering of marks the places stay in order.
func composeNFC(s string, wantAlign bool) (out string, align []int32) {
	if norm.NFC.IsNormalString(s) { // never true by mistake: it errs only on long runs of marks, by saying false
		return s, nil
	}
	c := composer{wantAlign: wantAlign, buf: make([]byte, 0, len(s)+len(s)/8)}
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf && (i+1 == len(s) || s[i+1] < utf8.RuneSelf) {
			c.put(nfcRune{r: rune(s[i])})
			i++
			continue
		}
		// A segment runs to the next ASCII character: that is a starter nothing composes with to its left.
		j := i + 1
		for j < len(s) && s[j] >= utf8.RuneSelf {
			j++
		}
		c.segment(s[i:j])
		i = j
	}
	return string(c.buf), c.align
}

// nfcRune is a code point on its way. change says how the result's place moves in the original, as in the Rust crate:
// 0 it replaces one code point, 1 it is new (a further part of a decomposition), -n it replaces one and swallows n more.
type nfcRune struct {
	r      rune
	ccc    uint8
	change int32
}

type composer struct {
	wantAlign bool
	buf       []byte
	align     []int32
	at        int32 // place in the original: code points used up so far
	parts     []nfcRune
}

func (c *composer) put(x nfcRune) {
	c.buf = utf8.AppendRune(c.buf, x.r)
	if c.wantAlign {
		place := c.at
		if x.change > 0 {
			place = max(c.at-1, 0) // shares the place of the one before
		}
		c.align = append(c.align, place)
	}
	if x.change <= 0 {
		c.at += 1 - x.change
	}
}

// segment decomposes, orders the marks, and composes again.
func (c *composer) segment(s string) {
	parts := c.parts[:0]
	for _, r := range s {
		parts = decompose(parts, r)
	}
	c.parts = parts
	for i := 0; i < len(parts); {
		if parts[i].ccc == 0 {
			i++
			continue
		}
		j := i + 1
		for j < len(parts) && parts[j].ccc != 0 {
			j++
		}
		slices.SortStableFunc(parts[i:j], func(a, b nfcRune) int { return int(a.ccc) - int(b.ccc) })
		i = j
	}
	c.compose(parts)
}

// compose joins each starter with the marks (or the starter) after it that are not blocked, in place, and emits the rest.
func (c *composer) compose(parts []nfcRune) {
	for i := 0; i < len(parts); {
		if parts[i].ccc != 0 { // a mark without a starter
			c.put(parts[i])
			i++
			continue
		}
		starter := parts[i]
		kept := i + 1 // parts[i+1:kept] are the marks that did not compose
		lastCCC := -1 // of the last of them
		j := i + 1
		for ; j < len(parts); j++ {
			x := parts[j]
			blocked := lastCCC >= int(x.ccc)
			if !blocked {
				if r, ok := pairComposes(starter.r, x.r); ok {
					starter.r, starter.change = r, starter.change+x.change-1
					continue
				}
			}
			if x.ccc == 0 {
				break
			}
			lastCCC = int(x.ccc)
			parts[kept] = x
			kept++
		}
		c.put(starter)
		for _, x := range parts[i+1 : kept] {
			c.put(x)
		}
		i = j
	}
}

// Hangul syllables are composed by arithmetic (The Unicode Standard, 3.12).
const (
	hangulS, hangulL, hangulV, hangulT = 0xAC00, 0x1100, 0x1161, 0x11A7
	hangulNL, hangulNV, hangulNT       = 19, 21, 28
)

func decompose(to []nfcRune, r rune) []nfcRune {
	if r < 0xC0 {
		return append(to, nfcRune{r: r})
	}
	if i := r - hangulS; i >= 0 && i < hangulNL*hangulNV*hangulNT {
		to = append(to, nfcRune{r: hangulL + i/(hangulNV*hangulNT)}, nfcRune{r: hangulV + i%(hangulNV*hangulNT)/hangulNT, change: 1})
		if t := i % hangulNT; t > 0 {
			to = append(to, nfcRune{r: hangulT + t, change: 1})
		}
		return to
	}
	p := properties(r)
	d := p.Decomposition()
	if d == nil {
		return append(to, nfcRune{r: r, ccc: p.CCC()})
	}
	for i := 0; i < len(d); {
		x, n := utf8.DecodeRune(d[i:])
		part := nfcRune{r: x, ccc: properties(x).CCC()}
		if i > 0 {
			part.change = 1
		}
		to = append(to, part)
		i += n
	}
	return to
}

func properties(r rune) norm.Properties {
	var b [utf8.UTFMax]byte
	return norm.NFD.Properties(b[:utf8.EncodeRune(b[:], r)])
}

func pairComposes(a, b rune) (rune, bool) {
	if l := a - hangulL; l >= 0 && l < hangulNL {
		if v := b - hangulV; v >= 0 && v < hangulNV {
			return hangulS + (l*hangulNV+v)*hangulNT, true
		}
	}
	if s := a - hangulS; s >= 0 && s < hangulNL*hangulNV*hangulNT && s%hangulNT == 0 {
		if t := b - hangulT; t > 0 && t < hangulNT {
			return a + t, true
		}
	}
	r, ok := compositions()[[2]rune{a, b}]
	return r, ok
}

// compositions is the pairs of all primary composites: what has a decomposition and is its own NFC (so neither a singleton
// nor excluded from composition). All are in the planes 0 and 1.
var compositions = sync.OnceValue(func() map[[2]rune]rune {
	m := make(map[[2]rune]rune, 1024)
	for r := rune(0xC0); r < 0x20000; r++ {
		if r == hangulS {
			r += hangulNL * hangulNV * hangulNT
		}
		d := properties(r).Decomposition()
		if d == nil || norm.NFC.String(string(r)) != string(r) {
			continue
		}
		last, n := utf8.DecodeLastRune(d)
		first := []rune(norm.NFC.String(string(d[:len(d)-n])))
		if len(first) == 1 {
			m[[2]rune{first[0], last}] = r
		}
	}
	return m
})
