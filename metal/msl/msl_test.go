package msl_test

import (
	"strings"
	"testing"

	"sibyl/metal/kernels"
	"sibyl/metal/msl"
)

// TestKernelsKeepTheSubset: sibyl's own kernels.
func TestKernelsKeepTheSubset(t *testing.T) {
	t.Parallel()
	for _, f := range msl.Lint(kernels.Files()) {
		t.Error(f)
	}
	ks, err := msl.Kernels(kernels.Files())
	if err != nil || len(ks) < 50 {
		t.Fatalf("%d kernels, %v", len(ks), err)
	}
	for _, k := range ks {
		if k.Line == 0 || k.Buffers == 0 || !strings.HasSuffix(k.File, ".metal") {
			t.Errorf("%+v", k)
		}
	}
}

const sig = "kernel void k(device float * y [[buffer(0)]], uint i [[thread_position_in_grid]]) "

// faults: one line each, on line 2 of the file.
var faults = []struct{ name, why, line, want string }{
	{"double-type", "MSL has none", sig + "{ double d = 1; y[i] = float(d); }", "double: MSL has no double"},
	{"double-literal", "an unsuffixed literal is a double, which Apple's compiler narrows silently", sig + "{ y[i] = 1.0; }", "needs f or h"},
	{"double-exponent", "", sig + "{ y[i] = 1e3; }", "needs f or h"},
	{"pointer-parameter", "Apple demands an address space where clang takes any pointer", "inline void f(float * p) { p[0] = 1.0f; }", "needs its address space"},
	{"reference-parameter", "", "struct S { float a; }; inline float f(S & s) { return s.a; }", "needs its address space"},
	{"pointer-local", "", sig + "{ float * p = y; p[i] = 0.0f; }", "needs its address space"},
	{"pointer-first-in-file", "a preprocessor line is no beginning of a statement", "float * f(device float * y) { return 0; }", "needs its address space"},
	{"pointer-result", "", "inline float * f(thread float * p) { return p; }", "needs its address space"},
	{"pointer-cast", "", sig + "{ y[i] = ((float *)y)[0]; }", "needs its address space"},
	{"pointer-unnamed", "", "inline float f(float *, uint i);", "needs its address space"},
	{"inner-pointer", "the pointer that is pointed to lies somewhere too", "inline float f(device float * * p) { return p[0][0]; }", "* * p: a pointer or reference needs its address space"},
	{"inner-pointer-const", "const is no address space", "inline float f(device float * const * p) { return p[0][0]; }", "needs its address space"},
	{"inner-pointer-first", "the outer one's does not count for the inner one", "inline float f(float * device * p) { return p[0][0]; }", "needs its address space"},
	{"inner-pointer-local", "", sig + "{ device float * * p = 0; y[i] = p[0][0]; }", "needs its address space"},
	{"inner-pointer-member", "", "struct S { device float * * p; };", "needs its address space"},
	{"reference-to-pointer", "", "inline float f(device float * & p) { return p[0]; }", "needs its address space"},
	{"global", "MSL has constant ones alone", "float z = 1.0f;", "float z: a variable at program scope must be constant"},
	{"global-array", "", "float z[2] = {1.0f, 2.0f};", "a variable at program scope must be constant"},
	{"global-braces", "", "uint z{3u};", "a variable at program scope must be constant"},
	{"global-constexpr", "constexpr names no address space", "constexpr uint N = 4u;", "a variable at program scope must be constant"},
	{"global-static", "", "static float z;", "a variable at program scope must be constant"},
	{"global-const", "", "const uint z = (1u + 2u);", "a variable at program scope must be constant"},
	{"global-in-namespace", "", "namespace a { uint z = 1u; }", "a variable at program scope must be constant"},
	{"global-after-function", "", "inline uint f(uint i) { return i; } uint z;", "a variable at program scope must be constant"},
	{"global-threadgroup", "", "threadgroup float z[4];", "a variable at program scope must be constant"},
	{"long-suffix", "long long is none of MSL's", sig + "{ y[i] = float(1ll); }", "1ll: a 64-bit literal"},
	{"long-unsigned", "", sig + "{ y[i] = float(0x1UL); }", "0x1UL: a 64-bit literal"},
	{"long-value", "it is a long without saying so", sig + "{ y[i] = float(4294967296); }", "4294967296: a 64-bit literal"},
	{"long-decimal", "an unsuffixed decimal is signed", sig + "{ y[i] = float(2147483648); }", "2147483648: a 64-bit literal"},
	{"long-hex", "", sig + "{ y[i] = float(0x100000000u); }", "0x100000000u: a 64-bit literal"},
	{"long-double", "", sig + "{ y[i] = 1.0L; }", "needs f or h"},
	{"double-hex", "", sig + "{ y[i] = 0x1p-3; }", "needs f or h"},
	{"atomic-float", "every atomic type, not two of them", "kernel void k(device atomic_float * y [[buffer(0)]]) { }", "atomic_float: atomics are outside"},
	{"atomic-bool", "", "kernel void k(device atomic_bool * y [[buffer(0)]]) { }", "atomic_bool: atomics are outside"},
	{"atomic-template", "", "kernel void k(device atomic<uint> * y [[buffer(0)]]) { }", "atomic: atomics are outside"},
	{"atomic-function", "", sig + "{ atomic_fetch_add_explicit(y, 1u, memory_order_relaxed); }", "atomic_fetch_add_explicit: atomics are outside"},
	{"threadgroup-too-large", "no Apple GPU has it", sig + "{ threadgroup float s[8193]; y[i] = s[0]; }", "32772 bytes of threadgroup memory, want at most 32768"},
	{"threadgroup-of-vectors", "a vector of three takes four", sig + "{ threadgroup half3 s[64][0x50]; y[i] = s[0][0].x; }", "40960 bytes of threadgroup memory"},
	{"auto", "the pointer's address space would be hidden", sig + "{ auto p = y + i; p[0] = 0.0f; }", "auto"},
	{"vector-cast", "clang makes a splat of it, Apple refuses", sig + "{ float4 v = (float4)1.0f; y[i] = v.x; }", "a C cast to a vector"},
	{"static-local", "MSL has no static variables", sig + "{ static float z = 1.0f; y[i] = z; }", "static"},
	{"std", "", sig + "{ y[i] = std::exp(1.0f); }", "std"},
	{"function-constant", "the CPU has no specialised pipelines", "constant int N [[function_constant(0)]];", "function constants are outside of the subset"},
	{"simdgroup-matrix", "the CPU has none", sig + "{ simdgroup_float8x8 m; y[i] = 0.0f; }", "simdgroup matrices are outside"},
	{"lambda", "MSL has none before 4.0", sig + "{ float a = [&](float b) { return b; }(1.0f); y[i] = a; }", "lambda"},
	{"if-constexpr", "MSL is C++14", sig + "{ if constexpr (true) { y[i] = 1.0f; } }", "if constexpr"},
	{"recursion", "Metal has none", "inline float f(int n) { return n < 1 ? 1.0f : f(n - 1); }", "f reaches itself"},
	{"recursion-of-two", "", "inline float g(int n); inline float f(int n) { return g(n); } inline float g(int n) { return f(n); }", "reaches itself"},
	{"threadgroup-local", "its size must be seen by the device", sig + "{ threadgroup float s[4]; s[0] = 1.0f; y[i] = s[0]; }", "make it a parameter"},
	{"buffer-twice", "", "kernel void k(device float * y [[buffer(0)]], device float * z [[buffer(0)]]) { y[0] = z[0]; }", "[[buffer(0)]] is there twice"},
	{"buffer-index", "", "kernel void k(device float * y [[buffer(31)]]) { y[0] = 0.0f; }", "want an index below 16"},
	{"no-attribute", "", "kernel void k(device float * y) { y[0] = 0.0f; }", "without an attribute"},
	{"unknown-attribute", "", "kernel void k(device float * y [[buffer(0)]], uint i [[dispatch_threads_per_threadgroup]]) { y[i] = 0.0f; }", "is outside of the subset"},
	{"grid-width", "Apple refuses to mix uint and uint2", "kernel void k(device float * y [[buffer(0)]], uint2 g [[threadgroup_position_in_grid]], uint i [[thread_position_in_grid]]) { y[i] = float(g.x); }", "unlike width"},
	{"macro", "sibyl runs no preprocessor of its own", "#define F(x) ((x) + 1)", "plain #define"},
	{"include", "newLibraryWithSource finds no files", "#include \"other.h\"", "only #include <metal_stdlib>"},
	{"conditional", "", "#ifdef A", "only #include"},
	{"isnan", "fast math may drop it", sig + "{ y[i] = isnan(y[i]) ? 1.0f : 0.0f; }", "isnan"},
	{"atomics", "their order is not declared", "kernel void k(device atomic_uint * y [[buffer(0)]]) { }", "atomics"},
	{"duplicate-kernel", "the table of kernels would hide one", "kernel void twice(device float * y [[buffer(0)]]) { } kernel void twice(device float * y [[buffer(0)]]) { }", "is defined at bad.metal:2 too"},
	{"instance-of-nothing", "", `template [[host_name("a")]] [[kernel]] decltype(f<float>) f<float>;`, "is no kernel template"},
	{"instance-form", "", `template [[host_name("a")]] kernel void f<float>(device float *);`, "an instantiation in another form"},
}

// TestFaults: each is named with its file and line.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range faults {
		got := msl.Lint([]msl.File{{Name: "bad.metal", Text: "// a comment with double and 1.0\n" + c.line + "\n"}})
		found := false
		for _, f := range got {
			found = found || f.File == "bad.metal" && f.Line == 2 && strings.Contains(f.Text, c.want)
		}
		if !found {
			t.Errorf("%s: got %v, want bad.metal:2: ...%s...\nwhy: %s", c.name, got, c.want, c.why)
		}
	}
}

// TestTaken: what is in the subset raises nothing.
func TestTaken(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		sig + "{ thread float * p = (thread float *)0; y[i] = 2.0f * y[i] + 1.0h; if (i * 2u > 3u) { y[0] = 0x1.8p1f; } }",
		"template <typename T> inline T f(device const T * p, uint i) { return p[i]; }",
		"struct W { device const float * p; static inline float one(float a) { return a; } };",
		sig + "{ for (uint j = 0u; j < i * 4u; j++) { y[j] += y[j] * y[j]; } }",
		"#define NONE 0xffffffffu",
		"inline float f(device float * device * p, thread device float * thread & q) { device float * constant * r = 0; return p[0][0] * *q; }",
		sig + "{ device float * p = (device float *)y; y[i] = 2.0f * *p; if (y[i] * y[0] > *p * *p) { y[0] = f(i * 2u, *p); } }",
		"inline device float * f(device float * p) { return p; } inline uint g(uint a, uint b); using namespace metal; struct S { uint a; float b[2]; };",
		"constant float z[2] = {1.0f, 2.0f}; constexpr constant uint N = 4u; constant uint M{3u}; namespace a { constant uint z = 1u; inline uint f() { return z; } }",
		"template <typename T> struct F { static inline T one(T a) { return a; } }; typedef uint word; enum { A = 1, B = 2 }; static_assert(sizeof(uint) == 4u, \"word\");",
		sig + "{ uint a = 4294967295u + 0xffffffff + 2147483647; y[i] = float(a) + 0x1p-24f; }",
	} {
		if got := msl.Lint([]msl.File{{Name: "good.metal", Text: line}}); len(got) > 0 {
			t.Errorf("%s\n%v", line, got)
		}
	}
}

// FuzzTranslate: no text panics, and what is taken is translated.
func FuzzTranslate(f *testing.F) {
	for _, c := range faults {
		f.Add(c.line)
	}
	for _, k := range kernels.Files() {
		f.Add(k.Text)
	}
	for _, s := range []string{"", "kernel void", "kernel void k(", "template [[host_name(", "\"", "/*", "[[", "kernel void k(device float * y [[buffer(", "template <typename T> kernel void f(device T * p [[buffer(0)]]) {}\ntemplate [[host_name(\"a\")]] [[kernel]] decltype(f<>) f<>;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		faults := msl.Lint([]msl.File{{Name: "f.metal", Text: text}})
		_, err := msl.Translate([]msl.File{{Name: "f.metal", Text: text}})
		if (err == nil) != (len(faults) == 0) {
			t.Errorf("%d faults, translated with %v", len(faults), err)
		}
	})
}
