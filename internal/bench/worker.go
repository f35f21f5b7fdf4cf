package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sibyl/engine"
	"sibyl/internal/userfile"
)

// Limits of what a worker takes: a line, and tokens of one op.
const (
	maxLine   = 1 << 16
	maxTokens = 1 << 20
)

// answer is a worker's one line of JSON: tokens, seconds, and 0 or a code and a reason.
type answer struct {
	N       int     `json:"n"`
	Seconds float64 `json:"sec"`
	RC      int     `json:"rc"`
	Error   string  `json:"error,omitempty"`
}

// Worker answers the peer benchmark's protocol: a line of JSON with load_s, then one for each command line until "quit"
// or the end of in:
//
//	threads N       opens the model again with so many threads
//	tg N MOD        decode; ids are (i*7919+13) mod MOD
//	pp N MOD        prefill, logits of the last position
//	tf N MOD        teacher-forced, logits of every position
//	logits IDS OUT  the logits of every position of the ids in file IDS, as raw float32 in file OUT
//
// A command that cannot be done is answered with rc -7 and a reason; what cannot be answered ends the worker.
func Worker(ctx context.Context, in io.Reader, out io.Writer, open func(threads int) (engine.Engine, error)) (err error) {
	start := time.Now()
	e, err := open(0)
	if err != nil {
		return err
	}
	defer func() {
		if e != nil {
			_ = e.Close() // only read
		}
	}()
	if err := say(out, map[string]any{"engine": "sibyl", "load_s": time.Since(start).Seconds()}); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		if words[0] == "quit" {
			return nil
		}
		var a answer
		if words[0] == "threads" {
			a, e, err = reopen(e, words[1:], open)
		} else {
			a, err = do(ctx, e, words)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			a = answer{RC: -7, Error: err.Error()}
		}
		if err := say(out, a); err != nil {
			return err
		}
		if e == nil {
			return err
		}
	}
	return lines.Err()
}

func say(out io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = out.Write(append(line, '\n'))
	}
	if f, ok := out.(interface{ Flush() error }); ok && err == nil {
		err = f.Flush()
	}
	return err
}

// count reads a whole number from 1 to most.
func count(word string, most int) (int, error) {
	n, err := strconv.Atoi(word)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("found %q, want a number from 1 to %d", word, most)
	}
	return n, nil
}

// reopen closes e and opens the model with other threads.
func reopen(e engine.Engine, words []string, open func(threads int) (engine.Engine, error)) (answer, engine.Engine, error) {
	if len(words) != 1 {
		return answer{}, e, fmt.Errorf("threads: found %d words, want one number", len(words))
	}
	n, err := count(words[0], 1024)
	if err != nil {
		return answer{}, e, fmt.Errorf("threads: %w", err)
	}
	start := time.Now()
	if err := e.Close(); err != nil {
		return answer{}, nil, err
	}
	if e, err = open(n); err != nil {
		return answer{}, nil, err
	}
	return answer{Seconds: time.Since(start).Seconds()}, e, nil
}

func do(ctx context.Context, e engine.Engine, words []string) (answer, error) {
	kind, ok := map[string]Kind{"tg": Decode, "pp": Prefill, "tf": Forced, "logits": ""}[words[0]]
	switch {
	case !ok:
		return answer{}, fmt.Errorf("found the command %q, want threads, tg, pp, tf, logits or quit", words[0])
	case len(words) != 3:
		return answer{}, fmt.Errorf("%s: found %d words behind it, want 2", words[0], len(words)-1)
	case kind == "":
		return logits(ctx, e, words[1], words[2])
	}
	n, err := count(words[1], maxTokens)
	if err != nil {
		return answer{}, fmt.Errorf("%s: tokens: %w", words[0], err)
	}
	vocab, err := count(words[2], e.Info().VocabSize)
	if err != nil {
		return answer{}, fmt.Errorf("%s: vocabulary: %w", words[0], err)
	}
	seconds, err := Once(ctx, e, Op{kind, n}, vocab)
	return answer{N: n, Seconds: seconds}, err
}

// logits writes what the engine shows of the ids, under a temporary name first.
func logits(ctx context.Context, e engine.Engine, idsFile, outFile string) (a answer, err error) {
	ids, err := readIDs(idsFile)
	if err != nil {
		return answer{}, err
	}
	start := time.Now()
	f, err := os.CreateTemp(filepath.Dir(outFile), "."+filepath.Base(outFile)+".tmp-*")
	if err != nil {
		return answer{}, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error is the one to tell
			_ = os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	err = e.Score(ctx, []engine.Prompt{{IDs: ids}}, engine.Want{TopK: 2, Logits: true}, func(p *engine.Position) error {
		var buf [4]byte
		for _, v := range p.Logits {
			binary.LittleEndian.PutUint32(buf[:], math.Float32bits(v))
			if _, err := w.Write(buf[:]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	if err = w.Flush(); err != nil {
		return answer{}, err
	}
	if err = f.Close(); err != nil {
		return answer{}, err
	}
	if err = os.Rename(f.Name(), outFile); err != nil {
		return answer{}, err
	}
	return answer{N: len(ids), Seconds: time.Since(start).Seconds()}, nil
}

// readIDs reads numbers separated by white space.
func readIDs(file string) ([]int32, error) {
	data, err := userfile.Read(file, 16<<20)
	if err != nil {
		return nil, err
	}
	words := strings.Fields(string(data))
	if len(words) == 0 {
		return nil, fmt.Errorf("%s: found no ids, want numbers", file)
	}
	ids := make([]int32, len(words))
	for i, w := range words {
		n, err := strconv.ParseInt(w, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: id %d: found %q, want a number", file, i, w)
		}
		ids[i] = int32(n)
	}
	return ids, nil
}
