package engine

import (
	"fmt"
	"strconv"
	"strings"
)

// PathSyntax says what ParsePath reads.
const PathSyntax = "prefill, step or chunk=N (prefill+1, chunk=N+1: the last token in a call of its own)"

// ParsePath reads what Path.String writes.
func ParsePath(text string) (Path, error) {
	calls, last := strings.CutSuffix(text, "+1")
	switch number, isChunk := strings.CutPrefix(calls, "chunk="); {
	case calls == "prefill":
		return Path{Last: last}, nil
	case text == "step":
		return Path{Chunk: 1}, nil
	case isChunk:
		if n, err := strconv.Atoi(number); err == nil && n > 0 && strconv.Itoa(n) == number {
			return Path{Chunk: n, Last: last && n > 1}, nil
		}
	}
	return Path{}, fmt.Errorf("path %.40q is none of %s", text, PathSyntax)
}

// String is the --path syntax.
func (p Path) String() string {
	out := fmt.Sprintf("chunk=%d", p.Chunk)
	switch p.Chunk {
	case 0:
		out = "prefill"
	case 1:
		return "step" // the last token is a call of its own already
	}
	if p.Last {
		out += "+1"
	}
	return out
}

// End is where the call ends that token i of a prompt of n tokens is in. Calls are counted from the prompt's first token,
// also where it continues from a state.
func (p Path) End(i, n int) int {
	if p.Last && i < n-1 {
		n--
	}
	if p.Chunk > 0 {
		// By subtraction: a chunk may be larger than any prompt.
		if rest := p.Chunk - i%p.Chunk; rest < n-i {
			return i + rest
		}
	}
	return n
}

// Calls gives the lengths of the calls of a prompt of n tokens and of steps tokens after it, as a transcript records
// them: "16*4,5,1*15" is four calls of 16 tokens, one of 5 and 15 of one.
func (p Path) Calls(n, steps int) string {
	var out []string
	length, times := 0, 0
	flush := func() {
		switch {
		case times == 1:
			out = append(out, strconv.Itoa(length))
		case times > 1:
			out = append(out, fmt.Sprintf("%d*%d", length, times))
		}
	}
	add := func(l, t int) {
		if t > 0 && l == length {
			times += t
		} else if t > 0 {
			flush()
			length, times = l, t
		}
	}
	for i := 0; i < n; {
		end := p.End(i, n)
		add(end-i, 1)
		i = end
	}
	add(1, steps)
	flush()
	return strings.Join(out, ",")
}
