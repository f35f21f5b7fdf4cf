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
	read := func() float64 { return 1e6 }
	got := estimate(c, 3, []pass{{mode: "exact", tokens: 100000, heads: 10, readings: 2}, {mode: "fast", tokens: 100000, heads: 0, readings: 1}}, multiply, read)
	flops := 200000*body + 10*head
	seconds := (100000*body+10*head)/1e9 + 100000*body/4e9
	want := cost{Readings: 3, Bytes: 3 * c.Sizes().Total(), Flops: flops, Time: time.Duration(seconds * float64(time.Second))}
	if got != want {
		t.Errorf("estimate = %+v\nwant %+v", got, want)
	}
	if got := estimate(c, 3, []pass{{mode: "exact", tokens: 1000, readings: 300, perToken: true}}, multiply, read); got.Time < 1000*time.Second || got.Bytes != 300*c.Sizes().TotalPerToken() {
		t.Errorf("a job that reads %d bytes at a million a second takes %v", got.Bytes, got.Time)
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
	// Forced: 8 prompt and 6 continuation tokens and the text, once a side. Decoded: 8 and 8 tokens a side, 8 heads, 8 readings.
	if got, want := sum(gatePasses(&App{}, ref, test, setup, p)), (pass{tokens: 2*114 + 2*16, heads: 2*114 + 2*8, readings: 2 + 16}); got != want {
		t.Errorf("plain: %+v, want %+v", got, want)
	}
	if got, want := sum(gatePasses(&App{stream: true}, ref, test, setup, p)), (pass{tokens: 2*114 + 14, heads: 2*114 + 14, readings: 2 + 2}); got != want {
		t.Errorf("streamed: %+v, want %+v", got, want)
	}
	if got := gatePasses(&App{}, Subject{Engine: "fp64"}, Subject{Engine: "coreai"}, setup, p); got != nil {
		t.Errorf("no CPU engine: %+v, want nothing", got)
	}
}

// TestRates: the measurements are of this world.
func TestRates(t *testing.T) {
	c, err := bundle.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, rate := range map[string]float64{"exact": multiplyRate("exact", 1), "fast": multiplyRate("fast", 1), "read": readRate(c)} {
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
