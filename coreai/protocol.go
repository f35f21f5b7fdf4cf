// Package coreai is the engine "coreai": the production runtime of Core AI behind a worker process.
//
// A process of its own, because the runtime ends with fatalError and asserts where a library would return an error. The
// two sides speak JSON lines on the worker's stdin and stdout; logits and states go through files in a folder that the
// Go side makes, names and removes. The Go side owns time: it bounds every wait, cancels, kills, and turns the death of
// a worker into an error that says what is known about it (failures.go).
//
// On Linux the worker is a Python script in this binary (runtime_linux.py) that drives Apple's own CPU runtime, the
// package coreai-core. It is no stand-in for the GPU: it sums in another order and rounds more often (contract
// coreai-cpu). Nothing in this package has run on a Mac. There a worker of another make answers the same messages.
//
// The protocol, version 1; -> is to the worker. Every request has an id; answers carry it.
//
//	-> {"v":1,"id":1,"op":"hello"}
//	<- {"id":1,"ok":true,"v":1,"runtime":"coreai-core","version":"1.0.0b3","engine":"coreai-cpu","host":"...","os":"...","device":"CPU"}
//	-> {"id":2,"op":"open","bundle":"X.aimodel","scratch":"DIR"}
//	<- {"id":2,"ok":true,"functions":["main"],"inputs":[T],"outputs":[T],"states":[T],"vocab":2048,"call":1,"forcing":"stepwise"}
//	-> {"id":3,"op":"reset","len":0}                        or with "len":n and "states":[F]: what the sequence continues from
//	-> {"id":4,"op":"force","pos":0,"tokens":[5,7,9],"calls":[2,1],"from":1,"states":true}
//	<- {"id":4,"ev":"step","pos":1,"tok":11,"file":"rows-4","sha256":"..."}  one a position >= from
//	<- {"id":4,"ev":"done","reason":"max","len":3,"states":[F]}
//	-> {"id":5,"op":"generate","pos":0,"tokens":[5,7,9],"calls":[3],"max_new":4}
//	<- {"id":5,"ev":"token","i":0,"tok":11,"ties":[11],"max":3.5,"t_us":0}   one a token
//	<- {"id":5,"ev":"done","reason":"max","len":6}
//	-> {"id":6,"op":"cancel"}                               unanswered; what runs ends with reason "cancelled" before its next call
//	-> {"id":7,"op":"close"}
//	<- {"id":N,"ok":false,"err":{"code":"shape","msg":"...","underlying":"...","fatal":false}}
//
// T is {"name","shape","dtype"} with -1 for a dynamic dimension; F has "file" and "sha256" besides, its bytes are
// row-major and little-endian. Of a step's file each position has one row of the logits' dtype, in order.
package coreai

import (
	"fmt"
	"math"
	"slices"

	"sibyl/internal/inputerr"
)

// Version is the protocol's.
const Version = 1

// What a worker may say, at most.
const (
	maxLine    = 8 << 20  // bytes of a message: the ids of a row whose logits all tie fit
	maxVocab   = 1 << 22  // ids
	maxTensors = 1 << 8   // tensors of one kind
	maxRank    = 8        //
	maxDim     = 1 << 30  // of a tensor
	maxState   = 64 << 30 // bytes of one state
	maxWord    = 1 << 10  // bytes of a name
)

// The operations.
const (
	opHello    = "hello"
	opOpen     = "open"
	opReset    = "reset"
	opForce    = "force"
	opGenerate = "generate"
	opCancel   = "cancel"
	opClose    = "close"
)

// How a worker can be teacher forced.
const (
	Stepwise      = "stepwise"       // op force: logits of any position, states in and out
	GrowingPrefix = "growing-prefix" // op generate alone: one token after each prefix; ids and nothing else
)

// request is what the Go side asks.
type request struct {
	V       int     `json:"v,omitempty"`
	ID      int64   `json:"id"`
	Op      string  `json:"op"`
	Bundle  string  `json:"bundle,omitempty"`
	Scratch string  `json:"scratch,omitempty"`
	Pos     int     `json:"pos"` // tokens the worker has consumed already: a check, not a wish
	Tokens  []int32 `json:"tokens,omitempty"`
	Calls   []int   `json:"calls,omitempty"` // tokens in each call of the function
	From    int     `json:"from"`            // positions of Tokens below it are not shown
	MaxNew  int     `json:"max_new,omitempty"`
	Len     int     `json:"len"`
	States  any     `json:"states,omitempty"` // reset: []Tensor, the states to take; force: true, to give them when done

}

// Tensor is an input, output or state, or one that lies in a file.
type Tensor struct {
	Name   string `json:"name"`
	Shape  []int  `json:"shape"`
	DType  string `json:"dtype"` // as safetensors: F16, BF16, F32, I32
	File   string `json:"file,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
}

// message is what a worker says: an answer (OK set), or an event (Ev set).
type message struct {
	ID  int64  `json:"id"`
	OK  *bool  `json:"ok"`
	Ev  string `json:"ev"`
	Err *struct {
		Code       Code   `json:"code"`
		Msg        string `json:"msg"`
		Underlying string `json:"underlying"`
		Fatal      bool   `json:"fatal"`
	} `json:"err"`

	Hello
	Opened

	I      int      `json:"i"`
	Pos    int      `json:"pos"`
	Tok    *int32   `json:"tok"`
	Ties   []int32  `json:"ties"`
	Max    *float64 `json:"max"` // absent: not finite or not shown
	NaN    bool     `json:"nan"` // the largest logit is NaN
	File   string   `json:"file"`
	SHA256 string   `json:"sha256"`
	Reason string   `json:"reason"`
	Len    int      `json:"len"`
}

// Hello is what a worker says about itself and the runtime it found.
type Hello struct {
	V       int    `json:"v"`
	Runtime string `json:"runtime"` // the package or framework: "coreai-core"
	Version string `json:"version"` // its version
	Engine  string `json:"engine"`  // which of the runtime's engines: "coreai-cpu", "coreai-pipelined"
	Host    string `json:"host"`    // what the worker itself runs in
	OS      string `json:"os"`
	Device  string `json:"device"`
}

// Opened is what a worker says about the bundle it opened.
type Opened struct {
	Functions  []string `json:"functions"`
	Inputs     []Tensor `json:"inputs"`
	Outputs    []Tensor `json:"outputs"`
	States     []Tensor `json:"states"`
	Vocab      int      `json:"vocab"`
	MaxContext int      `json:"max_ctx"` // 0: no bound but the model's
	Call       int      `json:"call"`    // tokens a call takes: 1, or 0 for any number
	Forcing    string   `json:"forcing"` // Stepwise or GrowingPrefix
	LoadMS     float64  `json:"load_ms"`
}

// dtypeBytes are the element types that a worker may name.
var dtypeBytes = map[string]int{"F16": 2, "BF16": 2, "F32": 4, "I32": 4}

// elements is the number of values in a shape without dynamic dimensions; ok is false where it is none or too large.
func elements(shape []int) (n int, ok bool) {
	n = 1
	for _, d := range shape {
		if d < 0 || d > maxDim || d > 0 && n > math.MaxInt/2/d || n*d > maxState {
			return 0, false
		}
		n *= d
	}
	return n, len(shape) <= maxRank
}

// check refuses a description that no bundle of this family has, before anything is taken from it.
func (o *Opened) check(bundle string) error {
	for _, list := range []struct {
		kind string
		ts   []Tensor
	}{{"inputs", o.Inputs}, {"outputs", o.Outputs}, {"states", o.States}} {
		if len(list.ts) > maxTensors {
			return garbled("%d %s", len(list.ts), list.kind)
		}
		for i, t := range list.ts {
			if err := t.check(); err != nil {
				return garbled("%s[%d]: %v", list.kind, i, err)
			}
		}
	}
	switch logits := tensorNamed(o.Outputs, "logits"); {
	case o.Vocab < 1 || o.Vocab > maxVocab:
		return garbled("a vocabulary of %d ids", o.Vocab)
	case o.Call < 0 || o.Call > maxDim || o.MaxContext < 0 || o.MaxContext > maxDim:
		return garbled("calls of %d tokens, a context of %d", o.Call, o.MaxContext)
	case o.Call > 1:
		return &inputerr.Error{File: bundle, Field: "input_ids", Found: fmt.Sprintf("a graph that takes %d tokens a call, no more and no fewer", o.Call),
			Want: "one token a call, or any number", Do: "sibyl feeds prompts of any length: export the model with one of these"}
	case o.Forcing != Stepwise && o.Forcing != GrowingPrefix:
		return garbled("forcing %q, which is neither %s nor %s", clip(o.Forcing), Stepwise, GrowingPrefix)
	case o.Forcing == GrowingPrefix:
		return nil // logits are not shown
	case logits == nil || len(logits.Shape) == 0 || logits.Shape[len(logits.Shape)-1] != o.Vocab:
		return &inputerr.Error{File: bundle, Field: "outputs", Found: fmt.Sprintf("%s and a vocabulary of %d", describeAll(o.Outputs), o.Vocab),
			Want: "logits whose last axis is the vocabulary", Do: "sibyl runs text models of the Qwen3.5 family; `sibyl inspect` says what this bundle is"}
	case logits.DType != "F16" && logits.DType != "BF16" && logits.DType != "F32":
		return garbled("logits of %s", logits.DType)
	}
	return nil
}

// check refuses a tensor whose description cannot be.
func (t *Tensor) check() error {
	switch {
	case t.Name == "" || len(t.Name) > maxWord:
		return fmt.Errorf("a name of %d bytes", len(t.Name))
	case len(t.Shape) > maxRank:
		return fmt.Errorf("%s has %d axes", clip(t.Name), len(t.Shape))
	case slices.ContainsFunc(t.Shape, func(d int) bool { return d < -1 || d == 0 || d > maxDim }):
		return fmt.Errorf("%s has shape %v", clip(t.Name), t.Shape)
	case dtypeBytes[t.DType] == 0:
		return fmt.Errorf("%s has dtype %q", clip(t.Name), clip(t.DType))
	}
	return nil
}

func tensorNamed(ts []Tensor, name string) *Tensor {
	for i := range ts {
		if ts[i].Name == name {
			return &ts[i]
		}
	}
	return nil
}

func describeAll(ts []Tensor) string {
	out := "nothing"
	for i, t := range ts[:min(len(ts), 8)] {
		if i == 0 {
			out = ""
		} else {
			out += ", "
		}
		out += fmt.Sprintf("%s %s%v", clip(t.Name), t.DType, t.Shape)
	}
	return out
}

// clip shortens what a worker says for messages.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// garbled says that the worker broke the protocol: a fault of the worker, not of the user's input.
func garbled(format string, args ...any) error {
	return &Failure{Code: Protocol, Msg: fmt.Sprintf(format, args...), Fatal: true}
}
