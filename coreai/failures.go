package coreai

import (
	"errors"
	"fmt"
	"strings"

	"sibyl/engine"
)

// Code names what went wrong. The first group are a worker's words, the second are what the Go side sees from outside.
type Code string

// The codes.
const (
	BadBundle        Code = "bad_bundle"        // not a bundle that the runtime can load
	UnsupportedGraph Code = "unsupported_graph" // loaded, and not a text model with the inputs sibyl knows
	Shape            Code = "shape"             // the runtime refused a shape
	SpecCache        Code = "spec_cache"        // the cache of specialised models is damaged
	OutOfMemory      Code = "oom"               //
	EngineFault      Code = "engine"            // the runtime failed in a call
	Busy             Code = "busy"              // another request runs
	ContextFull      Code = "context_full"      // no room for another token
	Protocol         Code = "protocol"          // a message that is none, or out of turn
	MissingRuntime   Code = "missing_runtime"   // the runtime is not installed where the worker looks
	WrongVersion     Code = "wrong_version"     // another version of it

	NoWorker Code = "no_worker"   // the process could not be started
	Died     Code = "worker_died" // it ended before it had answered
	TimedOut Code = "timeout"     // it said nothing for too long, and was killed
	BadData  Code = "bad_data"    // logits or states in a file are not what was announced
)

// Failure is what a worker did or said instead of answering.
type Failure struct {
	Code       Code       // what it was
	Doing      string     // which operation: "open", "force"
	Msg        string     // in a sentence
	Underlying string     // the runtime's own words
	Stderr     string     // the end of what the worker wrote to stderr
	Known      *Signature // the signature that its words match, nil if none
	Do         string     // what to do, where the code alone says it
	Fatal      bool       // the worker is gone, and the engine with it
}

// Error is one line: what happened, the runtime's last words, and what is known about them.
func (f *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "coreai: %s", f.Code)
	if f.Doing != "" {
		fmt.Fprintf(&b, " in %s", f.Doing)
	}
	if f.Msg != "" {
		fmt.Fprintf(&b, ": %s", clip(f.Msg))
	}
	if f.Underlying != "" && f.Underlying != f.Msg {
		fmt.Fprintf(&b, " (%s)", clip(f.Underlying))
	}
	if last := lastLine(f.Stderr); last != "" {
		fmt.Fprintf(&b, "; the worker's last words: %q", clip(last))
	}
	if f.Known != nil {
		fmt.Fprintf(&b, "; known: %s; %s", f.Known.Meaning, f.Known.Remedy)
	} else if f.Do != "" {
		fmt.Fprintf(&b, "; %s", f.Do)
	}
	return b.String()
}

// Is makes what this machine lacks an engine.ErrUnavailable, which leaves a gate inconclusive.
func (f *Failure) Is(target error) bool {
	return target == engine.ErrUnavailable && (f.Code == MissingRuntime || f.Code == WrongVersion || f.Code == NoWorker)
}

func lastLine(s string) string {
	s = strings.TrimRight(s, "\n\r ")
	return strings.TrimSpace(s[strings.LastIndexByte(s, '\n')+1:])
}

// Signature is a failure that the field has met: words that the runtime says, what they mean, what helps.
type Signature struct {
	Name    string   `json:"name"`
	Words   []string `json:"words"` // all of them occur; none: there are no words, a person must see it
	Meaning string   `json:"meaning"`
	Remedy  string   `json:"remedy"`
	Where   string   `json:"where"` // the system it was seen on
}

// Signatures are the known failures. Sources: issues and source of apple/coreai-models (2026-08/09), apple/coreai-torch
// and the community's conversions; those of macOS and iOS were read, not met. The last two were met with coreai-core
// 1.0.0b3 on Linux.
var Signatures = []Signature{
	{"shape-substitution", []string{"Shape at dimension", "is not a valid substitution for source shape"},
		"an engine older than build 227, or its default warm-up, on a graph that takes one token a call",
		"update the runtime, or run with the warm-up off", "macOS"},
	{"state-count", []string{"Expected 2 states", "got 4"},
		"an engine older than build 132, or the sequential one, on a model with conv and recurrent states",
		"update the runtime and use the pipelined engine", "macOS"},
	{"odiec-module", []string{"cannot unwrap empty odiec_module_t"},
		"an asset of coreai-torch 0.4.0 (its metadata has no producer)", "export the model again with coreai-torch 0.4.1 or later", "macOS"},
	{"bad-alloc", []string{"std::bad_alloc"},
		"out of memory; on an iPhone, 2 GB or more without the increased-memory entitlement", "free memory or use a smaller bundle; on iOS add the entitlement", "any"},
	{"posix-2", []string{"NSPOSIXErrorDomain", "2"},
		"a half-written specialisation cache, or a full disk", "clear the runtime's cache and see that 4 GB of disk are free", "macOS"},
	{"specialization-cache", []string{"Unable to use cached specializations"},
		"the cache answers for another large bundle", "clear the runtime's cache", "macOS"},
	{"mps-buffer", []string{"MPSNDArray", "buffer is not large enough"},
		"usually a vocabulary that is no multiple of 64", "pad the head to a multiple of 64 and export again", "macOS"},
	{"garbage-tokens", nil,
		"fluent start, then garbage, and no error: a KV bound of 2048 or more on iOS (apple/coreai-models issue 124)", "gate the bundle on the device; export with a smaller bound", "iOS"},
	{"kernel-error", []string{"KernelError(kernelName:"},
		"an operation of the graph refused its operands", "`sibyl inspect` says what the bundle is; sibyl checks ids and lengths before it asks", "Linux"},
	{"invalid-shape", []string{"has an invalid shape", "expected"},
		"an input has another shape than the function's signature", "the bundle was exchanged while it was open, or its metadata does not fit: export it again", "Linux"},
}

// match finds the first signature whose words all occur in one of the texts.
func match(texts ...string) *Signature {
	for i := range Signatures {
		s := &Signatures[i]
		for _, text := range texts {
			if len(s.Words) > 0 && containsAll(text, s.Words) {
				return s
			}
		}
	}
	return nil
}

// containsAll says whether the words occur one after the other.
func containsAll(text string, words []string) bool {
	for _, w := range words {
		at := strings.Index(text, w)
		if at < 0 {
			return false
		}
		text = text[at+len(w):]
	}
	return true
}

// failure finds the *Failure in err, nil if there is none.
func failure(err error) *Failure {
	var f *Failure
	errors.As(err, &f)
	return f
}
