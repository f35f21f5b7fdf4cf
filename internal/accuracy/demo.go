package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/trace"
)

// gate builds the program and times `sibyl gate` on the demo model, as a person would.
func gate(ctx context.Context, r *report) error {
	dir, err := os.MkdirTemp("", "sibyl-accuracy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "sibyl.exe") // the suffix is harmless elsewhere
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", exe, "sibyl/cmd/sibyl").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	var said []byte
	times, err := durations(5, func() (err error) {
		said, err = exec.CommandContext(ctx, exe, "gate", "--quiet").Output()
		return err
	})
	if err != nil {
		return err
	}
	said = bytes.TrimSpace(said)
	first, _, _ := strings.Cut(string(said), "\n")
	last := said[bytes.LastIndexByte(said, '\n')+1:]
	took := times[len(times)/2]
	r.promise("demo gate, once built", "5 s on two cores", fmt.Sprintf("%.1f s, median of 5", took.Seconds()), took < 5*time.Second && first == "SHIP")
	r.section("The demo gate", "`sibyl gate`: "+first+". Its last line:\n\n> "+string(last))
	return nil
}

// hashes lists the data_sha256 of exact traces, which must be the same on every machine.
func hashes(ctx context.Context, r *report) error {
	var rows [][]string
	ids := make([]int32, 96)
	for i := range ids {
		ids[i] = int32(i)
	}
	for _, set := range append([]string{"opticks-2m"}, goldens.Tiny...) {
		err := with(ctx, set, "exact", func(g *goldens.Set, e engine.Engine) (err error) {
			ck, err := bundle.Open(g.Model)
			if err != nil {
				return err
			}
			defer ck.Close()
			rec := trace.NewRecorder(set, ck.Config(), trace.All(ck.Config()), ids)
			if err := e.Score(ctx, []engine.Prompt{{IDs: ids}}, engine.Want{Taps: rec}, func(*engine.Position) error { return nil }); err != nil {
				return err
			}
			src, err := rec.Sequence(0)
			if err != nil {
				return err
			}
			sum, err := trace.DataSHA256(src)
			rows = append(rows, []string{set, "`" + sum + "`"})
			return err
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	r.section("Hashes to compare", "data_sha256 of an exact trace of ids 0 to 95 with every tap, as `sibyl trace MODEL --ids ... -o F` prints it: the same for any\n"+
		"number of threads, path, instruction level and machine. CI compares builds for GOAMD64=v1 and v3 and for arm64.")
	r.table([]string{"set", "data_sha256"}, rows)
	return nil
}
