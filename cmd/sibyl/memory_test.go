package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/trace"
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
	narrow := func(j job) int64 { j.narrowKV = true; return need(qwen(), 0, "cpu", 1, j) }
	if got, want := narrow(job{tokens: 1, generated: 1})-narrow(job{tokens: 1}), int64(16*2*4*256*2*2+4); got != want {
		t.Errorf("one more token in a cache of two bytes a number: %d bytes, want %d", got, want)
	}
	for text, want := range map[string]bool{"": false, "@coreai-fp16": true, "@hf-bf16": true, "@hf-fp32": false, "@fp64": false} {
		if s, err := ParseSubject(text, pathExists); err != nil || s.narrowKV() != want {
			t.Errorf("narrowKV of %q = %v (%v), want %v", text, s.narrowKV(), err, want)
		}
	}
	// 16 prompts of 128 tokens through one layer at a time: one layer's states and twice the residual stream of 2,048 rows, beside a
	// block of logits, a pass's activations and the program.
	streamed := need(qwen(), 54e9, "cpu", 2, job{tokens: 128, seqs: 16, stream: true})
	if least := int64(16*48*128*128*4*2 + 2*2048*5120*4 + 256<<20); streamed < least || streamed > 2<<30 {
		t.Errorf("16 streamed prompts of 128 tokens: %d bytes, want at least %d and at most 2 GiB", streamed, least)
	}
	// States of 48 GDN layers, shown once: 48 heads of 128 x 128, and the conv's 10240 channels of 4.
	if states := int64(48 * (48*128*128 + 10240*4) * 4 * 2); one < states+runtimeBytes(qwen()) || one > states+runtimeBytes(qwen())+100<<20 {
		t.Errorf("one token: %d bytes, want the states' %d and little beside the program's %d", one, states, runtimeBytes(qwen()))
	}
	if cpu, f64 := need(qwen(), 0, "cpu", 1, job{tokens: 1000}), need(qwen(), 0, "fp64", 1, job{tokens: 1000}); f64 <= cpu {
		t.Errorf("fp64 needs %d bytes, cpu %d: want more", f64, cpu)
	}
	if need(qwen(), 0, "cpu", 1, job{tokens: 262144, seqs: 8}) < 256<<30 {
		t.Error("eight prompts of 262,144 tokens: want at least 256 GB of cache")
	}
}

// TestNeedIsAbove holds the estimate against the peak of real runs: it must be above, or a job it allows may be killed,
// and for a small job not far above, or it is refused for nothing.
func TestNeedIsAbove(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args   string
		tokens int
		mapped int64 // bytes of files it maps for good reason, which are resident and not counted
		most   int64 // the estimate is at most so many times the peak; 0: any
	}{
		{"run @fast --max-tokens 2", 1, 0, 3},
		{"run @fast --max-tokens 2", 400, 0, 0},
		{"run @exact --max-tokens 2", 400, 0, 0},
		{"run @fp64 --max-tokens 2", 400, 0, 0},
		{"trace @exact -o " + filepath.Join(t.TempDir(), "x.trace"), 200, 0, 0},
		{"diff @exact @fast", 100, 0, 3},
		{"diff @fast @fp64", 400, 0, 0}, // both in memory
		{"diff @fast @fp64", 1500, spooled(t, 1500), 0},
		{"gate -q --max-tokens 2", 3, 0, 5},
		{"gate -q --max-tokens 2", 64, 0, 0},
	} {
		args := append(strings.Fields(tt.args), "-t", "2", "--ids", strings.TrimSuffix(strings.Repeat("5,", tt.tokens), ","))
		refusal, err := exec.Command("sibyl", append([]string{"--memory-limit", "1B"}, args...)...).CombinedOutput()
		var number float64
		var unit string
		_, after, found := strings.Cut(string(refusal), "a need of about ")
		if _, scanErr := fmt.Sscan(after, &number, &unit); err == nil || !found || scanErr != nil {
			t.Fatalf("sibyl --memory-limit 1B %.40q: %v %s; want a refusal with the need", args, err, refusal)
		}
		cmd := exec.Command("sibyl", args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() > 1 && cmd.ProcessState.ExitCode() != exitInconclusive {
			t.Fatalf("sibyl %.40q: %v %s", args, err, &stderr)
		}
		peak := max(0, peakMemory(cmd.ProcessState)-tt.mapped)
		need, _ := parseSize("test", fmt.Sprint(number, strings.TrimSuffix(unit, ",")))
		t.Logf("%s, %d ids: peak %d MB, estimate %d MB", tt.args, tt.tokens, peak/1e6, need/1e6)
		if peak > need {
			t.Errorf("%s, %d ids: peak memory %d MB is above the estimate of %d MB", tt.args, tt.tokens, peak/1e6, need/1e6)
		}
		if tt.most > 0 && peak > 0 && need > tt.most*peak {
			t.Errorf("%s, %d ids: the estimate of %d MB is more than %d times the peak of %d MB", tt.args, tt.tokens, need/1e6, tt.most, peak/1e6)
		}
	}
}

// spooled is the size of the two traces of the demo model that a diff keeps in files.
func spooled(t *testing.T, tokens int) int64 {
	t.Helper()
	c, err := bundle.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := 2 * trace.Bytes(c.Config(), trace.All(c.Config()), tokens)
	if n <= spoolBytes {
		t.Fatalf("%d tokens take %d bytes, which are kept in memory: the case is about files", tokens, n)
	}
	return n
}
