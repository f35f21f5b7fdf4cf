package meter

import "testing"

// TestMeasure: the figures are of this world. A loop that the compiler dropped, or a buffer that is one page of zeros,
// would be faster than any machine; one that runs on a single thread whatever is asked would show in a second.
func TestMeasure(t *testing.T) {
	l := Measure(t.Context(), 1, 128<<20)
	t.Logf("%.1f GB/s, %.1f GFLOP/s (%s)", l.Read/1e9, l.FMA/1e9, l.How)
	if l.Read < 1e6 || l.Read > 2e12 { // the race detector makes it a thousandth
		t.Errorf("one thread reads %.3g bytes a second", l.Read)
	}
	if l.How != "" && (l.FMA < 1e8 || l.FMA > 2e12) {
		t.Errorf("one thread does %.3g float32 operations a second (%s)", l.FMA, l.How)
	}
}

// TestEveryLoopEnds: a loop that counts wrongly runs for ever or not at all.
func TestEveryLoopEnds(t *testing.T) {
	loop, how, _ := fmaLoop()
	if loop == nil {
		t.Logf("no loop of multiply-adds for this machine or build")
		return
	}
	for _, rounds := range []int{1, 2, 1000} {
		loop(rounds)
	}
	t.Log(how)
}

func TestMean(t *testing.T) {
	got := Mean(Limits{Threads: 2, Read: 1, FMA: 10, How: "x"}, Limits{Read: 3, FMA: 30})
	if want := (Limits{Threads: 2, Read: 2, FMA: 20, How: "x"}); got != want {
		t.Errorf("Mean = %+v, want %+v", got, want)
	}
}

// TestReadLoops: every loop reads every word once, of any length and from any address, and no byte beyond the last word.
func TestReadLoops(t *testing.T) {
	buf := make([]byte, 4096)
	for i := range buf {
		buf[i] = byte(i*i>>3 + i)
	}
	for _, n := range []int{0, 8, 63, 64, 511, 512, 513, 576, 1024, 1600, 4000} {
		for from := range 5 {
			x := buf[from:][:n]
			var want uint64
			for i := 0; i < n&^63; i++ {
				want ^= uint64(x[i]) << (i % 8 * 8)
			}
			for k, loop := range readLoops() {
				if got := loop(x); got != want {
					t.Errorf("loop %d of %d bytes from %d: %x, want %x", k, n, from, got, want)
				}
			}
		}
	}
}
