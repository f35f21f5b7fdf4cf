package coreai

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Limits are how long the Go side waits. Each is a silence, not a duration: a worker that speaks may go on.
type Limits struct {
	Start  time.Duration // for the answer to hello: imports of the host's packages
	Open   time.Duration // loading and specialising a bundle
	Step   time.Duration // between two messages of force, generate and reset
	Cancel time.Duration // for a cancelled request to end by itself
	Close  time.Duration // for the process to end by itself
}

// DefaultLimits are for bundles of any size: specialising 28 GB takes minutes.
var DefaultLimits = Limits{Start: time.Minute, Open: 20 * time.Minute, Step: 10 * time.Minute, Cancel: 5 * time.Second, Close: 5 * time.Second}

// starter makes the command of a worker process: it speaks the protocol on its stdin and stdout, and may write below
// scratch. The platform's is platformWorker.
type starter func(scratch string) (*exec.Cmd, error)

// worker is a process that answers, one request at a time. Its methods are called from one goroutine at a time. After
// a fatal failure the process is gone and every request gives that failure again.
type worker struct {
	limits  Limits
	scratch string   // removed when the process has ended
	files   *os.Root // of scratch: names from the worker cannot leave it
	cmd     *exec.Cmd
	say     chan []byte // to the goroutine that writes requests; nil closes the worker's stdin
	out     *lines
	err     *tail
	ended   chan struct{} // closed when the process has been waited for; then exit is set
	exit    error
	next    int64
	dead    error // why no request can be made
}

// startWorker starts a process. It is closed with close, whatever happens to it.
func startWorker(start starter, limits Limits) (*worker, error) {
	scratch, err := os.MkdirTemp("", "sibyl-coreai-")
	if err != nil {
		return nil, fmt.Errorf("coreai: %w", err)
	}
	w := &worker{limits: limits, scratch: scratch, out: newLines(), err: &tail{}, ended: make(chan struct{}), say: make(chan []byte, 16)}
	if w.files, err = os.OpenRoot(scratch); err == nil {
		err = w.start(start)
	}
	if err != nil {
		w.removeScratch()
		var known *Failure
		if errors.As(err, &known) {
			return nil, known
		}
		return nil, &Failure{Code: NoWorker, Doing: "start", Msg: err.Error(), Fatal: true}
	}
	return w, nil
}

func (w *worker) start(start starter) (err error) {
	if w.cmd, err = start(w.scratch); err != nil {
		return err
	}
	w.cmd.Stdout, w.cmd.Stderr = w.out, w.err
	// A process of the worker's own may hold its pipes open after it: they are closed on this side then.
	w.cmd.WaitDelay = time.Second
	in, err := w.cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err = w.cmd.Start(); err != nil {
		return err
	}
	go w.writeTo(in)
	go func() {
		w.exit = w.cmd.Wait()
		close(w.ended)
	}()
	return nil
}

// silence is how long a request may go without a message.
func (w *worker) silence(op string) time.Duration {
	switch op {
	case opHello:
		return w.limits.Start
	case opOpen:
		return w.limits.Open
	}
	return w.limits.Step
}

// call makes a request and gives its last message: the answer, or the event done. Other events go to each, whose first
// error cancels the request and is returned; so does the end of ctx. A worker that does not obey in time is killed. Its
// refusals are *Failure.
func (w *worker) call(ctx context.Context, r request, each func(*message) error) (*message, error) {
	if w.dead != nil {
		return nil, w.dead
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w.next++
	r.ID = w.next
	w.send(r)
	timer := time.NewTimer(w.silence(r.Op))
	defer timer.Stop()
	done := ctx.Done()
	var stopped error // why the request was cancelled
	stop := func(err error) {
		stopped, done = err, nil
		w.send(request{ID: r.ID, Op: opCancel})
		timer.Reset(w.limits.Cancel)
	}
	for {
		select {
		case <-done:
			stop(fmt.Errorf("coreai: %s stopped: %w", r.Op, ctx.Err()))
		case <-timer.C:
			if stopped != nil {
				_ = w.kill(&Failure{Code: TimedOut, Msg: fmt.Sprintf("it went on for %v after a cancellation and was ended", w.limits.Cancel)}, r.Op)
				return nil, stopped
			}
			return nil, w.kill(&Failure{Code: TimedOut, Msg: fmt.Sprintf("no word for %v", w.silence(r.Op)),
				Do: "a large bundle may need longer: SIBYL_COREAI_TIMEOUT sets the time, such as 1h"}, r.Op)
		case <-w.ended:
			f := w.died(r.Op)
			if stopped != nil {
				return nil, stopped
			}
			return nil, f
		case line := <-w.out.ch:
			m, err := w.parse(line, r.ID)
			if err != nil {
				return nil, w.kill(err, r.Op)
			}
			last := m.OK != nil || m.Ev == "done"
			switch {
			case last && stopped != nil:
				return nil, stopped
			case last:
				return m, w.answer(m, r.Op)
			case stopped != nil:
				continue // the timer runs on: a flood of events must not outlive the grace
			case each == nil:
				return nil, w.kill(garbled("event %q in answer to %s", clip(m.Ev), r.Op), r.Op)
			}
			if ctx.Err() != nil { // both were ready: what comes after the end is not shown
				stop(fmt.Errorf("coreai: %s stopped: %w", r.Op, ctx.Err()))
				continue
			}
			if err := each(m); err != nil {
				if f, fault := err.(*Failure); fault && f.Fatal {
					return nil, w.kill(f, r.Op)
				}
				stop(err)
				continue
			}
			timer.Reset(w.silence(r.Op))
		}
	}
}

// send hands a request over without waiting: a worker that does not read must not hold the Go side up. What is not
// written is met by the death or the silence that follows.
func (w *worker) send(r request) {
	text, err := json.Marshal(r)
	if err != nil {
		panic("coreai: a request that is no JSON: " + err.Error()) // a fault of the program: its fields are plain
	}
	w.post(append(text, '\n'))
}

func (w *worker) post(text []byte) {
	select {
	case w.say <- text:
	default: // it has not read the last few
	}
}

// writeTo writes requests in order until the worker ends or its stdin is to be closed.
func (w *worker) writeTo(in io.WriteCloser) {
	defer in.Close()
	for {
		select {
		case <-w.ended:
			return
		case text := <-w.say:
			if _, err := in.Write(text); text == nil || err != nil {
				return
			}
		}
	}
}

// parse reads a message; it must be about request id.
func (w *worker) parse(line []byte, id int64) (*message, error) {
	if line == nil {
		return nil, garbled("a message of more than %d bytes", maxLine)
	}
	m := &message{}
	if err := json.Unmarshal(line, m); err != nil {
		return nil, garbled("%q is no message: %v", clip(string(line)), err)
	}
	switch {
	case m.ID != id:
		return nil, garbled("an answer to request %d while %d runs", m.ID, id)
	case m.OK != nil == (m.Ev != ""):
		return nil, garbled("%q is neither an answer nor an event", clip(string(line)))
	case m.OK != nil && !*m.OK && m.Err == nil:
		return nil, garbled("%q refuses without a reason", clip(string(line)))
	}
	return m, nil
}

// answer turns a refusal into a *Failure.
func (w *worker) answer(m *message, op string) error {
	if m.OK == nil || *m.OK {
		return nil
	}
	e := m.Err
	f := &Failure{Code: e.Code, Msg: e.Msg, Underlying: e.Underlying, Fatal: e.Fatal, Known: match(e.Underlying, e.Msg)}
	if f.Code == "" {
		f.Code = EngineFault
	}
	if f.Doing = op; f.Fatal {
		return w.kill(f, op)
	}
	return f
}

// kill ends the process and gives the reason, which every later request gets.
func (w *worker) kill(why error, op string) error {
	_ = w.cmd.Process.Kill() // it may have ended by itself
	w.out.stop()
	<-w.ended // Kill cannot be refused, and WaitDelay bounds what holds the pipes
	if f, ok := why.(*Failure); ok {
		f.Fatal = true
		if f.Doing == "" {
			f.Doing = op
		}
		if f.Stderr == "" && f.Code != MissingRuntime && f.Code != WrongVersion {
			f.Stderr = w.err.String()
		}
		if f.Known == nil {
			f.Known = match(f.Underlying, f.Stderr)
		}
	}
	w.dead = why
	return why
}

// died says how the process ended, and what it said last.
func (w *worker) died(op string) error {
	w.out.stop()
	how := "it ended with " + w.cmd.ProcessState.String()
	if rest := w.out.rest(); len(rest) > 0 {
		how += fmt.Sprintf(", in the middle of the message %q", clip(string(rest)))
	}
	f := &Failure{Code: Died, Doing: op, Msg: how, Stderr: w.err.String(), Fatal: true}
	f.Known = match(f.Stderr)
	w.dead = f
	return f
}

// close asks the process to end, ends it if it does not, and removes its files.
func (w *worker) close() error {
	if w.files == nil {
		return nil
	}
	if w.dead == nil {
		w.next++
		w.send(request{ID: w.next, Op: opClose})
		w.post(nil)
		w.out.stop() // whatever it still says
		select {
		case <-w.ended:
		case <-time.After(w.limits.Close):
			_ = w.kill(errClosed, opClose) // errClosed is its reason, no fault
		}
		w.dead = errClosed
	}
	<-w.ended
	return w.removeScratch()
}

func (w *worker) removeScratch() error {
	if w.files != nil {
		_ = w.files.Close() // it was only read
		w.files = nil
	}
	return os.RemoveAll(w.scratch)
}

var errClosed = errors.New("coreai: the engine is closed")
