package engine

import (
	"fmt"
	"strconv"
	"strings"
)

// ParsePath reads what Path.String writes.
func ParsePath(text string) (Path, error) {
	switch number, isChunk := strings.CutPrefix(text, "chunk="); {
	case text == "prefill":
		return Path{}, nil
	case text == "step":
		return Path{Chunk: 1}, nil
	case isChunk:
		if n, err := strconv.Atoi(number); err == nil && n > 0 {
			return Path{Chunk: n}, nil
		}
	}
	return Path{}, fmt.Errorf("path %.40q is none of prefill, step and chunk=N", text)
}
