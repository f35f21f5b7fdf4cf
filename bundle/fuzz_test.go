package bundle

import (
	"io/fs"
	"path"
	"strings"
	"testing"

	"sibyl/internal/malformed"
)

// FuzzIndex: no panic, and every accepted shard name stays inside the folder.
func FuzzIndex(f *testing.F) {
	for _, tt := range malformed.All() {
		if b, ok := tt.Files[indexFile]; ok {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		shardOf, err := parseIndex("x", b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "x: ") {
				t.Fatalf("the error does not name the file: %v", err)
			}
			return
		}
		if len(shardOf) == 0 {
			t.Fatal("an index of nothing is accepted")
		}
		for _, s := range shardOf {
			if !fs.ValidPath(s) || path.Clean(s) != s || strings.HasPrefix(s, "..") || strings.ContainsAny(s, `\:`) {
				t.Fatalf("the shard name %q is accepted", s)
			}
		}
	})
}
