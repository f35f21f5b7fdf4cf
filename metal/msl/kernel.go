package msl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Kernel is an entry point of the library.
type Kernel struct {
	Name    string
	File    string
	Line    int
	Buffers int // one past the largest buffer index
	Regions int // threadgroup memory arguments

	call   string // the function with its template arguments
	params []param
}

// param is one parameter: its type, its name, and the attribute with its argument.
type param struct {
	typ, name, attr string
	index           int
}

// function is a kernel's definition, which may be a template.
type function struct {
	name     string
	line     int
	template []string // the names of its template's parameters
	params   []param
}

// builtin attributes: what of msl::Lane or msl::Launch they read; vectors have up to three components.
var vectorAttrs = map[string]string{
	"thread_position_in_grid": "c->in_grid", "threadgroup_position_in_grid": "c->group", "thread_position_in_threadgroup": "c->in_group",
	"threads_per_threadgroup": "l->group", "threadgroups_per_grid": "l->grid",
}

var scalarAttrs = map[string]string{
	"thread_index_in_threadgroup": "c->index", "thread_index_in_simdgroup": "c->lane", "simdgroup_index_in_threadgroup": "c->simdgroup",
	"threads_per_simdgroup": "32u", "simdgroups_per_threadgroup": "((l->group.x * l->group.y * l->group.z + 31) / 32)",
}

// Limits of a kernel's arguments in the subset.
const (
	MaxBuffers = 16
	MaxRegions = 4
)

// kernels finds a file's entry points. cut are the parts of the text that C++ must not see: attributes and explicit
// instantiations.
func (l *linter) kernels() (out []Kernel, cut [][2]int) {
	templates := map[string]*function{}
	for i := 0; i < len(l.ts); i++ {
		switch {
		case l.at(i) == "kernel" && l.at(i+1) == "void":
			f, attrs := l.signature(i)
			cut = append(cut, attrs...)
			if len(f.template) > 0 {
				templates[f.name] = &f
				continue
			}
			out = append(out, l.entry(f.name, f.name, &f))
		case l.at(i) == "template" && l.at(i+1) == "[[" && l.at(i+2) == "host_name":
			end := i
			for end < len(l.ts) && l.at(end) != ";" {
				end++
			}
			if end == len(l.ts) {
				l.bad(i, "an instantiation without its semicolon")
				return out, cut
			}
			cut = append(cut, [2]int{l.ts[i].begin, l.ts[end].end})
			if k, ok := l.instance(i, end, templates); ok {
				out = append(out, k)
			}
			i = end
		}
	}
	return out, cut
}

// instance reads: template [[host_name("NAME")]] [[kernel]] decltype(F<ARGS>) F<ARGS>;
func (l *linter) instance(i, end int, templates map[string]*function) (Kernel, bool) {
	const form = `write: template [[host_name("name")]] [[kernel]] decltype(f<T>) f<T>;`
	var words []string
	for _, t := range l.ts[i:end] {
		words = append(words, t.text)
	}
	if at := slices.Index(words, "decltype"); at != 10 || len(words) < 16 || words[3] != "(" || words[8] != "kernel" || words[11] != "(" {
		l.bad(i, "an instantiation in another form; "+form)
		return Kernel{}, false
	}
	name, err := strconv.Unquote(words[4])
	rest := words[12:]
	n := slices.Index(rest, ")")
	if err != nil || n < 4 || !slices.Equal(rest[:n], rest[n+1:]) {
		l.bad(i, "an instantiation whose two types differ; "+form)
		return Kernel{}, false
	}
	f := templates[rest[0]]
	if f == nil {
		l.bad(i, "an instantiation of %s, which is no kernel template above it", rest[0])
		return Kernel{}, false
	}
	given := strings.Split(strings.Join(rest[2:n-1], ""), ",")
	if len(given) != len(f.template) {
		l.bad(i, "an instantiation with %d arguments of a template of %d", len(given), len(f.template))
		return Kernel{}, false
	}
	k := l.entry(name, strings.Join(rest[:n], " "), f)
	k.Line, k.params = l.ts[i].line, slices.Clone(f.params)
	for j := range k.params {
		words := strings.Fields(k.params[j].typ)
		for w := range words {
			if t := slices.Index(f.template, words[w]); t >= 0 {
				words[w] = given[t]
			}
		}
		k.params[j].typ = strings.Join(words, " ")
	}
	return k, true
}

func (l *linter) entry(name, call string, f *function) Kernel {
	k := Kernel{Name: name, File: l.file.Name, Line: f.line, call: call, params: f.params}
	for _, p := range f.params {
		switch p.attr {
		case "buffer":
			k.Buffers = max(k.Buffers, p.index+1)
		case "threadgroup":
			k.Regions = max(k.Regions, p.index+1)
		}
	}
	return k
}

// signature reads a kernel's parameters from the word "kernel" at i, and where their attributes stand.
func (l *linter) signature(i int) (f function, attrs [][2]int) {
	f = function{name: l.at(i + 2), line: l.ts[i].line, template: l.templateNames(i - 1)}
	if l.at(i+3) != "(" {
		l.bad(i, "a kernel needs: kernel void name(parameters)")
		return f, nil
	}
	end := closing(l.ts, i+3)
	for from := i + 4; from < end; {
		to := from
		for to < end && l.at(to) != "," {
			if l.at(to) == "(" || l.at(to) == "[[" || l.at(to) == "<" {
				to = max(to, l.past(to)-1)
			}
			to++
		}
		p, span, ok := l.param(from, to)
		if ok {
			f.params = append(f.params, p)
			attrs = append(attrs, span)
		}
		from = to + 1
	}
	l.checkParams(i, &f)
	return f, attrs
}

// templateNames gives the parameters of the template header that ends at i, if one does.
func (l *linter) templateNames(i int) (names []string) {
	if l.at(i) != ">" {
		return nil
	}
	for ; i > 0 && l.at(i) != "<"; i-- {
		if t := l.at(i + 1); t == "," || t == ">" {
			names = append([]string{l.at(i)}, names...)
		}
	}
	return names
}

// past gives the index after the bracket that opens at i; "<" only in a parameter list, where it is no comparison.
func (l *linter) past(i int) int {
	if l.at(i) != "<" {
		return closing(l.ts, i) + 1
	}
	for ; i < len(l.ts) && l.at(i) != ">"; i++ {
	}
	return i + 1
}

func (l *linter) param(from, to int) (p param, span [2]int, ok bool) {
	a := from
	for a < to && l.at(a) != "[[" {
		a++
	}
	if a == to || a-from < 2 {
		l.bad(from, "a kernel's parameter without an attribute")
		return p, span, false
	}
	var typ []string
	for _, t := range l.ts[from : a-1] {
		typ = append(typ, t.text)
	}
	p = param{typ: strings.Join(typ, " "), name: l.at(a - 1), attr: l.at(a + 1), index: -1}
	if l.at(a+2) == "(" {
		n, err := strconv.Atoi(l.at(a + 3))
		if err != nil {
			l.bad(a, "[[%s(%s)]]: an index is a number", p.attr, l.at(a+3))
			return p, span, false
		}
		p.index = n
	}
	end := closing(l.ts, a)
	if end >= min(to, len(l.ts)) {
		l.bad(a, "an attribute without its end")
		return p, span, false
	}
	return p, [2]int{l.ts[a].begin, l.ts[end].end}, true
}

// checkParams refuses attributes outside of the subset, indices twice, and grid attributes of unlike width.
func (l *linter) checkParams(at int, f *function) {
	seen, width := map[string]bool{}, ""
	for _, p := range f.params {
		key := fmt.Sprintf("%s(%d)", p.attr, p.index)
		switch limit := map[string]int{"buffer": MaxBuffers, "threadgroup": MaxRegions}[p.attr]; {
		case limit > 0:
			if p.index < 0 || p.index >= limit {
				l.bad(at, "kernel %s: [[%s]] of %s, want an index below %d", f.name, key, p.name, limit)
			}
			if seen[key] {
				l.bad(at, "kernel %s: [[%s]] is there twice", f.name, key)
			}
			seen[key] = true
		case vectorAttrs[p.attr] != "":
			w := strings.TrimLeft(p.typ, "uint")
			if width != "" && w != width[1:] {
				l.bad(at, "kernel %s: grid attributes of unlike width, which Apple's compiler refuses", f.name)
			}
			width = "w" + w
		case scalarAttrs[p.attr] == "":
			l.bad(at, "kernel %s: [[%s]] is outside of the subset", f.name, p.attr)
		}
	}
}

// thunk is the C++ that calls the kernel with what its attributes ask for.
func (k *Kernel) thunk(n int) string {
	var args []string
	for _, p := range k.params {
		switch {
		case p.attr == "buffer" && strings.HasSuffix(p.typ, "&"):
			args = append(args, fmt.Sprintf("*(%s *)l->buf[%d]", strings.TrimSuffix(p.typ, "&"), p.index))
		case p.attr == "buffer":
			args = append(args, fmt.Sprintf("(%s)l->buf[%d]", p.typ, p.index))
		case p.attr == "threadgroup":
			args = append(args, fmt.Sprintf("(%s)tg[%d]", p.typ, p.index))
		case scalarAttrs[p.attr] != "":
			args = append(args, fmt.Sprintf("(%s)%s", p.typ, scalarAttrs[p.attr]))
		default:
			from := vectorAttrs[p.attr]
			arg := fmt.Sprintf("(%s)%s.x", p.typ, from)
			if strings.HasSuffix(p.typ, "2") {
				arg = fmt.Sprintf("msl_vec::make<%s>(%s.x, %s.y)", p.typ, from, from)
			} else if strings.HasSuffix(p.typ, "3") {
				arg = fmt.Sprintf("msl_vec::make<%s>(%s.x, %s.y, %s.z)", p.typ, from, from, from)
			}
			args = append(args, arg)
		}
	}
	return fmt.Sprintf("static void msl_thunk_%d(const msl::Launch *l, void *const *tg, const msl::Lane *c) { (void)l, (void)tg, (void)c; %s(%s); }\n",
		n, k.call, strings.Join(args, ", "))
}
