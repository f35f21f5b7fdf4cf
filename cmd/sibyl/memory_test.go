package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"sibyl/config"
)

// qwen is the shape of Qwen3.5-27B (DESIGN section 2).
func qwen() *config.Config {
	c := &config.Config{HiddenSize: 5120, NumLayers: 64, VocabSize: 248320, NumHeads: 24, NumKVHeads: 4, HeadDim: 256,
		KeyHeads: 16, ValueHeads: 48, KeyDim: 128, ValueDim: 128, ConvKernel: 4, IntermediateSize: 17408}
	for l := range c.NumLayers {
		kind := config.GatedDeltaNet
		if l%4 == 3 {
			kind = config.FullAttention
		}
		c.Layers = append(c.Layers, kind)
	}
	return c
}

func TestNeedByHand(t *testing.T) {
	t.Parallel()
	one := need(qwen(), 0, "cpu", 1, job{tokens: 1})
	// One more token in the cache: 16 attention layers, keys and values of 4 heads of 256, four bytes, twice while
	// the cache moves, and a score.
	if got, want := need(qwen(), 0, "cpu", 1, job{tokens: 1, generated: 1})-one, int64(16*2*4*256*4*2+4); got != want {
		t.Errorf("one more token: %d bytes, want %d", got, want)
	}
	// States of 48 GDN layers, shown once: 48 heads of 128 x 128, and the conv's 10240 channels of 4.
	if states := int64(48 * (48*128*128 + 10240*4) * 4 * 2); one < states+runtimeBytes || one > states+runtimeBytes+100<<20 {
		t.Errorf("one token: %d bytes, want the states' %d and little beside the program's %d", one, states, runtimeBytes)
	}
	if cpu, f64 := need(qwen(), 0, "cpu", 1, job{tokens: 1000}), need(qwen(), 0, "fp64", 1, job{tokens: 1000}); f64 <= cpu {
		t.Errorf("fp64 needs %d bytes, cpu %d: want more", f64, cpu)
	}
	if need(qwen(), 0, "cpu", 1, job{tokens: 262144, seqs: 8}) < 256<<30 {
		t.Error("eight prompts of 262,144 tokens: want at least 256 GB of cache")
	}
}

// TestNeedIsAbove holds the estimate against the peak of real runs: it must be above, or a job it allows may be killed.
func TestNeedIsAbove(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"@fast", "@exact", "@fp64"} {
		args := []string{"run", engine, "-t", "2", "--max-tokens", "2", "--ids", strings.TrimSuffix(strings.Repeat("5,", 400), ",")}
		refusal, err := exec.Command("sibyl", append([]string{"--memory-limit", "1B"}, args...)...).CombinedOutput()
		var number float64
		var unit string
		_, after, found := strings.Cut(string(refusal), "a need of about ")
		if _, scanErr := fmt.Sscan(after, &number, &unit); err == nil || !found || scanErr != nil {
			t.Fatalf("sibyl --memory-limit 1B %.40q: %v %s; want a refusal with the need", args, err, refusal)
		}
		cmd := exec.Command("sibyl", args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("sibyl %.40q: %v %s", args, err, out)
		}
		peak := peakMemory(cmd.ProcessState)
		need, _ := parseSize("test", fmt.Sprint(number, strings.TrimSuffix(unit, ",")))
		t.Logf("%s: peak %d MB, estimate %d MB", engine, peak/1e6, need/1e6)
		if peak > need {
			t.Errorf("%s: peak memory %d MB is above the estimate of %d MB", engine, peak/1e6, need/1e6)
		}
	}
}
