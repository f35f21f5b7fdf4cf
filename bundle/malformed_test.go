package bundle

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"sibyl/internal/inputerr"
	"sibyl/internal/malformed"
)

const testdata = "../testdata"

// noEnv is an environment without any variable: no hub cache is found by accident.
func noEnv(string) string { return "" }

// TestMalformed opens every bad input of testdata and holds the whole error text.
func TestMalformed(t *testing.T) {
	t.Parallel()
	for _, tt := range malformed.All() {
		if tt.Want == "" {
			continue
		}
		t.Run(strings.TrimPrefix(tt.Name, "malformed/"), func(t *testing.T) {
			t.Parallel()
			if tt.Links != nil && runtime.GOOS == "windows" {
				t.Skip("needs symlinks, which a Windows checkout may lack")
			}
			path := filepath.Join(testdata, filepath.FromSlash(tt.Name))
			c, err := open(path, noEnv)
			if err == nil {
				_ = c.Close()
				t.Fatalf("open(%s) succeeds, want an error\nwhy: %s", path, tt.Why)
			}
			var in *inputerr.Error
			if !errors.As(err, &in) {
				t.Fatalf("open(%s) = %T, want an *inputerr.Error (exit code 2)", path, err)
			}
			want := strings.ReplaceAll(tt.Want, "PATH", path)
			if got := filepath.ToSlash(err.Error()); got != filepath.ToSlash(want) {
				t.Errorf("open(%s)\n got %s\nwant %s\nwhy: %s", path, got, want, tt.Why)
			}
		})
	}
}

// TestMalformedCost opens them one after another: hostile numbers must cost neither memory nor time. Not parallel,
// because TotalAlloc counts the whole process.
func TestMalformedCost(t *testing.T) {
	const maxBytes, maxTime = 4 << 20, time.Second
	var before, after runtime.MemStats
	for _, tt := range malformed.All() {
		path := filepath.Join(testdata, filepath.FromSlash(tt.Name))
		runtime.ReadMemStats(&before)
		start := time.Now()
		c, err := open(path, noEnv)
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		if err == nil {
			_ = c.Close()
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > maxBytes || took > maxTime {
			t.Errorf("open(%s) allocates %d bytes in %v, want at most %d in %v", path, used, took, maxBytes, maxTime)
		}
	}
}
