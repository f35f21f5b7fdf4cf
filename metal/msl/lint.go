package msl

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Fault is a line that one of the two compilers would refuse, or read in another way.
type Fault struct {
	File string
	Line int
	Text string
}

// String is "rmsnorm.metal:12: ...".
func (f Fault) String() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text) }

// forbidden words and why.
var forbidden = map[string]string{
	"double": "MSL has no double", "long": "write ulong or int", "virtual": "MSL has no virtual functions", "new": "MSL has no new",
	"delete": "MSL has no delete", "goto": "MSL has no goto", "try": "MSL has no exceptions", "throw": "MSL has no exceptions",
	"catch": "MSL has no exceptions", "thread_local": "MSL has no thread_local", "dynamic_cast": "MSL has no run-time types",
	"typeid": "MSL has no run-time types", "std": "MSL has no std", "asm": "MSL has no asm", "noexcept": "MSL has no exceptions",
	"reinterpret_cast": "write a C cast with its address space", "printf": "MSL has no printf", "auto": "write the type: a pointer's address space must be seen",
	"isnan": "fast math may drop it: test the bits", "isinf": "fast math may drop it: test the bits",
	"INFINITY": "fast math may drop it: write the largest number", "NAN": "fast math may drop it",
	"function_constant": "function constants are outside of the subset: the CPU has no specialised pipelines",
	"bfloat":            "bfloat needs MSL 3.1: keep ushort and its bits", "sampler": "textures are outside of the subset",
}

var (
	bareFloat  = regexp.MustCompile(`^(?:(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|0[xX][\da-fA-F]*\.?[\da-fA-F]*[pP][+-]?\d+)[lL]?$`)
	integer    = regexp.MustCompile(`^(0[xX][\da-fA-F]+|0[bB][01]+|\d+)([uUlL]*)$`)
	atomicType = regexp.MustCompile(`^atomic($|_)`)
	vectorType = regexp.MustCompile(`^(float|half|u?int|u?char|u?short)[234]$`)
	matrixType = regexp.MustCompile(`^simdgroup_(float|half|matrix|bfloat|load|store|multiply)`)
	identifier = regexp.MustCompile(`^[A-Za-z_]\w*$`)
	spaces     = []string{"device", "constant", "threadgroup", "thread"}
	callables  = []string{"if", "for", "while", "switch", "return", "sizeof", "decltype"}
)

// linter is one file at work.
type linter struct {
	file   File
	ts     []token
	faults []Fault
}

func (l *linter) at(i int) string {
	if i < 0 || i >= len(l.ts) {
		return ""
	}
	return l.ts[i].text
}

func (l *linter) bad(i int, format string, args ...any) {
	line := 1
	if len(l.ts) > 0 {
		line = l.ts[min(max(i, 0), len(l.ts)-1)].line
	}
	l.faults = append(l.faults, Fault{l.file.Name, line, fmt.Sprintf(format, args...)})
}

// Lint gives the faults of the files, in their order; none means that the subset is kept.
func Lint(files []File) []Fault {
	_, faults := parse(files)
	return faults
}

// Kernels lists the entry points of files without faults.
func Kernels(files []File) ([]Kernel, error) {
	parsed, faults := parse(files)
	if len(faults) > 0 {
		return nil, fmt.Errorf("%s", faults[0])
	}
	var out []Kernel
	for _, p := range parsed {
		out = append(out, p.kernels...)
	}
	return out, nil
}

// unit is a file with its entry points and what of it C++ must not see.
type unit struct {
	file    File
	kernels []Kernel
	cut     [][2]int
}

func parse(files []File) (out []unit, faults []Fault) {
	names := map[string]Fault{}
	for _, f := range files {
		l := &linter{file: f, ts: lex(f.Text)}
		l.words()
		l.pointers()
		l.globals()
		l.recursion()
		u := unit{file: f}
		u.kernels, u.cut = l.kernels()
		for _, k := range u.kernels {
			if before, dup := names[k.Name]; dup {
				l.faults = append(l.faults, Fault{f.Name, k.Line, fmt.Sprintf("kernel %s is defined at %s:%d too", k.Name, before.File, before.Line)})
			}
			names[k.Name] = Fault{File: f.Name, Line: k.Line}
		}
		slices.SortStableFunc(l.faults, func(a, b Fault) int { return a.Line - b.Line })
		out, faults = append(out, u), append(faults, l.faults...)
	}
	return out, faults
}

// words looks at every word by itself.
func (l *linter) words() {
	depth := 0
	for i, t := range l.ts {
		switch t.text {
		case "{":
			depth++
		case "}":
			depth--
		}
		why, no := forbidden[t.text]
		switch {
		case no && why != "":
			l.bad(i, "%s: %s", t.text, why)
		case t.text[0] == '#':
			l.directive(i)
		case t.text == "static" && depth > 0 && l.at(i+1) != "inline":
			l.bad(i, "static inside of a function: MSL has no such variables; a member function is static inline")
		case matrixType.MatchString(t.text):
			l.bad(i, "%s: simdgroup matrices are outside of the subset, since the CPU has none", t.text)
		case atomicType.MatchString(t.text):
			l.bad(i, "%s: atomics are outside of the subset: their order is not declared", t.text)
		case wide(t.text):
			l.bad(i, "%s: a 64-bit literal: the subset's literals have 32 bits, with u above 2147483647; write ulong(x) << n", t.text)
		case bareFloat.MatchString(t.text):
			l.bad(i, "%s: a floating-point literal needs f or h, or it is a double", t.text)
		case t.text == "(" && vectorType.MatchString(l.at(i+1)) && l.at(i+2) == ")":
			l.bad(i, "a C cast to a vector: write %s(x)", l.at(i+1))
		case t.text == "constexpr" && l.at(i-1) == "if":
			l.bad(i, "if constexpr: MSL is C++14")
		case t.text == "[" && slices.Contains([]string{"=", "(", ",", "return"}, l.at(i-1)):
			l.bad(i, "a lambda: MSL has none before 4.0")
		case t.text == "threadgroup" && depth > 0 && l.declared(i):
			l.bad(i, "threadgroup memory inside of a kernel: make it a parameter [[threadgroup(n)]], so that the device can check its size")
			if n := l.arrayBytes(i); n > MaxThreadgroup {
				l.bad(i, "%d bytes of threadgroup memory, want at most %d, which every Apple GPU has", n, MaxThreadgroup)
			}
		}
	}
}

// MaxThreadgroup is how much threadgroup memory a threadgroup may have, in bytes.
const MaxThreadgroup = 32 << 10

// elementBytes are the sizes of the types that arrays are made of; vectors of three take four.
var elementBytes = map[string]int{"bool": 1, "char": 1, "uchar": 1, "short": 2, "ushort": 2, "half": 2, "int": 4, "uint": 4, "float": 4, "ulong": 8}

// arrayBytes is the size of the array whose declaration begins at i, as far as its lengths are literals: 0 where it is not known.
func (l *linter) arrayBytes(i int) int {
	bytes := 0
	for ; i < len(l.ts) && l.at(i) != ";" && l.at(i) != "="; i++ {
		t := l.at(i)
		if vectorType.MatchString(t) {
			last := len(t) - 1
			bytes = elementBytes[t[:last]] * map[byte]int{'2': 2, '3': 4, '4': 4}[t[last]]
		} else if n := elementBytes[t]; n > 0 {
			bytes = n
		} else if t == "[" {
			m := integer.FindStringSubmatch(l.at(i + 1))
			if m == nil || l.at(i+2) != "]" {
				return 0
			}
			n, err := strconv.ParseUint(m[1], 0, 64)
			if err != nil || n > 1<<32 {
				n = 1 << 32
			}
			bytes = min(bytes, 1<<24) * int(n)
		}
	}
	return bytes
}

// wide says whether a literal has 64 bits: by its suffix, or because its value needs them. Unsuffixed decimals are signed.
func wide(text string) bool {
	m := integer.FindStringSubmatch(text)
	if m == nil {
		return false
	}
	n, err := strconv.ParseUint(m[1], 0, 64)
	decimal := m[1][0] != '0'
	return strings.ContainsAny(m[2], "lL") || err != nil || n > math.MaxUint32 || decimal && m[2] == "" && n > math.MaxInt32
}

// globals finds variables at program scope: MSL has only constant ones. Braces of namespaces open no scope of their own.
func (l *linter) globals() {
	for i := 0; i < len(l.ts); {
		if t := l.at(i); t[0] == '#' || t == ";" || t == "}" {
			i++
			continue
		}
		begin, first := i, l.at(i)
		call, equals, constants := false, false, false
	statement:
		for ; i < len(l.ts); i++ {
			switch t := l.at(i); {
			case t == "constant":
				constants = true
			case t == "=":
				equals = true
			case t == "(" || t == "[[" || t == "[":
				call = call || t == "(" && !equals
				i = closing(l.ts, i)
			case t == "{" && first == "namespace":
				break statement
			case t == "{":
				i = closing(l.ts, i)
				if call && !equals || slices.Contains(scopes, first) && l.at(i+1) != ";" {
					break statement // a function's body needs no semicolon
				}
			case t == ";":
				break statement
			}
		}
		if !call && !constants && !slices.Contains(scopes, first) && first != "template" {
			l.bad(begin, "%s %s: a variable at program scope must be constant: MSL has no other", first, l.at(begin+1))
		}
		i++
	}
}

// scopes begin statements at program scope that declare no variable.
var scopes = []string{"namespace", "using", "typedef", "struct", "class", "union", "enum", "static_assert"}

// declared says whether the words from i on declare an array or variable, not a pointer.
func (l *linter) declared(i int) bool {
	for ; i < len(l.ts) && l.at(i) != ";"; i++ {
		if t := l.at(i); t == "*" || t == "&" || t == ")" || t == "=" {
			return false
		}
	}
	return true
}

// directive lets pass what both compilers read alike without a preprocessor of ours.
func (l *linter) directive(i int) {
	f := strings.Fields(l.ts[i].text)
	line := strings.Join(f, " ")
	switch {
	case line == "#include <metal_stdlib>", strings.HasPrefix(line, "#pragma METAL "), strings.HasPrefix(line, "#pragma once"):
	case f[0] == "#define" && len(f) >= 3 && !strings.Contains(f[1], "("):
	default:
		l.bad(i, "%s: only #include <metal_stdlib>, #pragma METAL and plain #define are in the subset", line)
	}
}

// pointers demands an address space of every pointer and reference: of those that a parameter, a statement or a function's result
// declares, of casts and template arguments, and of each pointer that another one points to.
func (l *linter) pointers() {
	for i := range l.ts {
		if t := l.at(i); t != "*" && t != "&" {
			continue
		}
		before, next, after := l.at(i-1), l.at(i+1), l.at(i+2)
		named := identifier.MatchString(next)
		if !identifier.MatchString(before) && before != ">" && before != "*" || !named && !slices.Contains([]string{")", ",", ">"}, next) {
			continue
		}
		from := i - 1
		for from >= 0 && !slices.Contains([]string{";", "{", "}", "(", ",", "="}, l.at(from)) && l.at(from)[0] != '#' {
			from--
		}
		begin := l.at(from)
		statement := begin == "" || begin == ";" || begin == "{" || begin == "}" || begin[0] == '#'
		switch {
		case begin == "=" || l.at(from+1) == "return":
			continue
		case !named: // no expression ends with * or &
		case statement && i-from > 1 && slices.Contains([]string{"=", ";", "["}, after):
		case statement && i-from > 1 && after == "(" && l.at(closing(l.ts, i+2)+1) == "{": // a function's result
		case (begin == "(" || begin == ",") && l.inParameters(from):
		default:
			continue
		}
		if !l.spaced(from+1, i) {
			l.bad(i, "%s %s %s: a pointer or reference needs its address space", before, l.at(i), next)
		}
	}
}

// spaced says whether the words from..to-1 are a type in which every pointer, and what the mark at to makes, has its address space; an
// expression counts as such.
func (l *linter) spaced(from, to int) bool {
	found, angles := false, 0
	for _, t := range l.ts[from:to] {
		switch {
		case slices.Contains(spaces, t.text):
			found = true
		case t.text == "<":
			angles++
		case t.text == ">":
			angles--
		case t.text == "*" && angles == 0:
			if !found {
				return false
			}
			found = false // the pointer itself lies somewhere too
		case t.text != "::" && t.text != "*" && t.text != "&" && !identifier.MatchString(t.text):
			return true
		}
	}
	return found || angles != 0
}

// inParameters says whether the bracket or comma at i is of a function's parameter list at its definition.
func (l *linter) inParameters(i int) bool {
	depth := 0
	for ; i >= 0; i-- {
		if t := l.at(i); t == ")" {
			depth++
		} else if t == "(" {
			if depth == 0 {
				break
			}
			depth--
		} else if t == ";" || t == "{" || t == "}" {
			return false
		}
	}
	if i < 2 {
		return false
	}
	end := closing(l.ts, i)
	return identifier.MatchString(l.at(i-1)) && !slices.Contains(callables, l.at(i-1)) && (l.at(end+1) == "{" || l.at(end+1) == "const")
}

// recursion finds functions that reach themselves, which Metal refuses.
func (l *linter) recursion() {
	calls, where := map[string][]string{}, map[string]int{}
	for i := 1; i < len(l.ts); i++ {
		if l.at(i) != "(" || !identifier.MatchString(l.at(i-1)) || slices.Contains(callables, l.at(i-1)) {
			continue
		}
		end := closing(l.ts, i)
		if l.at(end+1) != "{" {
			continue
		}
		name := l.at(i - 1)
		where[name] = i - 1
		for j := end + 1; j < closing(l.ts, end+1); j++ {
			if l.at(j+1) == "(" && identifier.MatchString(l.at(j)) && l.at(j-1) != "::" && l.at(j-1) != "." {
				calls[name] = append(calls[name], l.at(j))
			}
		}
	}
	for name, at := range where {
		seen := map[string]bool{}
		var reach func(string) bool
		reach = func(from string) bool {
			for _, to := range calls[from] {
				if to == name || !seen[to] && func() bool { seen[to] = true; return reach(to) }() {
					return true
				}
			}
			return false
		}
		if reach(name) {
			l.bad(at, "%s reaches itself: Metal has no recursion", name)
		}
	}
}
