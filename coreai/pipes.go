package coreai

import (
	"bytes"
	"errors"
	"sync"
)

// lines cuts what a worker writes to stdout into messages. It keeps one message at a time: a worker that floods waits.
type lines struct {
	ch   chan []byte // one message; nil for one that is too long
	quit chan struct{}
	once sync.Once

	mu   sync.Mutex
	part []byte // of a message whose end has not come
}

func newLines() *lines { return &lines{ch: make(chan []byte), quit: make(chan struct{})} }

var errNoReader = errors.New("nobody reads the worker any more")

// Write implements io.Writer for the goroutine of os/exec.
func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		piece, rest, whole := bytes.Cut(p, []byte{'\n'})
		p = rest
		l.mu.Lock()
		l.part = append(l.part, piece...)
		line := l.part
		if whole {
			l.part = nil
		}
		l.mu.Unlock()
		if len(line) > maxLine {
			line = nil
		} else if !whole || len(line) == 0 {
			continue
		}
		select {
		case l.ch <- line:
		case <-l.quit:
			return n, errNoReader
		}
		if line == nil {
			return n, errNoReader
		}
	}
	return n, nil
}

// stop lets the writer go: what comes is thrown away.
func (l *lines) stop() { l.once.Do(func() { close(l.quit) }) }

// rest is the message that has not ended.
func (l *lines) rest() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.part
}

// tail keeps the end of what a worker writes to stderr, and the begin, where the first of a chain of errors stands.
type tail struct {
	mu        sync.Mutex
	head, end []byte
}

const tailBytes = 32 << 10

// Write implements io.Writer. It never waits and never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if room := tailBytes - len(t.head); room > 0 {
		k := min(room, len(p))
		t.head, p = append(t.head, p[:k]...), p[k:]
	}
	if len(p) > tailBytes {
		p = p[len(p)-tailBytes:]
	}
	t.end = append(t.end, p...)
	if over := len(t.end) - tailBytes; over > 0 {
		t.end = append(t.end[:0], t.end[over:]...)
	}
	return n, nil
}

// String is what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.head) + string(t.end)
}
