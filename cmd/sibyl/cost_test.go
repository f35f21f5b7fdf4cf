package main

import (
	"testing"
	"time"

	"sibyl/bundle"
	"sibyl/oracle"
)

// TestEstimate: the demo model's matrices by hand, at rates that are given.
func TestEstimate(t *testing.T) {
	t.Parallel()
	c, err := bundle.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// 6 GDN layers: in_proj 512+256+8+8 and out_proj 256 of 128; 2 attention layers: q 512, k and v 128 each, o 256; 8 MLPs of 3 x 352.
	body := 2 * 128.0 * (6*(512+256+16+256) + 2*(512+256+256) + 8*3*352)
	head := 2 * 128.0 * 2048
	multiply := func(mode string, threads int) float64 {
		if threads != 3 {
			t.Errorf("%d threads, want 3", threads)
		}
		return map[string]float64{"exact": 1e9, "fast": 4e9}[mode]
	}
	read := func() (first, again float64) { return 1e6, 1e9 }
	got := estimate(c, 3, []pass{{mode: "exact", tokens: 100000, heads: 10, readings: 2}, {mode: "fast", tokens: 100000, heads: 0, readings: 1}}, multiply, read)
	flops := 200000*body + 10*head
	seconds := (100000*body+10*head)/1e9 + 100000*body/4e9
	want := cost{Readings: 3, Bytes: 3 * c.Sizes().Total(), Flops: flops, Time: time.Duration(seconds * float64(time.Second))}
	if got.Readings != want.Readings || got.Bytes != want.Bytes || got.Flops != want.Flops || (got.Time-want.Time).Abs() > time.Microsecond {
		t.Errorf("estimate = %+v\nwant %+v", got, want)
	}
	// The first reading comes at 1 MB/s, 299 more at 1 GB/s; what is computed meanwhile costs nothing.
	one := float64(c.Sizes().TotalPerToken())
	got = estimate(c, 3, []pass{{mode: "exact", tokens: 1000, readings: 300, perToken: true}}, multiply, read)
	fresh := float64(c.Sizes().Total())
	seconds = fresh/1e6 + (300*one-fresh)/1e9
	if (got.Time-time.Duration(seconds*float64(time.Second))).Abs() > time.Microsecond || got.Bytes != 300*c.Sizes().TotalPerToken() {
		t.Errorf("a job that reads %d bytes takes %v, want %.3f s", got.Bytes, got.Time, seconds)
	}
	// Two that go through the layers together: their sums are compared, not each.
	got = estimate(c, 3, []pass{{mode: "exact", tokens: 100000, readings: 300}, {mode: "fast", tokens: 100000}}, multiply, read)
	seconds = max(100000*body/1e9+100000*body/4e9, fresh/1e6+299*fresh/1e9)
	if (got.Time - time.Duration(seconds*float64(time.Second))).Abs() > time.Microsecond {
		t.Errorf("together: %v, want %.3f s", got.Time, seconds)
	}
	if got := estimate(c, 1, []pass{{mode: "exact", tokens: 10, readings: 1}}, nil, nil); got.Time != 0 {
		t.Errorf("a small job is measured: %v", got.Time)
	}
}

// TestGatePasses counts the tokens and readings of a gate, plain and streamed, and leaves out what no CPU engine runs.
func TestGatePasses(t *testing.T) {
	t.Parallel()
	setup := &oracle.Setup{Prompts: []oracle.Prompt{{IDs: make([]int32, 3)}, {IDs: make([]int32, 5)}}, Text: &oracle.Text{IDs: make([]int32, 100)}}
	p := oracle.Protocol{MaxTokens: 4}
	ref, test := Subject{}, Subject{Engine: "cpu", Mode: "fast"}
	sum := func(passes []pass) (s pass) {
		for _, p := range passes {
			s.tokens, s.heads, s.readings = s.tokens+p.tokens, s.heads+p.heads, s.readings+p.readings
		}
		return s
	}
	// Forced: 8 prompt and 6 continuation tokens and the text, once a side, 4 readings. Decoded: 8 and 6 tokens a side, 8 heads, 2
	// and 3 readings, since both go on together. States: 8 tokens of REF in 2 readings, a step of each of TEST's. And one look at all weights.
	if got, want := sum(gatePasses(&App{}, ref, test, setup, p, false)), (pass{tokens: 2*114 + 2*14 + 8 + 2, heads: 2*114 + 2*8 + 2, readings: 4 + 10 + 4 + 1}); got != want {
		t.Errorf("plain: %+v, want %+v", got, want)
	}
	// Both streamed: the look; four passes that each learn a token of both prompts; one over prompts and continuations, one over the
	// text, which both sides share; the state of the first prompt of 3, and a step from it.
	if got, want := sum(gatePasses(&App{stream: true}, ref, test, setup, p, false)), (pass{tokens: 8 + 10 + 12 + 14 + 2*114 + 3 + 1, heads: 8 + 10 + 12 + 14 + 2*114 + 1, readings: 1 + 4 + 2 + 2}); got != want {
		t.Errorf("streamed: %+v, want %+v", got, want)
	}
	// REF streamed beside another engine, which proposes: one pass finds its tokens.
	if got, want := sum(gatePasses(&App{stream: true}, ref, Subject{Engine: "coreai"}, setup, p, true)), (pass{tokens: 14 + 114 + 3, heads: 14 + 114, readings: 1 + 1 + 2 + 1 + 1}); got != want {
		t.Errorf("REF streamed: %+v, want %+v", got, want)
	}
	if got := gatePasses(&App{}, Subject{Engine: "fp64"}, Subject{Engine: "coreai"}, setup, p, true); got != nil {
		t.Errorf("no CPU engine: %+v, want nothing", got)
	}
	if got, want := sum(tracePasses(&App{}, test, 7, 3)), (pass{tokens: 7 + 7 + 2, heads: 7 + 1 + 2, readings: 1 + 1 + 1 + 2}); got != want {
		t.Errorf("trace: %+v, want %+v", got, want)
	}
}

// TestRates: the measurements are of this world.
func TestRates(t *testing.T) {
	c, err := bundle.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	first, again := readRates(c, func() (int64, error) { return 1 << 40, nil })
	for name, rate := range map[string]float64{"exact": multiplyRate(c.Config(), "exact", 1), "fast": multiplyRate(c.Config(), "fast", 1), "first": first, "again": again} {
		if rate < 1e6 || rate > 1e13 {
			t.Errorf("%s: %g a second", name, rate)
		}
	}
}

func TestTimeText(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{12 * time.Second: "12 s", 89 * time.Second: "89 s", 5 * time.Minute: "5 min", 90 * time.Minute: "1.5 h"} {
		if got := timeText(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
