package main

import (
	"strings"
	"testing"
)

func TestBytesText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_949: "9.9 kB", 9_960: "10 kB", 4_903_112: "4.9 MB", 999_499: "999 kB",
		999_500: "1.0 MB", 54_000_000_000: "54 GB", 1 << 62: "4.6 EB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestCountText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 248320: "248,320", -1234567: "-1,234,567", -999: "-999"} {
		if got := countText(n); got != want {
			t.Errorf("countText(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{"1": 1, "8GB": 8e9, "512MiB": 512 << 20, " 1.5 kb ": 1500, "3TiB": 3 << 40, "10b": 10} {
		if got, err := parseSize("--memory-limit", in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "-1GB", "GB", "NaN", "inf", "1e300", "8 giga", "0x10p99"} {
		if n, err := parseSize("--memory-limit", in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, n)
		} else if !strings.Contains(err.Error(), "want a size such as 8GB") {
			t.Errorf("parseSize(%q): %v; want the remedy", in, err)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := table(&b, "lr", [][]string{{"a", "bytes", ""}, {"büro", "7", "x"}}); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "a     bytes\nbüro      7  x\n"; got != want {
		t.Errorf("table:\n%q, want\n%q: numbers right, no spaces at a line's end, runes counted, not bytes", got, want)
	}
}
