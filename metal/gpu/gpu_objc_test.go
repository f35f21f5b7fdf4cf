//go:build cgo && gnustep

package gpu

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/progrium/darwinkit/macos/metal"
	"github.com/progrium/darwinkit/objc"

	"sibyl/internal/inputerr"
)

// fake sends a message to the class that steers the stand-in for Metal.
func fake[T any](selector string, args ...any) T {
	var v T
	_ = pool(func() error {
		v = objc.Call[T](objc.GetClass("FakeMetal"), objc.Sel(selector), args...)
		return nil
	})
	return v
}

// openFake opens the GPU, which has the state that tests leave it in; at the end nothing of it may be alive, and no rule of
// Metal's broken.
func openFake(t *testing.T) *gpuDevice {
	t.Helper()
	before := fake[int]("live")
	d, err := GPU(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if n := fake[int]("live") - before; n != 0 {
			t.Errorf("%d objects of Metal are alive after Close", n)
		}
		if s := fake[string]("faults"); s != "" {
			t.Errorf("Metal's validation would say: %s", s)
		}
		fake[objc.Void]("reset")
	})
	return d.(*gpuDevice)
}

const double = `
struct Args { uint n; float by; };
kernel void k(device float * y [[buffer(0)]], device const float * x [[buffer(1)]], constant Args & a [[buffer(2)]], threadgroup float * s [[threadgroup(0)]],
	uint at [[thread_position_in_grid]], uint i [[thread_position_in_threadgroup]]) {
	s[i] = at < a.n ? x[at] : 0.0f;
	threadgroup_barrier(mem_flags::mem_threadgroup);
	if (at < a.n) { y[at] = a.by * s[i]; }
}
`

// doubler is a device with a kernel, y [n] = by * x [n].
type doubler struct {
	d    *gpuDevice
	p    Pipeline
	y, x Buffer
	n    int
}

func newDoubler(t *testing.T, n int) *doubler {
	d := openFake(t)
	lib, err := d.Library(source(double))
	if err != nil {
		t.Fatal(err)
	}
	p, err := lib.Pipeline("k")
	if err != nil {
		t.Fatal(err)
	}
	r := &doubler{d: d, p: p, n: n}
	for _, b := range []*Buffer{&r.y, &r.x} {
		if *b, err = d.Buffer(4 * n); err != nil {
			t.Fatal(err)
		}
		t.Cleanup((*b).Release)
	}
	for i := range n {
		binary.LittleEndian.PutUint32(r.x.Bytes()[4*i:], math.Float32bits(float32(i)))
	}
	return r
}

func (r *doubler) dispatch(by float32) Dispatch {
	args := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, uint32(r.n)), math.Float32bits(by))
	return Dispatch{Pipeline: r.p, Buffers: []Slice{{Buffer: r.y}, {Buffer: r.x}}, Args: args, Threadgroup: []int{4 * 64}, Grid: [3]int{(r.n + 63) / 64, 1, 1}, Group: [3]int{64, 1, 1}}
}

func (r *doubler) run(list ...Dispatch) (Timing, error) {
	c := r.d.Begin()
	for _, x := range list {
		c.Add(x)
	}
	return c.Commit()
}

func (r *doubler) check(t *testing.T, by float32) {
	t.Helper()
	for i := range r.n {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(r.y.Bytes()[4*i:])); got != by*float32(i) {
			t.Fatalf("y[%d] = %v, want %v", i, got, by*float32(i))
		}
	}
}

// TestBridge: a kernel with buffers, arguments, threadgroup memory and a barrier, dispatches in order, times by the GPU.
func TestBridge(t *testing.T) {
	r := newDoubler(t, 1000)
	for _, by := range []float32{2, 3} {
		took, err := r.run(r.dispatch(7), r.dispatch(by)) // the second's result stays
		if err != nil {
			t.Fatal(err)
		}
		if took.Dispatches != 2 || took.Device <= 0 {
			t.Errorf("took %+v", took)
		}
		r.check(t, by)
	}
	if info := r.d.Info(); info.Name != "Fake GPU" || info.WorkingSet != 8<<30 || info.MaxThreadgroup != 32<<10 {
		t.Errorf("device %+v", info)
	}
}

// TestBridgeWrap: pages that are mapped already, from an offset within the first.
func TestBridgeWrap(t *testing.T) {
	r := newDoubler(t, 300)
	page := os.Getpagesize()
	mem := make([]byte, 4*page)
	at := page - int(uintptr(unsafe.Pointer(&mem[0])))%page + 48
	for i := range r.n {
		binary.LittleEndian.PutUint32(mem[at+4*i:], math.Float32bits(float32(i)))
	}
	w, offset, err := r.d.Wrap(mem[at : at+4*r.n])
	if err != nil {
		t.Fatal(err)
	}
	defer w.Release()
	if offset != 48 {
		t.Errorf("offset %d, want 48", offset)
	}
	x := r.dispatch(5)
	x.Buffers[1] = Slice{Buffer: w, Offset: offset}
	if _, err := r.run(x); err != nil {
		t.Fatal(err)
	}
	r.check(t, 5)
}

// TestBridgeNoLeak: ten thousand command buffers leave no object and no memory behind.
func TestBridgeNoLeak(t *testing.T) {
	r := newDoubler(t, 64)
	round := func(n int) {
		for range n {
			b, err := r.d.Buffer(4096)
			if err != nil {
				t.Fatal(err)
			}
			x := r.dispatch(2)
			x.Buffers[0].Buffer = b
			if _, err := r.run(x); err != nil {
				t.Fatal(err)
			}
			b.Release()
		}
	}
	round(1000) // what is made once
	live, allocated, heap, resident := fake[int]("live"), fake[int]("allocated"), fake[int]("heap"), residentKB(t)
	const n = 10_000
	round(n)
	if got := fake[int]("live"); got != live {
		t.Errorf("%d objects of Metal after %d command buffers, %d before", got, n, live)
	}
	if got := fake[int]("allocated"); got-allocated > 50 {
		t.Errorf("%d objects of all classes after %d command buffers, %d before", got, n, allocated)
	}
	if got := fake[int]("heap") - heap; got > 16*n { // malloc's smallest is 24 bytes; a new thread costs GNUstep some kilobytes
		t.Errorf("malloc has given out %d bytes more", got)
	}
	grown := residentKB(t) - resident
	if grown > 16<<10 { // Go's heap breathes; 10,000 mapped pages would be 40 MB
		t.Errorf("resident memory grew by %d KB", grown)
	}
	t.Logf("%d command buffers: %d objects of Metal before and after, %+d objects of all classes, %+d bytes of malloc's, resident memory %+d KB",
		n, live, fake[int]("allocated")-allocated, fake[int]("heap")-heap, grown)
}

func residentKB(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var pages [2]int
	for i, f := range strings.Fields(string(text))[:2] {
		for _, c := range f {
			pages[i] = 10*pages[i] + int(c-'0')
		}
	}
	return pages[1] * os.Getpagesize() / 1024
}

// TestBridgeSourceErrors: Metal's compiler names the kernel's file and line through NSError.
func TestBridgeSourceErrors(t *testing.T) {
	d := openFake(t)
	for _, c := range []struct{ why, text, want string }{
		{"a name that is nothing", "kernel void k(device float * y [[buffer(0)]]) {\n\n y[0] = nothing; }", "test.metal:5: kernel source: found \"use of undeclared identifier 'nothing'\", want source that Metal's compiler takes"},
		{"constant memory is read only", "kernel void k(constant float * y [[buffer(0)]]) {\n y[0] = 1.0f; }", "test.metal:4: kernel source"},
		{"the linter's, before Metal sees it", "kernel void k(device float * y [[buffer(0)]]) { y[0] = 1.0; }", "test.metal:3: 1.0: a floating-point literal"},
	} {
		_, err := d.Library(source(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ...%s...", c.why, err, c.want)
		}
	}
}

// TestBridgeFailures: a command buffer that fails is told with its reason, and nothing runs after it.
func TestBridgeFailures(t *testing.T) {
	for _, c := range []struct {
		name, want string
		code       int
	}{
		{"timeout", "metal: a command buffer of 2 dispatches, the first k, failed: Caused GPU Timeout Error", 2},
		{"hang", "Caused GPU Hang Error", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newDoubler(t, 100)
			fake[objc.Void]("failCommit:code:", 2, c.code)
			if _, err := r.run(r.dispatch(2)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.run(r.dispatch(3), r.dispatch(4)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want ...%s...", err, c.want)
			}
			if _, err := r.run(r.dispatch(5)); err == nil || !strings.Contains(err.Error(), "in doubt since an earlier command failed") || !strings.Contains(err.Error(), "Caused GPU") {
				t.Errorf("after a failure: %v", err)
			}
			r.check(t, 2)
		})
	}
	t.Run("kernel", func(t *testing.T) {
		d := openFake(t)
		lib, err := d.Library(source("kernel void k(device float * y [[buffer(0)]], uint i [[thread_position_in_threadgroup]]) { if (i < 5u) { y[i] = simd_sum(1.0f); } }"))
		if err != nil {
			t.Fatal(err)
		}
		p, err := lib.Pipeline("k")
		if err != nil {
			t.Fatal(err)
		}
		b, err := d.Buffer(64)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release()
		c := d.Begin()
		c.Add(Dispatch{Pipeline: p, Buffers: []Slice{{Buffer: b}}, Grid: [3]int{1, 1, 1}, Group: [3]int{32, 1, 1}})
		if _, err := c.Commit(); err == nil || !strings.Contains(err.Error(), "reached by lanes 0000001f of ffffffff") {
			t.Errorf("a divergent simd_sum: %v", err)
		}
	})
}

// TestBridgeDevices: no GPU, one that only MTLCopyAllDevices gives, one of a family without simdgroup reductions.
func TestBridgeDevices(t *testing.T) {
	refused := func(want string) {
		t.Helper()
		before := fake[int]("live")
		_, err := GPU(0)
		var bad *inputerr.Error
		if !errors.As(err, &bad) || bad.Field != "GPU" || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want ...%s...", err, want)
		}
		if n := fake[int]("live") - before; n != 0 {
			t.Errorf("a refusal left %d objects", n)
		}
		fake[objc.Void]("reset")
	}
	fake[objc.Void]("setDevices:", 0)
	refused("found none")
	fake[objc.Void]("setFamily:", 1001)
	refused("Fake GPU, of neither family Apple7 nor Mac2")

	fake[objc.Void]("setDevices:", 2)
	fake[objc.Void]("hideDefault")
	if d := openFake(t); d.Info().Name != "Fake GPU" {
		t.Errorf("device %+v", d.Info())
	}
}

// TestBridgeRefused: sizes beyond the device's are refused before Metal sees them, and a buffer that there is no memory for.
func TestBridgeRefused(t *testing.T) {
	r := newDoubler(t, 64)
	x := r.dispatch(2)
	x.Group = [3]int{2048, 1, 1}
	if _, err := r.run(x); err == nil || !strings.Contains(err.Error(), "2048, want 1..1024 on Fake GPU") {
		t.Errorf("too many threads: %v", err)
	}
	x = r.dispatch(2)
	x.Threadgroup = []int{40000}
	if _, err := r.run(x); err == nil || !strings.Contains(err.Error(), "at most 32768 on Fake GPU") {
		t.Errorf("too much threadgroup memory: %v", err)
	}
	fake[objc.Void]("setWorkingSet:", uint64(1<<20))
	if _, err := r.d.Buffer(2 << 20); err == nil || !strings.Contains(err.Error(), "no buffer of 2097152 bytes") {
		t.Errorf("a buffer beyond the device: %v", err)
	}
}

// TestFakeRules: the stand-in sees what Metal's validation layer would, or no fault of the other tests would mean a thing.
func TestFakeRules(t *testing.T) {
	r := newDoubler(t, 64)
	x := r.dispatch(2)
	send := func(o objc.Handle, selector string, args ...any) {
		objc.Call[objc.Void](o, objc.Sel(selector), args...)
	}
	for _, c := range []struct {
		want string
		do   func(cb metal.CommandBufferObject, enc metal.ComputeCommandEncoderObject)
	}{
		{"commit with an encoder open", func(cb metal.CommandBufferObject, _ metal.ComputeCommandEncoderObject) {
			cb.Commit()
			cb.WaitUntilCompleted()
		}},
		{"released before endEncoding", func(metal.CommandBufferObject, metal.ComputeCommandEncoderObject) {}},
		{"wait for ever", func(cb metal.CommandBufferObject, _ metal.ComputeCommandEncoderObject) { cb.WaitUntilCompleted() }},
		{"without a pipeline", func(_ metal.CommandBufferObject, enc metal.ComputeCommandEncoderObject) {
			enc.DispatchThreadgroupsThreadsPerThreadgroup(metal.Size{Width: 1, Height: 1, Depth: 1}, metal.Size{Width: 1, Height: 1, Depth: 1})
		}},
		{"setComputePipelineState: an object of class FkBuffer", func(_ metal.CommandBufferObject, enc metal.ComputeCommandEncoderObject) {
			send(enc, "setComputePipelineState:", r.x.(*gpuBuffer).buf)
		}},
		{"setBuffer: offset 256 of a buffer of 256 bytes", func(_ metal.CommandBufferObject, enc metal.ComputeCommandEncoderObject) {
			send(enc, "setBuffer:offset:atIndex:", r.x.(*gpuBuffer).buf, uint(256), uint(0))
		}},
		{"setBytes: 4097 bytes", func(_ metal.CommandBufferObject, enc metal.ComputeCommandEncoderObject) {
			enc.SetBytesLengthAtIndex(unsafe.Pointer(&make([]byte, 4097)[0]), 4097, 0)
		}},
		{"setThreadgroupMemoryLength: 20 bytes", func(_ metal.CommandBufferObject, enc metal.ComputeCommandEncoderObject) {
			enc.SetThreadgroupMemoryLengthAtIndex(20, 0)
		}},
		{"endEncoding after endEncoding", func(_ metal.CommandBufferObject, enc metal.ComputeCommandEncoderObject) {
			encode(enc, &x)
			send(enc, "endEncoding")
			send(enc, "endEncoding")
		}},
		{"not whole pages", func(metal.CommandBufferObject, metal.ComputeCommandEncoderObject) {
			_ = objc.Call[metal.BufferObject](r.d.dev, objc.Sel("newBufferWithBytesNoCopy:length:options:deallocator:"), unsafe.Pointer(&r.x.Bytes()[16]), uint(64), metal.ResourceStorageModeShared, unsafe.Pointer(nil))
		}},
	} {
		_ = pool(func() error {
			cb := r.d.queue.CommandBuffer()
			c.do(cb, cb.ComputeCommandEncoder())
			return nil
		})
		if s := fake[string]("faults"); !strings.Contains(s, c.want) {
			t.Errorf("%q, want ...%s...", s, c.want)
		}
		fake[objc.Void]("reset")
	}
}

// TestBridgePool: a message whose result is autoreleased is a fault where no pool is open.
func TestBridgePool(t *testing.T) {
	r := newDoubler(t, 64)
	cb := r.d.queue.CommandBuffer()
	defer cb.Release() // what no pool did
	if s := fake[string]("faults"); !strings.Contains(s, "commandBuffer without an autorelease pool") {
		t.Errorf("faults %q", s)
	}
	fake[objc.Void]("reset")
}
