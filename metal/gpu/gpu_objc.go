//go:build cgo && (darwin || gnustep)

// No line of this file has run on a Mac yet. On Linux it is type-checked and vetted (.ci/run darwin), and with the tag gnustep it runs
// against a stand-in for Metal (.ci/run gnustep).

package gpu

/*
#cgo darwin LDFLAGS: -framework Metal -framework CoreGraphics
extern void *MTLCreateSystemDefaultDevice(void);
extern void *MTLCopyAllDevices(void);
extern void *objc_retain(void *);
extern void *objc_autoreleasePoolPush(void);
extern void objc_autoreleasePoolPop(void *);
extern const char *object_getClassName(void *);
extern void *objc_getClass(const char *);
extern void *sel_registerName(const char *);
extern void *class_getMethodImplementation(void *, void *);

static void *method(void *o, void *sel) { return class_getMethodImplementation(objc_getClass(object_getClassName(o)), sel); }

// Messages that may last: see below.
static void *newLibrary(void *dev, void *source, void *options, void **err) {
	void *sel = sel_registerName("newLibraryWithSource:options:error:");
	return ((void *(*)(void *, void *, void *, void *, void **))method(dev, sel))(dev, sel, source, options, err);
}
static void *newPipeline(void *dev, void *function, void **err) {
	void *sel = sel_registerName("newComputePipelineStateWithFunction:error:");
	return ((void *(*)(void *, void *, void *, void **))method(dev, sel))(dev, sel, function, err);
}
static void waitUntilCompleted(void *buffer) {
	void *sel = sel_registerName("waitUntilCompleted");
	((void (*)(void *, void *))method(buffer, sel))(buffer, sel);
}
*/
import "C"

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/progrium/darwinkit/macos/foundation"
	"github.com/progrium/darwinkit/macos/metal"
	"github.com/progrium/darwinkit/objc"

	"sibyl/internal/inputerr"
	"sibyl/metal/msl"
)

// Long calls: darwinkit v0.5.0 lets libffi write the address of a Go slice into a Go object without Go's knowledge, so a collection
// that runs at that moment may free the slice, and one that runs while the call still lasts ends the process ("marked free object"). Messages that
// may outlast a collection (compilers, waiting for the GPU) are therefore C's; the others are over in microseconds.

// What darwinkit v0.5.0 lacks of Metal's constants.
const (
	languageVersion3 = metal.LanguageVersion(3 << 16) // MTLLanguageVersion3_0
	familyApple7     = metal.GPUFamily(1007)          // simdgroup reductions on Apple's own GPUs
	familyMac2       = metal.GPUFamily(2002)          // and on others
)

// GPU opens the system's GPU through darwinkit. The number of threads is of no use to it.
func GPU(int) (d Device, err error) {
	err = pool(func() error {
		p := C.MTLCreateSystemDefaultDevice()
		if p == nil { // nil over ssh, in tmux and in CI although a GPU is there
			if p = firstDevice(); p == nil {
				return &inputerr.Error{File: "metal", Field: "GPU", Found: "none", Want: "a Mac with a GPU that Metal sees",
					Do: "run the same kernels on the CPU of a Linux machine with engine metal-cpu"}
			}
		}
		dev := metal.DeviceObject{Object: objc.ObjectFrom(p)}
		if !dev.SupportsFamily(familyApple7) && !dev.SupportsFamily(familyMac2) {
			defer dev.Release()
			return &inputerr.Error{File: "metal", Field: "GPU", Found: dev.Name() + ", of neither family Apple7 nor Mac2", Want: "one with simdgroup reductions", Do: "use engine cpu"}
		}
		g := &gpuDevice{dev: dev, queue: dev.NewCommandQueue()}
		g.info = Info{Name: dev.Name(), Kind: "gpu", MaxThreads: 1024, MaxThreadgroup: int(dev.MaxThreadgroupMemoryLength()),
			WorkingSet: int64(dev.RecommendedMaxWorkingSetSize()), Orders: 1, CompilerVersion: "Metal 3.0"}
		d = g
		return nil
	})
	return d, err
}

// firstDevice is the first of all GPUs, retained; nil if there is none.
func firstDevice() unsafe.Pointer {
	p := C.MTLCopyAllDevices()
	if p == nil {
		return nil
	}
	all := foundation.ArrayFrom(p)
	defer all.Release()
	if all.Count() == 0 {
		return nil
	}
	return C.objc_retain(all.ObjectAtIndex(0).Ptr())
}

// pool runs f on one thread inside an autorelease pool: without it every message's temporary objects stay for good.
func pool(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := C.objc_autoreleasePoolPush()
	defer C.objc_autoreleasePoolPop(p)
	return f()
}

// nsError is an NSError's text, or that there is none.
func nsError(p unsafe.Pointer) string {
	if p == nil {
		return "no reason given"
	}
	return foundation.ErrorFrom(p).LocalizedDescription()
}

type gpuDevice struct {
	dev    metal.DeviceObject
	queue  metal.CommandQueueObject
	owned  []objc.Object // libraries and pipelines, which live as long as the device
	info   Info
	failed error
}

// Info implements Device.
func (d *gpuDevice) Info() Info { return d.info }

// Library implements Device. The files are one source, whose lines are told by #line.
func (d *gpuDevice) Library(files []msl.File) (Library, error) {
	kernels, err := msl.Kernels(files)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for _, f := range files {
		fmt.Fprintf(&text, "#line 1 %q\n%s\n", f.Name, f.Text)
	}
	sum := sha256.Sum256([]byte(text.String()))
	d.info.SourceSHA256 = hex.EncodeToString(sum[:])
	lib := &gpuLibrary{d: d, kernels: map[string]msl.Kernel{}}
	for _, k := range kernels {
		lib.kernels[k.Name] = k
	}
	err = pool(func() error {
		opt := metal.NewCompileOptions()
		opt.SetFastMathEnabled(false)
		opt.SetLanguageVersion(languageVersion3)
		var e unsafe.Pointer
		lib.lib = metal.LibraryObject{Object: objc.ObjectFrom(C.newLibrary(d.dev.Ptr(), objc.ToNSString(text.String()), opt.Ptr(), &e))}
		if lib.lib.IsNil() {
			return sourceError(nsError(e), "Metal's compiler")
		}
		d.owned = append(d.owned, lib.lib.Object)
		return nil
	})
	return lib, err
}

type gpuLibrary struct {
	d       *gpuDevice
	lib     metal.LibraryObject
	kernels map[string]msl.Kernel
}

type gpuPipeline struct {
	entry msl.Kernel
	state metal.ComputePipelineStateObject
	most  int
}

// Name implements Pipeline.
func (p *gpuPipeline) Name() string { return p.entry.Name }

// MaxThreads implements Pipeline.
func (p *gpuPipeline) MaxThreads() int { return p.most }

// Pipeline implements Library.
func (l *gpuLibrary) Pipeline(name string) (Pipeline, error) {
	k, ok := l.kernels[name]
	if !ok {
		return nil, fmt.Errorf("the library has no kernel %s", name)
	}
	p := &gpuPipeline{entry: k}
	err := pool(func() error {
		fn := l.lib.NewFunctionWithName(name)
		if fn.IsNil() {
			return fmt.Errorf("the library has no kernel %s", name)
		}
		defer fn.Release()
		var e unsafe.Pointer
		p.state = metal.ComputePipelineStateObject{Object: objc.ObjectFrom(C.newPipeline(l.d.dev.Ptr(), fn.Ptr(), &e))}
		if p.state.IsNil() {
			return &inputerr.Error{File: fmt.Sprintf("%s:%d", k.File, k.Line), Field: "kernel " + name, Found: inputerr.Clip(nsError(e), 200), Want: "a pipeline",
				Do: "attach the output of sibyl doctor metal to an issue"}
		}
		l.d.owned = append(l.d.owned, p.state.Object)
		p.most = int(p.state.MaxTotalThreadsPerThreadgroup())
		if w := p.state.ThreadExecutionWidth(); w != 32 {
			return &inputerr.Error{File: "metal", Field: "GPU", Found: fmt.Sprintf("simdgroups of %d lanes", w), Want: "32, which the kernels are written for", Do: "use engine cpu"}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

type gpuBuffer struct {
	buf  metal.BufferObject
	data []byte
}

func (b *gpuBuffer) Bytes() []byte { return b.data }

func (b *gpuBuffer) Release() {
	if b.data != nil {
		b.buf.Release()
		b.data = nil
	}
}

// Buffer implements Device.
func (d *gpuDevice) Buffer(n int) (Buffer, error) {
	if n <= 0 {
		return nil, fmt.Errorf("a buffer of %d bytes", n)
	}
	b := &gpuBuffer{}
	err := pool(func() error {
		b.buf = d.dev.NewBufferWithLengthOptions(uint(n), metal.ResourceStorageModeShared)
		if b.buf.IsNil() {
			return fmt.Errorf("metal: no buffer of %d bytes to be had", n)
		}
		b.data = unsafe.Slice((*byte)(b.buf.Contents()), n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Wrap implements Device: the pages that b lies on, which are mapped whole.
func (d *gpuDevice) Wrap(b []byte) (Buffer, int, error) {
	if len(b) == 0 {
		return nil, 0, errors.New("no bytes to wrap")
	}
	page := uintptr(os.Getpagesize())
	at := uintptr(unsafe.Pointer(&b[0]))
	offset := int(at % page)
	length := (uintptr(offset+len(b)) + page - 1) / page * page
	base := unsafe.Add(unsafe.Pointer(&b[0]), -offset)
	w := &gpuBuffer{}
	err := pool(func() error {
		// darwinkit's wrapper cannot pass a nil deallocator.
		w.buf = objc.Call[metal.BufferObject](d.dev, objc.Sel("newBufferWithBytesNoCopy:length:options:deallocator:"), base, uint(length), metal.ResourceStorageModeShared, unsafe.Pointer(nil))
		if w.buf.IsNil() {
			return errors.New("the device does not take these pages without a copy")
		}
		w.data = unsafe.Slice((*byte)(base), offset+len(b))
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return w, offset, nil
}

// Close implements Device. Buffers are their owners' to release.
func (d *gpuDevice) Close() error {
	return pool(func() error {
		for i := len(d.owned) - 1; i >= 0; i-- {
			d.owned[i].Release()
		}
		d.owned = nil
		if !d.queue.IsNil() {
			d.queue.Release()
			d.dev.Release()
			d.queue, d.dev = metal.CommandQueueObject{}, metal.DeviceObject{}
		}
		return nil
	})
}

// Begin implements Device.
func (d *gpuDevice) Begin() Commands { return &gpuCommands{d: d} }

type gpuCommands struct {
	d    *gpuDevice
	list []Dispatch
	err  error
}

func (c *gpuCommands) Add(x Dispatch) {
	p, ok := x.Pipeline.(*gpuPipeline)
	if !ok && c.err == nil {
		c.err = errors.New("a pipeline of another device")
	}
	if c.err == nil {
		c.err = x.check(c.d.info, p.entry.Buffers, p.entry.Regions)
	}
	c.list = append(c.list, x)
}

// Commit encodes the list into one command buffer and waits. Dispatches of one encoder run in order.
func (c *gpuCommands) Commit() (t Timing, err error) {
	d := c.d
	if d.failed != nil {
		return t, fmt.Errorf("the GPU is in doubt since an earlier command failed: %w", d.failed)
	}
	if c.err != nil || len(c.list) == 0 {
		return t, c.err
	}
	err = pool(func() error {
		cb := d.queue.CommandBuffer()
		enc := cb.ComputeCommandEncoder()
		for i := range c.list {
			encode(enc, &c.list[i])
		}
		metal.CommandEncoderObject{Object: enc.Object}.EndEncoding() // darwinkit does not inherit a protocol's methods
		cb.Commit()
		C.waitUntilCompleted(cb.Ptr())
		if cb.Status() == metal.CommandBufferStatusError {
			first := c.list[0].Pipeline.Name()
			d.failed = fmt.Errorf("metal: a command buffer of %d dispatches, the first %s, failed: %s", len(c.list), first, nsError(cb.Error().Ptr()))
			return d.failed
		}
		t = Timing{time.Duration(float64(cb.GPUEndTime()-cb.GPUStartTime()) * 1e9), len(c.list)}
		return nil
	})
	runtime.KeepAlive(c.list)
	c.list = c.list[:0]
	return t, err
}

func encode(enc metal.ComputeCommandEncoderObject, x *Dispatch) {
	// Never the typed methods that take a protocol object: darwinkit v0.5.0 wraps it and panics.
	objc.Call[objc.Void](enc, objc.Sel("setComputePipelineState:"), x.Pipeline.(*gpuPipeline).state)
	for i, b := range x.Buffers {
		objc.Call[objc.Void](enc, objc.Sel("setBuffer:offset:atIndex:"), b.Buffer.(*gpuBuffer).buf, uint(b.Offset), uint(i))
	}
	if len(x.Args) > 0 {
		enc.SetBytesLengthAtIndex(unsafe.Pointer(&x.Args[0]), uint(len(x.Args)), uint(len(x.Buffers)))
	}
	for i, n := range x.Threadgroup {
		enc.SetThreadgroupMemoryLengthAtIndex(uint((n+15)&^15), uint(i))
	}
	enc.DispatchThreadgroupsThreadsPerThreadgroup(
		metal.Size{Width: uint64(x.Grid[0]), Height: uint64(x.Grid[1]), Depth: uint64(x.Grid[2])},
		metal.Size{Width: uint64(x.Group[0]), Height: uint64(x.Group[1]), Depth: uint64(x.Group[2])})
}
