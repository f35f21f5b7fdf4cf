package suite

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"sibyl/metal/gpu/gputest"
	"sibyl/metal/ops"
)

// seed of the tests' inputs; `sibyl ops --seed` takes others.
const seed = 1

func TestOps(t *testing.T) {
	t.Parallel()
	set := load(t)
	n, worst := 0, map[string]float64{}
	for i, c := range Cases(os.Getenv("SIBYL_OPS_FILTER")) {
		if testing.Short() && i%9 != 0 {
			continue
		}
		r := c.Run(set, seed)
		n++
		worst[c.Op()] = max(worst[c.Op()], r.Worst)
		if r.Err != nil {
			t.Errorf("%s\nreplay: sibyl ops --seed %d --filter %q", r, seed, c.Name())
			set = load(t) // a device that failed is in doubt
		}
	}
	for _, op := range slices.Sorted(maps.Keys(worst)) {
		t.Logf("%-20s %.2f of the bound", op, worst[op])
	}
	t.Logf("%d cases", n)
	if n < 2000 && os.Getenv("SIBYL_OPS_FILTER") == "" && !testing.Short() {
		t.Errorf("%d cases, want at least 2000", n)
	}
}

func load(t testing.TB) *ops.Set {
	t.Helper()
	set, err := ops.Load(gputest.CPU(t))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestNames: a case is told by its name.
func TestNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range Cases("") {
		if seen[c.Name()] || strings.Contains(c.Name(), "  ") {
			t.Errorf("case %q is there twice, or its name has a hole", c.Name())
		}
		seen[c.Name()] = true
	}
}
