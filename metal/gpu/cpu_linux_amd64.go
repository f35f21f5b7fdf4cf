package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"

	"sibyl/internal/inputerr"
	"sibyl/metal/msl"
)

// CPU opens the device that compiles kernels with clang and runs them here. threads 0 means all cores.
func CPU(threads int) (Device, error) {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	if !cpu.X86.HasAVX2 || !cpu.X86.HasFMA {
		return nil, &inputerr.Error{File: "metal-cpu", Field: "CPU", Found: "one without AVX2 and FMA", Want: "x86-64-v3", Do: "use engine cpu"}
	}
	return &cpuDevice{prebuilt: os.Getenv("SIBYL_METAL_CPU"), threads: threads}, nil
}

type cpuDevice struct {
	prebuilt string // SIBYL_METAL_CPU
	threads  int
	order    int
	sha256   string
	version  string
	path     string // of the library loaded last
	workers  []*worker
	failed   error
}

// Info implements Device.
func (d *cpuDevice) Info() Info {
	return Info{Name: "CPU", Kind: "cpu", MaxThreads: 1024, MaxThreadgroup: 32 << 10, Orders: NumOrders, SourceSHA256: d.sha256, CompilerVersion: d.version}
}

// SetOrder implements Ordered.
func (d *cpuDevice) SetOrder(order int) { d.order = order }

// Library implements Device.
func (d *cpuDevice) Library(files []msl.File) (Library, error) {
	p, err := msl.Translate(files)
	if err != nil {
		return nil, &inputerr.Error{File: "kernel source", Found: inputerr.Clip(err.Error(), 400), Want: "the subset of docs/metal.md", Do: "correct the lines"}
	}
	if d.prebuilt != "" {
		d.version = "prebuilt"
		return d.load(d.prebuilt, p)
	}
	b, err := newBuilder(append([]string{"-mavx2", "-mfma", "-mf16c"}, strings.Fields(os.Getenv("SIBYL_CLANG_FLAGS"))...))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	d.version = b.version
	for try := 0; ; try++ {
		path, key, err := b.build(ctx, p)
		if err != nil {
			return nil, err
		}
		d.sha256 = key
		lib, err := d.load(path, p)
		if err == nil || try > 0 {
			return lib, err
		}
		if err := os.Remove(path); err != nil { // a damaged entry of the cache: built once more
			return nil, err
		}
	}
}

type cpuLibrary struct {
	run, group uintptr
	kernels    map[string]*cpuPipeline
}

type cpuPipeline struct {
	lib   *cpuLibrary
	entry msl.Kernel
	addr  uintptr
}

// Name implements Pipeline.
func (p *cpuPipeline) Name() string { return p.entry.Name }

// MaxThreads implements Pipeline.
func (p *cpuPipeline) MaxThreads() int { return 1024 }

// load opens a shared object and looks up what it was built from and every kernel, so that a library that is not of these sources is
// seen at once.
func (d *cpuDevice) load(path string, p *msl.Program) (*cpuLibrary, error) {
	bad := func(found string) error {
		e := &inputerr.Error{File: path, Field: "library of kernels", Found: inputerr.Clip(found, 200), Want: "one built from this version's kernels", Do: "delete it, so that it is built again"}
		if path == d.prebuilt {
			e.Do = "name one that this version built, an entry of its cache, in SIBYL_METAL_CPU, or none"
		}
		return e
	}
	if err := wholeELF(path); err != nil {
		return nil, bad(err.Error())
	}
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, bad(err.Error())
	}
	source, err := purego.Dlsym(handle, "msl_source")
	if err != nil {
		return nil, bad("one that does not say what it was built from")
	}
	if built := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&source))), len(p.Source)); string(built) != p.Source {
		return nil, bad(fmt.Sprintf("one built from other sources (%.12s, not %.12s)", built, p.Source))
	}
	lib := &cpuLibrary{kernels: map[string]*cpuPipeline{}}
	var find uintptr
	for name, to := range map[string]*uintptr{"msl_run": &lib.run, "msl_group": &lib.group, "msl_find": &find} {
		if *to, err = purego.Dlsym(handle, name); err != nil {
			return nil, bad(err.Error())
		}
	}
	for _, k := range p.Kernels {
		name := append([]byte(k.Name), 0)
		addr, _, _ := purego.SyscallN(find, uintptr(unsafe.Pointer(&name[0])))
		runtime.KeepAlive(name)
		if addr == 0 {
			return nil, bad("no kernel " + k.Name)
		}
		lib.kernels[k.Name] = &cpuPipeline{lib, k, addr}
	}
	d.path = path
	return lib, nil
}

// Pipeline implements Library.
func (l *cpuLibrary) Pipeline(name string) (Pipeline, error) {
	p, ok := l.kernels[name]
	if !ok {
		return nil, fmt.Errorf("the library has no kernel %s", name)
	}
	return p, nil
}

// cpuBuffer is memory outside of Go's heap, or bytes that are there already.
type cpuBuffer struct {
	data   []byte
	mapped []byte // what to unmap
}

func (b *cpuBuffer) Bytes() []byte { return b.data }

func (b *cpuBuffer) Release() {
	if b.mapped != nil {
		allow(b.mapped) // the addresses will be others'
		_ = unix.Munmap(b.mapped)
	}
	b.data, b.mapped = nil, nil
}

// Buffer implements Device. The buffer ends where its last page does, to 15 bytes, and behind that nothing is mapped: a kernel that reads
// or writes further ends the process.
func (d *cpuDevice) Buffer(n int) (Buffer, error) {
	if n <= 0 {
		return nil, fmt.Errorf("a buffer of %d bytes", n)
	}
	const page = 4096
	room := (n + page - 1) / page * page
	mem, err := unix.Mmap(-1, 0, room+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("metal-cpu: a buffer of %d bytes: %w", n, err)
	}
	if err := unix.Mprotect(mem[room:], unix.PROT_NONE); err != nil {
		return nil, err
	}
	at := (room - n) &^ 15
	forbid(mem[:at])
	forbid(mem[at+n:])
	return &cpuBuffer{data: mem[at : at+n : at+n], mapped: mem}, nil
}

// Wrap implements Device.
func (d *cpuDevice) Wrap(b []byte) (Buffer, int, error) {
	if len(b) == 0 {
		return nil, 0, errors.New("no bytes to wrap")
	}
	return &cpuBuffer{data: b}, 0, nil
}

// Close implements Device. Libraries stay loaded: other devices may use them.
func (d *cpuDevice) Close() error {
	for _, w := range d.workers {
		idle.put(w)
	}
	d.workers = nil
	return nil
}

// call is msl_call of shim/dispatch.h.
type call struct {
	kernel, group uintptr
	buf           [16]uintptr
	tgmem         [4]uint32
	regions       uint32
	order         uint32
	grid, threads [3]uint32
	first, count  uint64
	message       [256]byte
}

// worker is one thread's share: a call and its arguments in memory that C may keep the address of.
type worker struct {
	mem   []byte
	call  *call
	args  []byte
	group map[*cpuLibrary]uintptr
}

// workers is a pool over all devices: a group of fibers is 64 MB of address space.
type workers struct {
	mu   sync.Mutex
	free []*worker
}

var idle workers

func (p *workers) put(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, w)
}

func (p *workers) get() (*worker, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		w := p.free[n-1]
		p.free = p.free[:n-1]
		return w, nil
	}
	mem, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	return &worker{mem: mem, call: (*call)(unsafe.Pointer(&mem[0])), args: mem[4096:], group: map[*cpuLibrary]uintptr{}}, nil
}

// prepare fills the call of a dispatch.
func (w *worker) prepare(d *Dispatch, p *cpuPipeline, order int) error {
	c := w.call
	if w.group[p.lib] == 0 {
		g, _, _ := purego.SyscallN(p.lib.group)
		if g == 0 {
			return errors.New("metal-cpu: no memory for the stacks of a threadgroup")
		}
		w.group[p.lib] = g
	}
	c.kernel, c.group, c.order = p.addr, w.group[p.lib], uint32(order)
	for i, b := range d.Buffers {
		c.buf[i] = uintptr(unsafe.Pointer(&b.Buffer.Bytes()[b.Offset]))
	}
	if len(d.Args) > 0 {
		allow(w.args)
		copy(w.args, d.Args)
		forbid(w.args[len(d.Args):])
		c.buf[len(d.Buffers)] = uintptr(unsafe.Pointer(&w.args[0]))
	}
	c.regions = uint32(len(d.Threadgroup))
	for i, n := range d.Threadgroup {
		c.tgmem[i] = uint32(n)
	}
	for i := range 3 {
		c.grid[i], c.threads[i] = uint32(d.Grid[i]), uint32(d.Group[i])
	}
	return nil
}

// run makes threadgroups first..first+count-1.
func (w *worker) run(p *cpuPipeline, first, count uint64) error {
	w.call.first, w.call.count = first, count
	if rc, _, _ := purego.SyscallN(p.lib.run, uintptr(unsafe.Pointer(w.call))); rc&0xff == 0 {
		return nil
	}
	n := 0
	for n < len(w.call.message) && w.call.message[n] != 0 {
		n++
	}
	return fmt.Errorf("%s (%s), %s", p.entry.Name, p.entry.File, w.call.message[:n])
}

// Begin implements Device.
func (d *cpuDevice) Begin() Commands { return &cpuCommands{d: d} }

type cpuCommands struct {
	d    *cpuDevice
	list []Dispatch
	err  error
}

func (c *cpuCommands) Add(x Dispatch) {
	p, ok := x.Pipeline.(*cpuPipeline)
	if !ok && c.err == nil {
		c.err = errors.New("a pipeline of another device")
	}
	if c.err == nil {
		c.err = x.check(c.d.Info(), p.entry.Buffers, p.entry.Regions)
	}
	if len(x.Args) > 4096 && c.err == nil {
		c.err = fmt.Errorf("%d bytes of arguments", len(x.Args))
	}
	c.list = append(c.list, x)
}

// shareThreads is how many threads a dispatch must have for a second core to be worth waking.
const shareThreads = 2048

func (c *cpuCommands) Commit() (Timing, error) {
	d, start := c.d, time.Now()
	if d.failed != nil {
		return Timing{}, fmt.Errorf("the device is in doubt since an earlier dispatch failed: %w", d.failed)
	}
	if c.err != nil {
		return Timing{}, c.err
	}
	for len(d.workers) < d.threads {
		w, err := idle.get()
		if err != nil {
			return Timing{}, err
		}
		d.workers = append(d.workers, w)
	}
	for i := range c.list {
		if err := d.dispatch(&c.list[i]); err != nil {
			d.failed = err
			return Timing{}, err
		}
	}
	t := Timing{time.Since(start), len(c.list)}
	c.list = c.list[:0]
	return t, nil
}

func (d *cpuDevice) dispatch(x *Dispatch) error {
	p := x.Pipeline.(*cpuPipeline)
	total := uint64(x.Grid[0]) * uint64(x.Grid[1]) * uint64(x.Grid[2])
	n := uint64(len(d.workers))
	if total*uint64(x.Group[0]*x.Group[1]*x.Group[2]) < shareThreads {
		n = 1
	}
	n = min(n, total)
	for _, w := range d.workers[:n] {
		if err := w.prepare(x, p, d.order); err != nil {
			return err
		}
	}
	errs := make([]error, n)
	var wait sync.WaitGroup
	for i := uint64(1); i < n; i++ {
		wait.Go(func() { errs[i] = d.workers[i].run(p, i*total/n, (i+1)*total/n-i*total/n) })
	}
	errs[0] = d.workers[0].run(p, 0, total/n)
	wait.Wait()
	runtime.KeepAlive(x)
	return errors.Join(errs...)
}
