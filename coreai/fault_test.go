package coreai

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sibyl/engine"
	"sibyl/internal/inputerr"
)

// drill are the faults of a worker: where it is met, the code that it must get, and words of the message.
var drill = []struct {
	fault string
	why   string
	meet  func(context.Context, *Engine) error // nil: opening must fail
	code  Code                                 // "" : an *inputerr.Error
	words string
}{
	{"dies-in-hello", "a broken installation ends at once", nil, Died, "exit status 3"},
	{"hangs-in-hello", "an import that waits for a lock", nil, TimedOut, "no word for"},
	{"garbage-in-hello", "a banner on stdout", nil, Protocol, `"Loading weights: 100%" is no message`},
	{"other-protocol", "a worker of a later build", nil, Protocol, "protocol 2, want 1"},
	{"other-version", "its bits are not known", nil, WrongVersion, "found coreai-core 1.0.0b2, want 1.0.0b3"},
	{"dies-in-open", "a bundle that crashes the loader", nil, Died, "exit status 3"},
	{"hangs-in-open", "a specialisation that never ends", nil, TimedOut, "no word for"},
	{"closes-stdout-in-open", "alive and mute", nil, TimedOut, "no word for"},
	{"endless-line-in-open", "no message may fill the memory", nil, Protocol, "a message of more than"},
	{"empty-object-in-open", "JSON and no message", nil, Protocol, "an answer to request 0"},
	{"wrong-type-in-open", "a number in words", nil, Protocol, "is no message"},
	{"other-id-in-open", "an answer to somebody else", nil, Protocol, "an answer to request 99"},
	{"vocab-of-another", "tokenizer and model of two bundles", nil, "", "language.vocab_size: found 2048, want 2047"},
	{"vocab-and-logits-disagree", "logits of another width than announced", nil, "", "want logits whose last axis is the vocabulary"},
	{"vocab-huge", "nothing is allocated from it", nil, Protocol, "a vocabulary of 1099511627776 ids"},
	{"state-shape-negative", "a shape that cannot be", nil, Protocol, "recState has shape"},
	{"state-shape-huge", "nothing is allocated from it", nil, Protocol, "recState has shape"},
	{"state-dtype-unknown", "bytes nobody can read", nil, Protocol, `recState has dtype "F4"`},
	{"other-forcing", "a capability of a later protocol", nil, Protocol, `forcing "telepathy"`},

	{"dies-mid-token", "the runtime asserts in a step", forced, Died, `in the middle of the message "{\"id\":4,\"ev\":\"st"`},
	{"hangs-mid-token", "a kernel that waits for the GPU", forced, TimedOut, "no word for"},
	{"dies-in-force", "the first step", forced, Died, "exit status 3"},
	{"garbage-in-force", "a print between the messages", forced, Protocol, "is no message"},
	{"other-id-in-force", "out of order", forced, Protocol, "an answer to request 99 while 4 runs"},
	{"no-reason-in-reset", "a refusal without words", forced, Protocol, "refuses without a reason"},
	{"skips-a-position", "out of order", forced, Protocol, "position 3 where a step of position 2 was due"},
	{"repeats-a-position", "out of order", forced, Protocol, "position 1 where a step of position 2 was due"},
	{"event-unknown", "not of this protocol", forced, Protocol, `event "progress"`},
	{"done-too-early", "a position left out", forced, Protocol, "after 2 rows"},
	{"one-step-more", "a position nobody asked for", forced, Protocol, "of position 5"},
	{"floods-events", "the same step for ever", forced, Protocol, "position 2 where a step of position 3 was due"},
	{"other-reason", "no end that is known", forced, Protocol, `(bored)`},
	{"lies-about-length", "one token more than it was given", forced, Protocol, "at length 6"},
	{"lies-about-reset", "a state that is not empty", forced, Protocol, "1 tokens after a reset to 0"},
	{"lies-about-argmax", "id and logits disagree", forced, BadData, "the worker names id 5, the row's largest is"},
	{"no-argmax", "a step without its id", forced, Protocol, `event "step"`},
	{"logits-cut", "a row that is not whole", forced, BadData, "no row of 2048 logits"},
	{"logits-changed", "torn bytes", forced, BadData, "other bytes than announced"},
	{"file-missing", "a file that was never written", forced, BadData, "no regular file"},
	{"file-outside", "a name that leaves the folder", forced, BadData, "is no file's name"},
	{"file-absolute", "a name that leaves the folder", forced, BadData, "is no file's name"},
	{"file-a-link", "a link may lead anywhere", forced, BadData, "no regular file"},
	{"file-changes", "rows of one request in two files", forced, BadData, `file "rows-0" after`},

	{"state-shape", "one channel more", stated, BadData, "want convState F16[6 1 512 3]"},
	{"state-dtype", "the same bytes would be read as other numbers", stated, BadData, "want convState F16[6 1 512 3]"},
	{"state-renamed", "another profile's state", stated, BadData, "want convState"},
	{"state-missing", "three of four", stated, Protocol, "3 states at length 3, want 4"},
	{"state-longer", "bytes beyond the state", stated, BadData, "is not of 18432 bytes"},
	{"state-shorter", "a state that is not whole", stated, BadData, "is not of 18432 bytes"},
	{"state-changed", "torn bytes", stated, BadData, "other bytes than announced"},
	{"state-outside", "a name that leaves the folder", stated, BadData, "is no file's name"},

	{"token-of-another-vocabulary", "an id without a meaning", generated, Protocol, "token 2048"},
	{"token-out-of-order", "a token was lost", generated, Protocol, "token 2 where token 1 of 4 was due"},
	{"ties-of-other-ids", "a tie that does not hold the choice", generated, Protocol, "with ties [3 2]"},
	{"generate-ends-early", "fewer tokens than asked for", generated, Protocol, "after 1 of 4 tokens"},
	{"generate-dies", "between two tokens", generated, Died, "known: the cache answers for another large bundle; clear the runtime's cache"},
	{"generate-hangs", "between two tokens", generated, TimedOut, "no word for"},
}

var drillPrompt = []engine.Prompt{{IDs: []int32{5, 7, 9, 11, 13}}}

func forced(ctx context.Context, e *Engine) error {
	return e.Score(ctx, drillPrompt, engine.Want{}, func(*engine.Position) error { return nil })
}

func stated(ctx context.Context, e *Engine) error {
	_, err := e.Prefill(ctx, engine.Prompt{IDs: []int32{5, 7, 9}}, engine.Path{})
	return err
}

func generated(ctx context.Context, e *Engine) error {
	return e.Generate(ctx, drillPrompt[0], engine.Options{MaxTokens: 4}, func(*engine.Token) error { return nil })
}

// bounded is longer than any limit of fakeDriver and shorter than a hang.
const bounded = 60 * time.Second

// TestFaultDrill: each fault gives its named error in bounded time, the same one when asked again, and leaves neither
// process nor files.
func TestFaultDrill(t *testing.T) {
	t.Parallel()
	for _, c := range drill {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			start, seen := time.Now(), &traces{}
			e, err := openFake(t, c.fault, seen)
			if err == nil {
				if c.meet == nil {
					t.Errorf("opening succeeded\nwhy: %s", c.why)
				} else if err = c.meet(t.Context(), e); err == nil {
					t.Errorf("no error\nwhy: %s", c.why)
				} else if again := c.meet(t.Context(), e); c.code != "" && failure(again) != failure(err) {
					t.Errorf("asked again: %v, first it was %v", again, err)
				}
				if err := e.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
			checkFailure(t, err, c.code, c.words)
			if took := time.Since(start); took > bounded {
				t.Errorf("it took %v", took)
			}
			seen.gone(t)
		})
	}
}

func checkFailure(t *testing.T, err error, code Code, words string) {
	t.Helper()
	switch f := failure(err); {
	case err == nil:
	case code == "":
		if in, ok := errors.AsType[*inputerr.Error](err); !ok || !strings.Contains(in.Error(), words) {
			t.Errorf("%v; want an input error with %q", err, words)
		}
	case f == nil || f.Code != code || !strings.Contains(err.Error(), words):
		t.Errorf("%v\nwant code %s and %q", err, code, words)
	case errors.Is(err, engine.ErrUnavailable) != (code == WrongVersion):
		t.Errorf("%v: unavailable is %v", err, errors.Is(err, engine.ErrUnavailable))
	}
}

// traces are what a worker could leave behind.
type traces struct {
	pid     int
	scratch string
}

// openFake opens a sample in a stand-in and notes its traces.
func openFake(t testing.TB, fault string, seen *traces) (*Engine, error) {
	t.Helper()
	d := fakeDriver(fault)
	start := d.start
	var cmd *cmdRef
	d.start, cmd = noting(start, seen)
	e, err := d.open(t.Context(), engine.Spec{Model: samplePath("opticks-2m-int8hu-sym")})
	if cmd.c != nil && cmd.c.Process != nil {
		seen.pid = cmd.c.Process.Pid
	}
	return e, err
}

// gone checks that the process is neither running nor a zombie, and that its folder is removed.
func (s *traces) gone(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(s.scratch); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the scratch folder is left: %v", err)
	}
	if _, err := os.Stat("/proc/self"); err != nil {
		return // no list of processes here
	}
	// A zombie has an entry here until it was waited for.
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid)); err == nil && strings.Contains(string(status), fmt.Sprintf("PPid:\t%d\n", os.Getpid())) {
		t.Errorf("process %d is left:\n%s", s.pid, status)
	}
}

// TestSignatures: a worker that dies with the words of a known failure gives its meaning and remedy.
func TestSignatures(t *testing.T) {
	t.Parallel()
	for _, s := range Signatures {
		if len(s.Words) == 0 {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			seen := &traces{}
			_, err := openFake(t, "says:"+strings.Join(s.Words, " 1 of 256 ")+"-in-open", seen)
			f := failure(err)
			if f == nil || f.Code != Died || f.Known == nil || f.Known.Name != s.Name {
				t.Fatalf("%v; want the signature %s", err, s.Name)
			}
			for _, want := range []string{s.Words[0], s.Meaning, s.Remedy} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %q", err, want)
				}
			}
			seen.gone(t)
		})
	}
}

// TestCancelled: a context that ends while the worker hangs ends the call with the context's error, and the process
// with it, in bounded time.
func TestCancelled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault string
		meet  func(context.Context, *Engine) error
	}{{"hangs-mid-token", forced}, {"generate-hangs", generated}, {"hangs-in-reset", forced}, {"floods-events", forced}} {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			seen := &traces{}
			e, err := openFake(t, c.fault, seen)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if c.fault == "floods-events" { // what is right so far may not hide the cancellation
				cancel()
			}
			start := time.Now()
			if err := c.meet(ctx, e); !errors.Is(err, ctx.Err()) {
				t.Errorf("%v, want %v", err, ctx.Err())
			}
			if took := time.Since(start); took > bounded {
				t.Errorf("it took %v", took)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			seen.gone(t)
		})
	}
	t.Run("hangs-in-open", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := fakeDriver("hangs-in-open").open(ctx, engine.Spec{Model: samplePath("opticks-2m-int8hu-sym")}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the context's error", err)
		}
	})
}

// TestSurvives: what is no fault of the answers does not end the engine: noise on stderr, a worker that does not end
// when asked, a refusal.
func TestSurvives(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"", "floods-stderr", "does-not-close", "stays-after-eof", "refuses"} {
		t.Run("fault="+fault, func(t *testing.T) {
			t.Parallel()
			seen := &traces{}
			e, err := openFake(t, fault, seen)
			if err != nil {
				t.Fatal(err)
			}
			err = forced(t.Context(), e)
			if fault == "refuses" {
				checkFailure(t, err, ContextFull, "no room")
				err = e.Score(t.Context(), []engine.Prompt{{IDs: []int32{1, 2}}}, engine.Want{}, func(*engine.Position) error { return nil })
			}
			if err != nil {
				t.Error(err)
			}
			if n := len(e.w.err.String()); n > 2*tailBytes {
				t.Errorf("%d bytes of stderr were kept", n)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			seen.gone(t)
		})
	}
}

// TestUnreadableStates: states that are not what the profile has are not shown, and Info says why; the rest works.
func TestUnreadableStates(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"states-of-other-rank", "states-renamed"} {
		e, err := openFake(t, fault, &traces{})
		if err != nil {
			t.Fatal(err)
		}
		if e.info.Shows.Has(engine.ReadState) || len(e.info.Fallbacks) != 1 {
			t.Errorf("%s: shows %s, fallbacks %v", fault, e.info.Shows, e.info.Fallbacks)
		}
		if err := stated(t.Context(), e); !errors.Is(err, engine.ErrNotShown) {
			t.Errorf("%s: Prefill = %v, want ErrNotShown", fault, err)
		}
		if err := forced(t.Context(), e); err != nil {
			t.Errorf("%s: %v", fault, err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestGrowingPrefix: a worker that only generates is forced by growing prefixes, and says the ids that stepwise forcing says.
func TestGrowingPrefix(t *testing.T) {
	t.Parallel()
	var ids [2][]int32
	var tokens [2][]int32
	for i, fault := range []string{"", "growing-prefix"} {
		e, err := openFake(t, fault, &traces{})
		if err != nil {
			t.Fatal(err)
		}
		err = e.Score(t.Context(), drillPrompt, engine.Want{From: 1}, func(p *engine.Position) error {
			ids[i] = append(ids[i], int32(p.Pos), p.ID, p.Ties[1])
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		err = e.Generate(t.Context(), drillPrompt[0], engine.Options{Force: []int32{3, 4, 5}}, func(tok *engine.Token) error {
			tokens[i] = append(tokens[i], tok.ID, tok.Position.ID, int32(tok.Pos))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if shows := e.info.Shows; i == 1 && shows != engine.IDs {
			t.Errorf("it shows %s", shows)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(ids[0], ids[1]) || !slices.Equal(tokens[0], tokens[1]) || len(ids[0]) != 12 || len(tokens[0]) != 9 {
		t.Errorf("stepwise %v %v, growing prefix %v %v", ids[0], tokens[0], ids[1], tokens[1])
	}
}
