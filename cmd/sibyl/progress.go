package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressDelay is how long a job runs before its progress is shown: what is over sooner needs none.
const progressDelay = time.Second

// notes is standard error: lines, and on a terminal at most one progress bar below them, which is erased
// before any line. It is safe for use from several goroutines.
type notes struct {
	mu    sync.Mutex
	w     io.Writer
	width int // of the terminal; 0 if there is none: then no bar is ever drawn
	quiet bool
	now   func() time.Time
	bar   *progressbar.ProgressBar
}

func newNotes(w io.Writer) *notes {
	return &notes{w: w, width: terminalWidth(w), now: time.Now}
}

// Write lets libraries print lines.
func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.erase()
	return n.w.Write(b)
}

// line prints one line. Errors of standard error have nowhere to go.
func (n *notes) line(text string) { fmt.Fprintln(n, text) }

// error prints one line in the name of the program.
func (n *notes) error(text string) { n.line("sibyl: " + text) }

// clear removes the bar, if there is one.
func (n *notes) clear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.erase()
}

// finish removes the bar for good: another job begins.
func (n *notes) finish() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.erase()
	n.bar = nil
}

// erase wipes the bar's line; the next update draws it again.
func (n *notes) erase() {
	if n.bar != nil {
		n.bar.Clear()
	}
}

// Progress gives the function a library reports to: done of total, in whatever unit. The bar appears only on a
// terminal, only after a second, and goes when done reaches total.
func (a *App) Progress(label string) func(done, total int64) {
	return a.progressSince(a.Stderr.now(), label)
}

// progressSince is Progress of a job that began at start.
func (a *App) progressSince(start time.Time, label string) func(done, total int64) {
	n := a.Stderr
	if n.width == 0 || a.Quiet {
		return func(done, total int64) {}
	}
	return func(done, total int64) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.now().Sub(start) < progressDelay || total <= 0 {
			return
		}
		if n.bar == nil {
			n.bar = progressbar.NewOptions64(total,
				progressbar.OptionSetWriter(n.w), progressbar.OptionSetDescription(label),
				progressbar.OptionSetWidth(max(10, min(40, n.width-50))), progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionSetTheme(progressbar.Theme{Saucer: "=", SaucerHead: ">", SaucerPadding: " ", BarStart: "[", BarEnd: "]"}),
				progressbar.OptionClearOnFinish(), progressbar.OptionUseANSICodes(true))
		}
		if n.bar.GetMax64() != total {
			n.bar.ChangeMax64(total)
		}
		n.bar.Set64(done)
		if done >= total {
			n.bar.Clear()
			n.bar = nil
		}
	}
}
