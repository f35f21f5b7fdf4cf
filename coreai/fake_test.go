package coreai

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sibyl/internal/shown"
)

// The stand-in worker: this test binary again, started with fakeVariable set. It keeps the protocol for the sample
// opticks-2m-int8hu-sym with numbers of its own, but for one fault, which the variable names.
const fakeVariable = "SIBYL_TEST_FAKE_WORKER"

func TestMain(m *testing.M) {
	if fault, ok := os.LookupEnv(fakeVariable); ok {
		(&fake{fault: fault, out: os.Stdout}).run()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeDriver opens bundles in a stand-in with a fault ("" for none). Limits are short where they are to be met, and long
// where a busy machine must not meet them.
func fakeDriver(fault string) Driver {
	limits := Limits{Start: time.Minute, Open: time.Minute, Step: time.Minute, Cancel: time.Second, Close: time.Second}
	switch {
	case fault == "hangs-in-hello":
		limits.Start = time.Second
	case strings.Contains(fault, "hangs"), strings.Contains(fault, "closes-stdout"):
		limits.Open, limits.Step = 2*time.Second, 2*time.Second
	}
	return Driver{limits: limits,
		start: func(string) (*exec.Cmd, error) {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), fakeVariable+"="+fault)
			return cmd, nil
		}}
}

const fakeVocab = 2048

// fakeStates are opticks-2m-int8hu-sym's.
func fakeStates() []Tensor {
	return []Tensor{
		{Name: "keyCache", Shape: []int{2, 1, 2, -1, 64}, DType: "F16"}, {Name: "valueCache", Shape: []int{2, 1, 2, -1, 64}, DType: "F16"},
		{Name: "convState", Shape: []int{6, 1, 512, 3}, DType: "F16"}, {Name: "recState", Shape: []int{6, 1, 8, 32, 32}, DType: "F16"},
	}
}

type fake struct {
	fault   string
	out     *os.File
	scratch string
	len     int // tokens consumed
	sum     int // of their ids: all that the stand-in remembers, in the first two values of recState
}

// is says whether the fault is this one.
func (f *fake) is(fault string) bool { return f.fault == fault }

func (f *fake) say(m map[string]any) {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(f.out, "%s\n", text)
}

func (f *fake) run() {
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			if f.is("stays-after-eof") {
				time.Sleep(time.Hour)
			}
			return
		}
		var r struct {
			request
			States json.RawMessage `json:"states"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			panic(err)
		}
		if f.general(r.Op) {
			continue
		}
		switch r.Op {
		case opHello:
			f.say(map[string]any{"id": r.ID, "ok": true, "v": f.pick("other-protocol", 2, 1), "runtime": "coreai-core", "version": f.pick("other-version", "1.0.0b2", RuntimeVersion),
				"engine": "fake", "host": "go test", "os": "none", "device": "none"})
		case opOpen:
			f.open(r.request)
		case opReset:
			f.reset(r.request, r.States)
		case opForce:
			f.force(r.request, len(r.States) > 0)
		case opGenerate:
			f.generate(r.request)
		case opClose:
			if f.is("does-not-close") {
				time.Sleep(time.Hour)
			}
			return
		}
	}
}

func (f *fake) pick(fault string, faulty, good any) any {
	if f.is(fault) {
		return faulty
	}
	return good
}

// general are the faults of any operation: "hangs-in-open". It says that the request was dealt with.
func (f *fake) general(op string) bool {
	fault, at, _ := strings.Cut(f.fault, "-in-")
	if at != op {
		return false
	}
	switch fault {
	case "hangs":
		time.Sleep(time.Hour)
	case "dies":
		os.Exit(3)
	case "closes-stdout":
		f.out.Close()
		time.Sleep(time.Hour)
	case "garbage":
		fmt.Fprintln(f.out, "Loading weights: 100%")
	case "empty-object":
		fmt.Fprintln(f.out, "{}")
	case "other-id":
		f.say(map[string]any{"id": 99, "ok": true})
	case "wrong-type":
		fmt.Fprintf(f.out, `{"id":1,"ok":true,"len":"three"}`+"\n")
	case "endless-line":
		for {
			if _, err := f.out.Write(bytes.Repeat([]byte("x"), 1<<16)); err != nil {
				os.Exit(0)
			}
		}
	case "no-reason":
		f.say(map[string]any{"id": 3, "ok": false})
	default:
		if words, ok := strings.CutPrefix(fault, "says:"); ok {
			fmt.Fprintf(os.Stderr, "note: loading\n%s\n", words)
			os.Exit(134)
		}
		return false
	}
	return true
}

func (f *fake) open(r request) {
	if f.is("floods-stderr") {
		for range 1 << 10 {
			os.Stderr.Write(bytes.Repeat([]byte("warning: noise\n"), 1<<12))
		}
	}
	f.scratch = r.Scratch
	states := fakeStates()
	switch f.fault {
	case "states-of-other-rank":
		states[3].Shape = states[3].Shape[:4]
	case "states-renamed":
		states[2].Name = "conv"
	case "state-shape-negative":
		states[3].Shape[2] = -7
	case "state-shape-huge":
		states[3].Shape[2] = 1 << 40
	case "state-dtype-unknown":
		states[3].DType = "F4"
	}
	vocab, axis := fakeVocab, fakeVocab
	switch f.fault {
	case "vocab-of-another":
		vocab, axis = 2047, 2047
	case "vocab-and-logits-disagree":
		axis = 1024
	case "vocab-huge":
		vocab = 1 << 40
	}
	f.say(map[string]any{"id": r.ID, "ok": true, "functions": []string{"main"}, "vocab": vocab, "call": f.pick("any-call", 0, 1), "forcing": f.pick("growing-prefix", GrowingPrefix, f.pick("other-forcing", "telepathy", Stepwise)),
		"outputs": []Tensor{{Name: "logits", Shape: []int{1, 1, axis}, DType: "F16"}}, "states": states})
}

func (f *fake) reset(r request, states json.RawMessage) {
	f.len, f.sum = r.Len, 0
	if len(states) > 0 {
		var ts []Tensor
		if err := json.Unmarshal(states, &ts); err != nil {
			panic(err)
		}
		raw, err := os.ReadFile(filepath.Join(f.scratch, tensorNamed(ts, "recState").File))
		if err != nil {
			panic(err)
		}
		x := decode("F16", raw[:4])
		f.sum = int(x[0]) + 1000*int(x[1])
	}
	f.say(map[string]any{"id": r.ID, "ok": true, "len": f.pick("lies-about-reset", r.Len+1, r.Len)})
}

// row is what the stand-in says after the tokens consumed: two ids tie at the top.
func (f *fake) row() []float32 {
	out := make([]float32, fakeVocab)
	at := f.len*131 + f.sum
	for i := range out {
		out[i] = float32((i*37+at)%1021) / 64
	}
	out[(at+500)%fakeVocab], out[(at+7)%fakeVocab] = 20, 20
	return out
}

func (f *fake) take(t int32) { f.len, f.sum = f.len+1, f.sum+int(t) }

func (f *fake) force(r request, states bool) {
	name := fmt.Sprintf("rows-%d", r.ID)
	file, err := os.Create(filepath.Join(f.scratch, name))
	if err != nil {
		panic(err)
	}
	defer file.Close()
	for i, t := range r.Tokens {
		f.take(t)
		if i >= r.From {
			f.step(r, i, file, name)
		}
	}
	if f.is("one-step-more") {
		f.step(r, len(r.Tokens), file, name)
	}
	m := map[string]any{"id": r.ID, "ev": "done", "reason": f.pick("other-reason", "bored", "max"), "len": f.pick("lies-about-length", f.len+1, f.len).(int)}
	if states {
		m["states"] = f.save(r.ID)
	}
	if f.is("refuses") && f.len > 2 {
		m = map[string]any{"id": r.ID, "ok": false, "err": map[string]any{"code": "context_full", "msg": "no room"}}
	}
	f.say(m)
}

// step tells a row, with the fault that is about rows.
func (f *fake) step(r request, i int, file *os.File, name string) {
	raw := encode("F16", f.row())
	sum := sha256.Sum256(raw)
	m := map[string]any{"id": r.ID, "ev": "step", "pos": r.Pos + i, "tok": shown.Largest(f.row(), 1)[0].ID, "file": name, "sha256": hex.EncodeToString(sum[:])}
	if i == 2 {
		switch f.fault {
		case "dies-mid-token":
			fmt.Fprintf(f.out, `{"id":%d,"ev":"st`, r.ID)
			os.Exit(1)
		case "hangs-mid-token":
			time.Sleep(time.Hour)
		case "skips-a-position":
			m["pos"] = r.Pos + i + 1
		case "repeats-a-position":
			m["pos"] = r.Pos + i - 1
		case "lies-about-argmax":
			m["tok"] = 5
		case "no-argmax":
			delete(m, "tok")
		case "logits-changed":
			raw[9]++
		case "file-changes":
			m["file"] = "rows-0"
		case "done-too-early":
			m["ev"], m["reason"], m["len"] = "done", "max", f.len
		case "event-unknown":
			m["ev"] = "progress"
		case "floods-events":
			file.Write(raw)
			for {
				f.say(m)
			}
		}
	}
	switch f.fault {
	case "logits-cut":
		if i == len(r.Tokens)-1 {
			raw = raw[:len(raw)-2]
		}
	case "file-missing":
		m["file"] = "nothing"
	case "file-outside":
		m["file"] = "../" + name
	case "file-absolute":
		m["file"] = filepath.Join(f.scratch, name)
	case "file-a-link":
		os.Symlink(filepath.Join(f.scratch, name), filepath.Join(f.scratch, "link"))
		m["file"] = "link"
	}
	file.Write(raw)
	f.say(m)
}

// save writes the states: those that were set, or numbers of its own.
func (f *fake) save(id int64) []Tensor {
	out := fakeStates()
	n := f.len
	for i := range out {
		t := &out[i]
		if t.Shape[3] < 0 {
			t.Shape[3] = n
		}
		size, _ := elements(t.Shape)
		x := make([]float32, size)
		for k := range x {
			x[k] = float32(k%50) / 8
		}
		if t.Name == "recState" {
			x[0], x[1] = float32(f.sum%1000), float32(f.sum/1000)
		}
		raw := encode(t.DType, x)
		sum := sha256.Sum256(raw)
		t.File, t.SHA256 = fmt.Sprintf("state-%d-%d", id, i), hex.EncodeToString(sum[:])
		if i == 2 {
			switch f.fault {
			case "state-shape":
				t.Shape = slices.Clone(t.Shape)
				t.Shape[2]++
			case "state-dtype":
				t.DType = "BF16"
			case "state-renamed":
				t.Name = "convStates"
			case "state-longer":
				raw = append(raw, 0, 0)
			case "state-shorter":
				raw = raw[2:]
			case "state-changed":
				raw[3]++
			case "state-outside":
				t.File = "../../state"
			}
		}
		if t.File[0] != '.' {
			os.WriteFile(filepath.Join(f.scratch, t.File), raw, 0o600)
		}
	}
	if f.is("state-missing") {
		return out[:3]
	}
	return out
}

func (f *fake) generate(r request) {
	for _, t := range r.Tokens {
		f.take(t)
	}
	for i := range r.MaxNew {
		top := shown.Largest(f.row(), 2)
		ties := []int32{top[0].ID, top[1].ID}
		m := map[string]any{"id": r.ID, "ev": "token", "i": i, "tok": top[0].ID, "ties": ties, "max": top[0].Logit}
		if i == 1 {
			switch f.fault {
			case "token-of-another-vocabulary":
				m["tok"], m["ties"] = fakeVocab, []int32{fakeVocab}
			case "token-out-of-order":
				m["i"] = 2
			case "ties-of-other-ids":
				m["ties"] = []int32{3, 2}
			case "generate-dies":
				fmt.Fprintln(os.Stderr, "Fatal error: Unable to use cached specializations")
				os.Exit(134)
			case "generate-hangs":
				time.Sleep(time.Hour)
			case "generate-ends-early":
				f.say(map[string]any{"id": r.ID, "ev": "done", "reason": "max", "len": f.len})
				return
			}
		}
		f.say(m)
		if i < r.MaxNew-1 {
			f.take(top[0].ID)
		}
	}
	f.say(map[string]any{"id": r.ID, "ev": "done", "reason": "max", "len": f.len})
}

// cmdRef is the command that a driver started last.
type cmdRef struct{ c *exec.Cmd }

// noting notes what start makes.
func noting(start starter, seen *traces) (starter, *cmdRef) {
	ref := &cmdRef{}
	return func(scratch string) (*exec.Cmd, error) {
		c, err := start(scratch)
		ref.c, seen.scratch = c, scratch
		return c, err
	}, ref
}
