// Package engine says what an engine is and what it can show. It holds no math: engines register themselves,
// cmd imports them for that effect, and they meet only in package oracle.
//
// An implementer registers a Driver whose Open gives an Engine. An Engine must implement Score and Generate for
// the things its Info says it shows, and must fail with ErrNotShown for those it does not. An engine whose
// states can be read or set also implements Stater; Info.Shows and the methods present must agree
// (oracle/oracletest checks). Methods may be called from one goroutine at a time.
package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
)

// ErrNotShown is what an engine returns when it is asked for something its Info does not list.
var ErrNotShown = errors.New("this engine does not show that")

// Shows is the set of things an engine can show.
type Shows uint16

// What an engine may show. IDs is the least.
const (
	IDs       Shows = 1 << iota // argmax ids
	TopK                        // the k largest logits with their ids
	Logits                      // whole logit rows
	Taps                        // the tensors of DESIGN section 3
	ReadState                   // Stater.Prefill gives a readable state
	TakeState                   // Stater.Step accepts a state made elsewhere
)

// Has says whether all of what is in s.
func (s Shows) Has(what Shows) bool { return s&what == what }

// String lists the names, comma separated.
func (s Shows) String() string {
	names := []string{"ids", "top-k", "logits", "taps", "reads state", "takes state"}
	var out []string
	for i, n := range names {
		if s&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return strings.Join(out, ", ")
}

// Spec is what to open: a subject's parts, resolved by cmd.
type Spec struct {
	Model    string // path of a checkpoint folder, or "" for the embedded demo model
	Contract string // a name or "contract:FILE"; "" = the engine's or the model's own ("hf-fp32" for a checkpoint)
	Scheme   string // "" = weights as stored
	Mode     string // "exact", "fast" or "noise:SEED"; "" = the engine's only one
	Delta    string // "recurrent" (default) or "chunk": the delta rule's form in prefill
	Threads  int    // 0 = all cores
	NoVerify bool   // a bundle whose main.hash does not match is used with a warning
	Stream   bool   // read the weights layer by layer and let go of each: for a model larger than the memory
	File     string // what an engine that runs nothing answers from: replay's transcript
	Side     string // whose view replay gives of it: "ref" or "test" (default)
}

// Info describes an open engine.
type Info struct {
	Engine        string   // registered name
	Subject       string   // the spec in the command line's syntax
	Contract      string   // "hf-fp32"; "float64" for the fp64 engine; one from a file with its name and digest
	Realises      []string // contracts that its arithmetic is known to be, the nearest first, where Contract is none of package precision's
	Scheme        string   // "stored"
	Mode          string   // "exact", "fast", "noise:SEED" or ""
	Shows         Shows
	VocabSize     int
	MaxPositions  int
	LogitsDType   string // "F64", "F32", "F16", "BF16": the grid of its logits, for gaps in ULPs
	StateDTypes   StateDTypes
	CallsMatter   bool   // results depend on where calls end: the recurrent state is rounded once a call
	WeightsSHA256 string // of the weights it reads, "" if not known
	ConfigSHA256  string
	Threads       int
	Profile       string   // of a bundle: "zoo-s1", "apple-q35"; "" for a checkpoint
	Warnings      []string // what was let pass on request
	// Streams: weights are read layer by layer. A pass over all prompts costs one reading, a step of one token too. Score shows
	// one prompt after the other.
	Streams   bool
	Fallbacks map[string]int64 // how often a slower path was taken, by name
}

// StateDTypes are the storage types of the states, "F32" unless a contract says otherwise, and where layers differ.
type StateDTypes struct{ Recurrent, Conv, KV string }

// Prompt is one sequence. PositionIDs, if not nil, holds for each token its T, H and W position; nil means
// text: 0, 1, 2, ... on all three axes.
type Prompt struct {
	IDs         []int32
	PositionIDs [][3]int32
}

// Path says in which calls the tokens reach the model: all at once, or N tokens a call on the growing state. Under a
// contract that rounds the state where a call ends (Info.CallsMatter) the calls are part of the result.
//
// A Path is about what Score and Generate are given as prompts. In Generate every token after the prompt is a call of its
// own.
type Path struct {
	Chunk int // tokens a call: 0 = all in one call (prefill), 1 = step, n = chunk=n
	// Last makes the last token a call of its own. A runner does so that has a function without a head for the tokens
	// before it, which nobody asks for logits.
	Last bool
}

// Want says what Score should show of each position.
type Want struct {
	From   int  // positions below From are run but not reported
	TopK   int  // candidates per position; at least 2 are always given by engines that show TopK
	Logits bool // fill Position.Logits
	Path   Path
	// Taps, if not nil, receives the tensors of section 3, of all sequences.
	Taps Sink
	// State, if not nil, is where the only prompt continues from (needs TakeState).
	State *State
	// FinalState, if not nil, is filled with the state after the only prompt (needs ReadState).
	FinalState *State
	// Layer, if not nil, is called by an engine that streams (Info.Streams) before it reads the weights of layer 0, 1, ...,
	// and with the number of layers before each part of the head. It may wait: engines that run side by side thus read a layer one after
	// the other while it is in memory, and it comes from the disk once for all of them.
	Layer func(l int)
}

// Sink receives taps. Names are those of DESIGN section 3 without a prefix ("layer3.attn.q_rope").
type Sink interface {
	// Wants is asked before a tensor is assembled; it must be cheap.
	Wants(name string) bool
	// Put hands over rows pos, pos+1, ... of sequence seq; x is [rows, width], valid during the call only.
	Put(name string, seq, pos, rows int, x []float32) error
}

// Candidate is one id and its logit.
type Candidate struct {
	ID    int32
	Logit float64
}

// Position is what an engine shows of one position: the distribution over the token that follows it.
// Slices are valid during the callback only.
type Position struct {
	Seq, Pos int         // which prompt, and the index of the last token consumed
	ID       int32       // argmax, lowest id of a tie
	Ties     []int32     // all ids at the maximum, ascending; at least ID
	Top      []Candidate // largest first, ties by id; nil if not shown
	LSE      float64     // log-sum-exp over the full vocabulary; NaN if not shown
	Logits   []float32   // [vocab]; nil unless asked for
}

// LogitGap is the distance between the two largest logits; NaN if fewer than two are shown.
func (p *Position) LogitGap() float64 {
	if len(p.Top) < 2 {
		return math.NaN()
	}
	return p.Top[0].Logit - p.Top[1].Logit
}

// ProbGap is p1 - p2 of the softmax at temperature 1 over the full vocabulary; NaN if not shown.
func (p *Position) ProbGap() float64 {
	if len(p.Top) < 2 || p.LSE != p.LSE {
		return math.NaN()
	}
	return math.Exp(p.Top[0].Logit-p.LSE) - math.Exp(p.Top[1].Logit-p.LSE)
}

// Options steer Generate.
type Options struct {
	MaxTokens int
	// Force, if not nil, are the ids consumed instead of the chosen ones: step i consumes Force[i]. Generate then
	// makes len(Force) tokens (MaxTokens is ignored): teacher forcing along the decode path.
	Force []int32
	// Choose picks the next id from a logit row; nil means greedy, lowest id of a tie. Needs Logits.
	Choose func(logits []float32) int32
	// NonFinite goes on where the largest logit is NaN or infinite, at Position.ID: for who looks at what an engine does
	// and judges it. Without it Generate ends there with an error, since no id is the model's choice: see CheckChoice.
	NonFinite  bool
	Stop       []int32 // ids that end the generation after they were emitted
	TopK       int
	Logits     bool
	Path       Path // the calls the prompt is consumed in; each generated token is one more
	Taps       Sink
	State      *State // where the prompt continues from
	FinalState *State
	// Progress, if not nil, hears how much of the prompt is consumed, in whatever unit, before the first token. An engine
	// that cannot tell never calls it.
	Progress func(done, total int64)
}

// Tokens is how many tokens are made, if no stop id ends it.
func (o *Options) Tokens() int {
	if o.Force != nil {
		return len(o.Force)
	}
	return o.MaxTokens
}

// Token is one generated token: the position that chose it and the id consumed next.
type Token struct {
	Index int   // 0 for the first generated token
	ID    int32 // chosen (or forced) id
	Position
}

// State is a decoder's state between two calls, by the cache names of section 3
// ("cache.layer0.recurrent_state"), on the host in float32.
//
// It holds no rope position: text that continues from it stands at Len, Len+1, ... on all three axes. After a prompt
// with PositionIDs of its own the next position may be another one (within one Generate it is: the largest seen, plus
// one), and only the caller knows it: give the PositionIDs of what follows.
type State struct {
	Len     int // tokens consumed
	Tensors map[string]StateTensor
}

// StateTensor is one state with its shape, row-major.
type StateTensor struct {
	Shape []int
	Data  []float32
}

// Engine runs a model. Score calls back with the positions of one sequence in order; sequences may interleave. Score
// and Generate stop at the callback's first error, which they return.
type Engine interface {
	Info() Info
	// Score is teacher forcing: every position of every prompt, one ragged batch where the engine can.
	Score(ctx context.Context, prompts []Prompt, want Want, each func(*Position) error) error
	// Generate continues one prompt; the first callback is the choice after the prompt's last token.
	Generate(ctx context.Context, prompt Prompt, opt Options, each func(*Token) error) error
	Close() error
}

// Stater is implemented by engines whose states can be read or set.
type Stater interface {
	// Prefill runs the prompt on an empty state and gives the state after it (needs ReadState).
	Prefill(ctx context.Context, prompt Prompt, path Path) (*State, error)
	// Step consumes one token from state, which is not changed (needs TakeState).
	Step(ctx context.Context, state *State, id int32, topK int) (*Position, error)
}

// Continuation is one of the prompts of Batcher.GenerateAll, and what is different about it: the fields of Options of these names.
type Continuation struct {
	Prompt    Prompt
	MaxTokens int
	Force     []int32
}

// Options is opt, what all prompts have in common, with what is this one's.
func (c *Continuation) Options(opt Options) Options {
	opt.MaxTokens, opt.Force = c.MaxTokens, c.Force
	return opt
}

// Batcher is implemented by engines that continue several prompts in the same steps: weights are read once a step and not once
// a step of each prompt.
type Batcher interface {
	// GenerateAll is Generate of each prompt, with the same tokens in the same bits. The tokens of one prompt come in order, those
	// of all step by step, within a step in the order of the prompts (an engine that cannot hold all at once does some of them first);
	// Position.Seq is the prompt. Of opt TopK, Stop, Path and NonFinite are read. What concerns one prompt is a PromptError.
	GenerateAll(ctx context.Context, all []Continuation, opt Options, each func(*Token) error) error
}

// PromptError is an error that concerns one of several prompts.
type PromptError struct {
	Seq int // its index
	Err error
}

func (e *PromptError) Error() string { return fmt.Sprintf("prompt %d: %v", e.Seq, e.Err) }
func (e *PromptError) Unwrap() error { return e.Err }

// Locator is implemented by engines that can say where in what was shipped a tap is made.
type Locator interface {
	// Locate names the operations that make a tap of the taps before it, the last one first; nil if it does not know the tap.
	Locate(tap string) []string
}

// Driver opens engines of one kind.
type Driver interface {
	Open(ctx context.Context, spec Spec) (Engine, error)
	// Describe is one line for help: what it is and what it needs.
	Describe() string
}
