package plain64

import (
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// allowed is everything this package may import: the standard library's basics, gonum's products, and packages that
// hold names, files and seams but no arithmetic of the model.
var allowed = []string{
	"cmp", "context", "encoding/binary", "errors", "fmt", "math", "math/big", "runtime", "slices",
	"gonum.org/v1/gonum/blas", "gonum.org/v1/gonum/blas/blas64",
	"sibyl/bundle", "sibyl/config", "sibyl/engine", "sibyl/internal/inputerr", "sibyl/trace",
}

// TestImports keeps the second implementation a second one. If this fails, do not extend the list: write the few lines again.
func TestImports(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range tree.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			seen[path] = true
			if !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s: plain64 shares no arithmetic with any other package", f.Name(), path)
			}
		}
	}
	for _, path := range allowed {
		if !seen[path] {
			t.Errorf("the list allows %s, which nothing imports: shorten it", path)
		}
	}
}
