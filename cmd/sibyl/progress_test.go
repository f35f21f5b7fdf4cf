package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// clock is a time that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func terminal(width int) (*App, *bytes.Buffer, *clock) {
	var b bytes.Buffer
	c := &clock{time.Unix(0, 0)}
	return &App{Stderr: &notes{w: &b, width: width, now: c.now}}, &b, c
}

func TestProgressOnlyOnATerminal(t *testing.T) {
	t.Parallel()
	a, out, c := terminal(0)
	report := a.Progress("hashing")
	c.t = c.t.Add(time.Minute)
	report(1, 2)
	if out.Len() > 0 {
		t.Errorf("without a terminal: printed %q, want nothing", out)
	}
	a, out, c = terminal(100)
	a.Quiet = true
	report = a.Progress("hashing")
	c.t = c.t.Add(time.Minute)
	report(1, 2)
	if out.Len() > 0 {
		t.Errorf("with --quiet: printed %q, want nothing", out)
	}
}

func TestProgressAfterASecond(t *testing.T) {
	t.Parallel()
	a, out, c := terminal(100)
	report := a.Progress("hashing")
	c.t = c.t.Add(999 * time.Millisecond)
	report(1, 4)
	if out.Len() > 0 {
		t.Fatalf("before a second: printed %q, want nothing", out)
	}
	c.t = c.t.Add(time.Millisecond)
	report(2, 4)
	if !strings.Contains(out.String(), "hashing") {
		t.Fatalf("after a second: printed %q, want the bar", out)
	}
	report(4, 4)
	if !strings.HasSuffix(out.String(), "\033[2K\r") {
		t.Errorf("at the end: %q, want the bar erased", out)
	}
}

func TestProgressErasedBeforeALine(t *testing.T) {
	t.Parallel()
	a, out, c := terminal(100)
	report := a.Progress("hashing")
	c.t = c.t.Add(2 * time.Second)
	report(1, 4)
	a.Note("a line")
	if !strings.HasSuffix(out.String(), "\033[2K\ra line\n") {
		t.Errorf("a line over a bar: %q, want the bar erased first", out)
	}
	before := out.Len()
	a.Stderr.finish()
	a.Note("another")
	if rest := out.String()[before:]; strings.Count(rest, "another\n") != 1 || strings.Contains(rest, "hashing") {
		t.Errorf("after the job: %q, want the line alone", rest)
	}
}
