package msl

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed shim
var shim embed.FS

// Program is what clang compiles: a directory of files, of which main.cpp is the translation unit.
type Program struct {
	Files   map[string]string
	Kernels []Kernel
	Source  string // the hash of the files, which the library exports as msl_source: what it was built from
}

// Translate writes the C++ of kernel files, one unit in their order. Faults of the subset are the error, one a line.
func Translate(files []File) (*Program, error) {
	units, faults := parse(files)
	if len(faults) > 0 {
		var lines []string
		for _, f := range faults {
			lines = append(lines, f.String())
		}
		return nil, fmt.Errorf("%s", strings.Join(lines, "\n"))
	}
	p := &Program{Files: map[string]string{}}
	var main, thunks, table strings.Builder
	main.WriteString("#include <metal_stdlib>\n")
	for _, u := range units {
		fmt.Fprintf(&main, "#line 1 %q\n%s\n", u.file.Name, blank(u.file.Text, u.cut))
		for i := range u.kernels {
			n := len(p.Kernels)
			thunks.WriteString(u.kernels[i].thunk(n))
			fmt.Fprintf(&table, "  {%q, msl_thunk_%d},\n", u.kernels[i].Name, n)
			p.Kernels = append(p.Kernels, u.kernels[i])
		}
	}
	fmt.Fprintf(&main, "#line 1 \"thunks\"\n%s", thunks.String())
	main.WriteString("#undef kernel\n#undef device\n#undef constant\n#undef threadgroup\n#undef thread\n#undef as_type\n")
	fmt.Fprintf(&main, "static const msl::Entry msl_table[] = {\n%s  {nullptr, nullptr}};\n#include \"dispatch.h\"\n", table.String())
	p.Files["main.cpp"] = main.String()
	err := fs.WalkDir(shim, "shim", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := shim.ReadFile(path)
		p.Files[strings.TrimPrefix(path, "shim/")] = string(text)
		return err
	})
	h := sha256.New()
	for _, name := range p.Names() {
		fmt.Fprintf(h, "%s %d\n%s", name, len(p.Files[name]), p.Files[name])
	}
	p.Source = hex.EncodeToString(h.Sum(nil))
	p.Files["main.cpp"] += fmt.Sprintf("extern \"C\" {\nextern __attribute__((visibility(\"default\"))) const char msl_source[65];\nconst char msl_source[65] = %q;\n}\n", p.Source)
	return p, err
}

// blank replaces spans of a text by spaces, so that lines and columns stay.
func blank(text string, spans [][2]int) string {
	b := []byte(text)
	for _, s := range spans {
		for i := s[0]; i < s[1]; i++ {
			if b[i] != '\n' {
				b[i] = ' '
			}
		}
	}
	return string(b)
}

// Names lists a program's files, sorted.
func (p *Program) Names() []string {
	var out []string
	for name := range p.Files {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
