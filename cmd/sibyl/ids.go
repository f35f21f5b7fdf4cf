package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/internal/userfile"
)

// maxInputBytes bounds what is read from a file or from standard input as text or ids: 262,144 positions of
// the largest models are about 2 MB of either.
const maxInputBytes = 64 << 20

// ParseIDs reads the value of --ids: "1,2,3", or "@FILE" ("@-" is standard input) with a JSON list,
// {"tokens":[...]} (or "ids", as tokenize --json writes) or numbers in text.
func (a *App) ParseIDs(ctx context.Context, flag, value string) ([]int32, error) {
	file, isFile := strings.CutPrefix(value, "@")
	if !isFile {
		return idsInText(flag, value)
	}
	data, err := a.readInput(ctx, flag, file)
	if err != nil {
		return nil, err
	}
	switch text := bytes.TrimSpace(data); {
	case len(text) > 0 && text[0] == '[':
		return idsInJSON(file, "", text)
	case len(text) > 0 && text[0] == '{':
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(text, &keys); err != nil {
			return nil, badJSON(file, "", `{"tokens":[...]}`, err)
		}
		tokens, hasTokens := keys["tokens"]
		ids, hasIDs := keys["ids"]
		switch {
		case hasTokens && !hasIDs:
			return idsInJSON(file, "tokens", tokens)
		case hasIDs && !hasTokens:
			return idsInJSON(file, "ids", ids)
		}
		return nil, &inputerr.Error{File: file, Found: "an object with both or neither of \"tokens\" and \"ids\"",
			Want: `{"tokens":[...]}`}
	default:
		return idsInText(file, string(text))
	}
}

// idsInText reads numbers separated by commas, spaces or line ends.
func idsInText(name, text string) ([]int32, error) {
	if parts := strings.Split(text, ","); len(parts) > 1 {
		for i, part := range parts {
			if strings.TrimSpace(part) == "" {
				return nil, &inputerr.Error{File: name, Field: fmt.Sprintf("id %d", i), Found: "nothing between commas", Want: "a token id, 0 or more",
					Do: "write ids as 1,2,3 or @FILE"}
			}
		}
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
	if len(words) == 0 {
		return nil, &inputerr.Error{File: name, Found: "no ids", Want: "at least one, as in 1,2,3 or @FILE"}
	}
	ids := make([]int32, len(words))
	for i, w := range words {
		n, err := strconv.ParseInt(w, 10, 32)
		if err != nil || n < 0 {
			return nil, &inputerr.Error{File: name, Field: fmt.Sprintf("id %d", i), Found: inputerr.Clip(w, 40),
				Want: "a token id, 0 or more", Do: "write ids as 1,2,3 or @FILE"}
		}
		ids[i] = int32(n)
	}
	return ids, nil
}

// idsInJSON reads a JSON list of whole numbers.
func idsInJSON(file, field string, data []byte) ([]int32, error) {
	var numbers []float64
	if err := json.Unmarshal(data, &numbers); err != nil {
		return nil, badJSON(file, field, "a list of token ids", err)
	}
	if len(numbers) == 0 {
		return nil, &inputerr.Error{File: file, Field: field, Found: "no ids", Want: "at least one"}
	}
	ids := make([]int32, len(numbers))
	for i, n := range numbers {
		if n < 0 || n > math.MaxInt32 || n != math.Trunc(n) {
			return nil, &inputerr.Error{File: file, Field: fmt.Sprintf("%s[%d]", field, i),
				Found: strconv.FormatFloat(n, 'g', -1, 64), Want: "a token id, a whole number of 0 or more"}
		}
		ids[i] = int32(n)
	}
	return ids, nil
}

// badJSON says what was found where want was expected.
func badJSON(file, field, want string, err error) error {
	e := &inputerr.Error{File: file, Field: field, Found: "malformed JSON (" + strings.TrimPrefix(err.Error(), "json: ") + ")", Want: want, Do: "correct the file"}
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		e.Found = fmt.Sprintf("a JSON %s that does not belong at byte %d", kind.Value, kind.Offset)
	}
	return e
}

// positionIDs reads the value of --position-ids, @FILE with a JSON list [3][T]: the T, H and W position of
// each token.
func (a *App) positionIDs(ctx context.Context, value string, tokens int) ([][3]int32, error) {
	const flag = "--position-ids"
	file, isFile := strings.CutPrefix(value, "@")
	if !isFile {
		return nil, &inputerr.Error{File: flag, Found: inputerr.Clip(value, 40), Want: "@FILE", Do: "put the positions into a file"}
	}
	data, err := a.readInput(ctx, flag, file)
	if err != nil {
		return nil, err
	}
	var axes [][]int32
	if err := json.Unmarshal(data, &axes); err != nil {
		return nil, badJSON(file, "", "three lists of positions: T, H, W", err)
	}
	if len(axes) != 3 {
		return nil, &inputerr.Error{File: file, Found: fmt.Sprintf("%d lists", len(axes)), Want: "three: T, H, W"}
	}
	out := make([][3]int32, tokens)
	for axis, row := range axes {
		if len(row) != tokens {
			return nil, &inputerr.Error{File: file, Field: fmt.Sprintf("[%d]", axis),
				Found: fmt.Sprintf("%d positions", len(row)), Want: fmt.Sprintf("%d, one for each id", tokens)}
		}
		for i, p := range row {
			if p < 0 {
				return nil, &inputerr.Error{File: file, Field: fmt.Sprintf("[%d][%d]", axis, i),
					Found: strconv.Itoa(int(p)), Want: "a position of 0 or more"}
			}
			out[i][axis] = p
		}
	}
	return out, nil
}

// readInput reads a file, or standard input for "-", up to maxInputBytes. Waiting for standard input ends with ctx.
func (a *App) readInput(ctx context.Context, flag, file string) ([]byte, error) {
	if file == "" {
		return nil, &inputerr.Error{File: flag, Found: "no file name after @", Want: "@FILE"}
	}
	if file == "-" {
		return a.readStdin(ctx)
	}
	data, err := userfile.Read(file, maxInputBytes)
	var in *inputerr.Error
	if errors.As(err, &in) {
		in.File, in.Field = flag, file
	}
	return data, err
}
