// typecheck type-checks packages for macOS from their source on any system: cgo files are read with import "C" faked, so no C compiler and
// no SDK is needed. It prints what is wrong and exits with 1 if anything is.
//
//	go run ./metal/darwin/typecheck ./...
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

const goos, goarch = "darwin", "arm64"

// listed is what go list says of a package.
type listed struct {
	Dir, ImportPath   string
	GoFiles, CgoFiles []string
	ImportMap         map[string]string
	DepOnly           bool
	Error             *struct{ Err string }
}

func main() {
	own, dep, bad, err := check(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%s/%s: %d packages checked, %d dependencies by their signatures, %d errors\n", goos, goarch, own, dep, bad)
	if bad > 0 || own == 0 {
		os.Exit(1)
	}
}

// check reads packages in the order of their imports.
func check(patterns []string) (own, dep, bad int, err error) {
	cmd := exec.Command("go", append([]string{"list", "-e", "-deps", "-json=Dir,ImportPath,GoFiles,CgoFiles,ImportMap,DepOnly,Error"}, patterns...)...)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, 0, err
	}
	c := checker{fset: token.NewFileSet(), done: map[string]*types.Package{}}
	for d := json.NewDecoder(out); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, 0, 0, err
		}
		if p.ImportPath == "unsafe" {
			continue
		}
		c.check(&p)
		if p.DepOnly {
			dep++
		} else {
			own++
		}
	}
	return own, dep, c.bad, cmd.Wait()
}

type checker struct {
	fset *token.FileSet
	done map[string]*types.Package
	bad  int
}

func (c *checker) report(err error) {
	fmt.Println(err)
	c.bad++
}

func (c *checker) check(p *listed) {
	if p.Error != nil {
		c.report(errors.New(p.Error.Err))
		return
	}
	var files []*ast.File
	for _, f := range append(p.GoFiles, p.CgoFiles...) {
		tree, err := parser.ParseFile(c.fset, filepath.Join(p.Dir, f), nil, parser.SkipObjectResolution)
		if err != nil {
			c.report(err)
		}
		files = append(files, tree)
	}
	conf := types.Config{Importer: importer{c.done, p.ImportMap}, FakeImportC: true, IgnoreFuncBodies: p.DepOnly, Sizes: types.SizesFor("gc", goarch), Error: c.report}
	c.done[p.ImportPath], _ = conf.Check(p.ImportPath, c.fset, files, nil)
}

type importer struct {
	done  map[string]*types.Package
	remap map[string]string
}

// Import implements types.Importer.
func (i importer) Import(path string) (*types.Package, error) {
	if to, ok := i.remap[path]; ok {
		path = to
	}
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	if p := i.done[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("package %s was not listed", path)
}
