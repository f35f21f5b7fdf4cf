package gpu

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sibyl/internal/inputerr"
	"sibyl/metal/msl"
)

const head = "#include <metal_stdlib>\nusing namespace metal;\n"

// openCPU opens the device with a cache of its own.
func openCPU(t testing.TB, threads int) Device {
	t.Helper()
	d, err := CPU(threads)
	if err == nil {
		_, err = newBuilder(nil)
	}
	if err != nil {
		if os.Getenv("CI") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func source(text string) []msl.File { return []msl.File{{Name: "test.metal", Text: head + text}} }

// run runs kernel k of text over y [n] and gives y.
func run(t testing.TB, d Device, text string, n, threads, tgmem, order int) ([]float32, error) {
	t.Helper()
	lib, err := d.Library(source(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := lib.Pipeline("k")
	if err != nil {
		t.Fatal(err)
	}
	buf, err := d.Buffer(4 * n)
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Release()
	d.(Ordered).SetOrder(order)
	c := d.Begin()
	x := Dispatch{Pipeline: p, Buffers: []Slice{{Buffer: buf}}, Grid: [3]int{1, 1, 1}, Group: [3]int{threads, 1, 1}}
	if tgmem > 0 {
		x.Threadgroup = []int{tgmem}
	}
	c.Add(x)
	_, err = c.Commit()
	y := make([]float32, n)
	for i := range y {
		y[i] = math.Float32frombits(binary.LittleEndian.Uint32(buf.Bytes()[4*i:]))
	}
	return y, err
}

// TestSemantics: what the device promises of threadgroups and simdgroups, and what it reports of kernels that break the rules.
func TestSemantics(t *testing.T) {
	t.Setenv("SIBYL_CACHE", t.TempDir())
	const args = "kernel void k(device float * y [[buffer(0)]], threadgroup float * s [[threadgroup(0)]], uint i [[thread_position_in_threadgroup]], uint n [[threads_per_threadgroup]]) "
	const plain = "kernel void k(device float * y [[buffer(0)]], uint i [[thread_position_in_threadgroup]]) "
	const B = "threadgroup_barrier(mem_flags::mem_threadgroup); "
	for _, c := range []struct {
		name, why, text string
		threads, tgmem  int
		fails           string // in every order
		differs         bool   // between orders, or from the right answer, neighbour's index
	}{
		{"barrier", "the neighbour's value is there after it", args + "{ s[i] = float(i); " + B + "y[i] = s[(i + 1) % n]; }", 96, 384, "", false},
		{"no-barrier", "a race: the neighbour may not have written yet, and then NaN is read", args + "{ s[i] = float(i); y[i] = s[(i + 1) % n]; }", 96, 384, "", true},
		{"divergent-barrier", "undefined on a GPU", plain + "{ if (i < 40u) { " + B + "} y[i] = 1.0f; }", 64, 0, "line 3: threadgroup_barrier was reached by 40 of 64 threads", false},
		{"two-barriers", "the threads of one wait at another line", plain + "{ if (i < 32u) {\n " + B + "} else {\n" + B + "} y[i] = 1.0f; }", 64, 0, "while others wait at line", false},
		{"divergent-simd", "lanes that are not there give nothing", plain + "{ if (i % 32u < 7u) { y[i] = simd_sum(1.0f); } }", 32, 0, "reached by lanes 0000007f of ffffffff", false},
		{"partial-simdgroup", "the last simdgroup of 40 threads has 8 lanes", plain + "{ y[i] = simd_sum(1.0f) + float(i) - (i < 32u ? 31.0f : 7.0f) + (i + 1u == 40u ? -40.0f : 0.0f); }", 40, 0, "", false},
		{"threadgroup-overrun", "memory behind a threadgroup argument", args + "{ s[i + 1u] = 0.0f; y[i] = float((i + 1u) % n); }", 32, 128, "written beyond its 128 bytes", false},
		{"shuffle", "", plain + "{ y[i] = float(simd_shuffle_xor(i, ushort(1)) % 2u == i % 2u ? 99u : (i + 1u) % 64u); }", 64, 0, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			odd := false
			for order := range NumOrders {
				got, err := run(t, openCPU(t, 1), c.text, c.threads, c.threads, c.tgmem, order)
				if c.fails != "" {
					if err == nil || !strings.Contains(err.Error(), c.fails) || !strings.Contains(err.Error(), "k (test.metal)") {
						t.Errorf("order %d: error %v, want ...%s...\nwhy: %s", order, err, c.fails, c.why)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				for i, v := range got {
					odd = odd || v != float32((i+1)%c.threads)
				}
			}
			if odd != c.differs {
				t.Errorf("wrong values: %v, want %v\nwhy: %s", odd, c.differs, c.why)
			}
		})
	}
}

// TestInDoubt: after a failed dispatch the device says so and runs nothing.
func TestInDoubt(t *testing.T) {
	t.Setenv("SIBYL_CACHE", t.TempDir())
	d := openCPU(t, 1)
	const text = "kernel void k(device float * y [[buffer(0)]], uint i [[thread_position_in_threadgroup]]) { if (i < 5u) { y[i] = simd_sum(1.0f); } }"
	if _, err := run(t, d, text, 32, 32, 0, Ascending); err == nil {
		t.Fatal("a divergent simd_sum passed")
	}
	if _, err := run(t, d, text, 32, 5, 0, Ascending); err == nil || !strings.Contains(err.Error(), "in doubt") {
		t.Errorf("after a failure: %v", err)
	}
}

// TestRefusedDispatch: sizes beyond the device's, with both numbers.
func TestRefusedDispatch(t *testing.T) {
	t.Setenv("SIBYL_CACHE", t.TempDir())
	const text = "kernel void k(device float * y [[buffer(0)]], threadgroup float * s [[threadgroup(0)]], uint i [[thread_position_in_threadgroup]]) { s[0] = 0.0f; y[i] = s[0]; }"
	for _, c := range []struct {
		threads, tgmem int
		want           string
	}{{2048, 16, "threads of a threadgroup: found 2048, want 1..1024"}, {32, 40000, "threadgroup memory: found \"40000 bytes\", want at most 32768"}, {32, 0, "want 1 and 1"}} {
		if _, err := run(t, openCPU(t, 1), text, 2048, c.threads, c.tgmem, 0); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "\"", ""), strings.ReplaceAll(c.want, "\"", "")) {
			t.Errorf("%d threads, %d bytes: %v, want ...%s...", c.threads, c.tgmem, err, c.want)
		}
	}
}

// TestSourceErrors: file, line and message of what the linter passes and the compiler does not.
func TestSourceErrors(t *testing.T) {
	t.Setenv("SIBYL_CACHE", t.TempDir())
	for _, c := range []struct{ why, text, want string }{
		{"address spaces do not mix", "inline float f(thread float * p) { return p[0]; }\nkernel void k(device float * y [[buffer(0)]]) {\n y[0] = f(y); }", "test.metal:5: kernel source"},
		{"constant memory is read only", "kernel void k(constant float * y [[buffer(0)]]) {\n y[0] = 1.0f; }", "test.metal:4: kernel source"},
		{"max of half and float", "kernel void k(device float * y [[buffer(0)]]) { y[0] = max(1.0h, 2.0f); }", "test.metal:3: kernel source"},
		{"the linter's", "kernel void k(device float * y [[buffer(0)]]) { y[0] = 1.0; }", "test.metal:3: 1.0: a floating-point literal"},
	} {
		_, err := openCPU(t, 1).Library(source(c.text))
		var bad *inputerr.Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ...%s...", c.why, err, c.want)
		}
	}
}

const trivial = "kernel void k(device float * y [[buffer(0)]], uint i [[thread_position_in_threadgroup]]) { y[i] = float(i) + 1.0f; }"

// TestCacheTogether: builders at the same time make one library, all use it, and nothing else stays.
func TestCacheTogether(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SIBYL_CACHE", dir)
	openCPU(t, 1)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			d, err := CPU(1)
			if err == nil {
				_, err = d.Library(source(trivial))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	entries, err := os.ReadDir(filepath.Join(dir, "metal-cpu"))
	if err != nil || len(entries) != 2 { // the library and the lock
		t.Errorf("the cache holds %v, %v", entries, err)
	}
}

// TestCacheStale: an entry that does not load is built again; another version of the source is another entry.
func TestCacheStale(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SIBYL_CACHE", dir)
	d := openCPU(t, 1)
	b, err := newBuilder([]string{"-mavx2", "-mfma", "-mf16c"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := msl.Translate(source(trivial))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "metal-cpu", b.key(p)+".so")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("half a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := run(t, d, trivial, 32, 32, 0, 0); err != nil || got[31] != 32 {
		t.Fatalf("with a damaged cache: %v, %v", got, err)
	}
	if _, err := run(t, d, strings.Replace(trivial, "+ 1.0f", "+ 2.0f", 1), 32, 32, 0, 0); err != nil {
		t.Fatal(err)
	}
	if all, _ := filepath.Glob(filepath.Join(dir, "metal-cpu", "*.so")); len(all) != 2 {
		t.Errorf("two sources left %v", all)
	}
}

// TestCacheProcesses: processes that start at once, while the leftovers of a killed one lie there, make one library and all use it.
func TestCacheProcesses(t *testing.T) {
	dir := t.TempDir()
	if os.Getenv("SIBYL_TEST_CACHE") != "" { // one of the processes
		t.Setenv("SIBYL_CACHE", os.Getenv("SIBYL_TEST_CACHE"))
		if got, err := run(t, openCPU(t, 1), trivial, 32, 32, 0, 0); err != nil || got[31] != 32 {
			t.Fatalf("%v, %v", got, err)
		}
		return
	}
	openCPU(t, 1)
	half := filepath.Join(dir, "metal-cpu", "build-1234")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(half, "kernels.so"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestCacheProcesses$")
			cmd.Env = append(os.Environ(), "SIBYL_TEST_CACHE="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wait.Wait()
	entries, err := os.ReadDir(filepath.Join(dir, "metal-cpu"))
	if err != nil || len(entries) != 2 { // the library and the lock
		t.Errorf("the cache holds %v, %v", entries, err)
	}
}

// TestCacheCutOff: half a library is told from a whole one before the loader maps it, and is built again; so is one of other sources
// under this name.
func TestCacheCutOff(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SIBYL_CACHE", dir)
	d := openCPU(t, 1)
	if _, err := d.Library(source(trivial)); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(dir, "metal-cpu", "*.so"))
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	whole, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(data []byte) {
		t.Helper()
		// A new file: the loaded one stays mapped.
		if err := errors.Join(os.Remove(all[0]), os.WriteFile(all[0], data, 0o600)); err != nil {
			t.Fatal(err)
		}
		if got, err := run(t, d, trivial, 32, 32, 0, 0); err != nil || got[31] != 32 {
			t.Fatalf("%v, %v", got, err)
		}
		if now, err := os.Stat(all[0]); err != nil || now.Size() != int64(len(whole)) {
			t.Errorf("not built again: %v, %v", now, err)
		}
	}
	spoil(whole[:len(whole)/2])
	spoil(whole[:len(whole)-1])
	other := strings.Replace(trivial, "+ 1.0f", "+ 2.0f", 1)
	if _, err := d.Library(source(other)); err != nil {
		t.Fatal(err)
	}
	more, _ := filepath.Glob(filepath.Join(dir, "metal-cpu", "*.so"))
	for _, path := range more {
		if path != all[0] {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			spoil(data)
		}
	}
}

// TestCompilerMissing, too old, or none at all: what to do is said.
func TestCompilerMissing(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "clang-old")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho 'Debian clang version 14.0.6'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	mute := filepath.Join(dir, "clang-mute")
	if err := os.WriteFile(mute, []byte("#!/bin/sh\necho hello\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ clang, want string }{
		{filepath.Join(dir, "no-such"), "no-such, which SIBYL_CLANG names, want clang 19 or later"}, {old, "clang-old, version 14"}, {mute, "does not say its version"},
	} {
		t.Setenv("SIBYL_CLANG", c.clang)
		_, err := newBuilder(nil)
		var bad *inputerr.Error
		if !errors.As(err, &bad) || bad.Field != "compiler" || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "apt-get install clang-19") {
			t.Errorf("%s: %v, want ...%s...", c.clang, err, c.want)
		}
	}
}

// TestPrebuilt: a library named by SIBYL_METAL_CPU is used as it is, and one of other kernels is refused.
func TestPrebuilt(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SIBYL_CACHE", dir)
	if _, err := openCPU(t, 1).Library(source(trivial)); err != nil {
		t.Fatal(err)
	}
	all, _ := filepath.Glob(filepath.Join(dir, "metal-cpu", "*.so"))
	t.Setenv("SIBYL_METAL_CPU", all[0])
	t.Setenv("SIBYL_CLANG", "/no/such/compiler")
	d, err := CPU(1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := run(t, d, trivial, 32, 32, 0, 0); err != nil || got[0] != 1 {
		t.Errorf("prebuilt: %v, %v", got, err)
	}
	for _, c := range []struct{ from, to string }{{"void k", "void other"}, {"+ 1.0f", "+ 2.0f"}} { // the same kernel, another sum
		_, err := d.Library(source(strings.Replace(trivial, c.from, c.to, 1)))
		if err == nil || !strings.Contains(err.Error(), "one built from other sources") || !strings.Contains(err.Error(), "want one built from this version's kernels; name one that this version built") {
			t.Errorf("a library of other kernels: %v", err)
		}
	}
	for _, path := range []string{filepath.Join(dir, "none"), "/etc/passwd"} {
		t.Setenv("SIBYL_METAL_CPU", path)
		d, err := CPU(1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Library(source(trivial)); err == nil || !strings.Contains(err.Error(), path+": library of kernels") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
