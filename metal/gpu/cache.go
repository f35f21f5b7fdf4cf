package gpu

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"sibyl/internal/inputerr"
	"sibyl/metal/msl"
)

// minClang is the first clang whose vectors, address spaces and _Float16 give what the shim asks for.
const minClang = 19

// builder compiles programs to shared objects, each once: a cache under the hash of all that goes into it.
type builder struct {
	dir     string   // of the cache
	clang   string   // the compiler's path
	version string   // as it says it, one line
	flags   []string // by the CPU's features
}

// compilers are tried in order; SIBYL_CLANG names another.
var compilers = []string{"clang-19", "clang-20", "clang-21", "clang"}

// needClang is the refusal where there is no compiler that will do.
func needClang(found string) error {
	return &inputerr.Error{File: "metal-cpu", Field: "compiler", Found: found, Want: fmt.Sprintf("clang %d or later", minClang),
		Do: "install it (Debian: apt-get install clang-19), name it in SIBYL_CLANG, or name a library built elsewhere in SIBYL_METAL_CPU"}
}

// newBuilder finds the compiler and the cache.
func newBuilder(features []string) (*builder, error) {
	names := compilers
	if name := os.Getenv("SIBYL_CLANG"); name != "" {
		names = []string{name}
	}
	b := &builder{flags: features}
	tooOld := ""
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		major, version, err := clangVersion(path)
		if err != nil {
			return nil, needClang(fmt.Sprintf("%s, which does not say its version: %v", path, err))
		}
		if major >= minClang {
			b.clang, b.version = path, version
			break
		}
		tooOld = fmt.Sprintf("%s, version %d", path, major)
	}
	if b.clang == "" {
		if tooOld == "" {
			tooOld = "none of " + strings.Join(names, ", ") + " on PATH"
			if name := os.Getenv("SIBYL_CLANG"); name != "" {
				tooOld = "no program " + name + ", which SIBYL_CLANG names"
			}
		}
		return nil, needClang(tooOld)
	}
	dir := os.Getenv("SIBYL_CACHE")
	if dir == "" {
		home, err := os.UserCacheDir()
		if err != nil {
			return nil, &inputerr.Error{File: "metal-cpu", Field: "cache", Found: err.Error(), Want: "a directory for compiled kernels", Do: "set SIBYL_CACHE to one"}
		}
		dir = filepath.Join(home, "sibyl")
	}
	b.dir = filepath.Join(dir, "metal-cpu")
	return b, nil
}

var versionText = regexp.MustCompile(`clang version (\d+)\.\S*`)

func clangVersion(path string) (major int, version string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return 0, "", err
	}
	m := versionText.FindSubmatch(out)
	if m == nil {
		return 0, "", fmt.Errorf("--version prints %s", inputerr.Clip(string(out), 60))
	}
	major, err = strconv.Atoi(string(m[1]))
	return major, string(m[0]), err
}

// arguments of the compiler. Contraction is off: where a kernel fuses, it says fma.
func (b *builder) arguments() []string {
	args := []string{"-x", "c++", "-std=c++14", "-O2", "-fPIC", "-shared", "-fno-exceptions", "-fno-rtti", "-nostdlib++", "-ffp-contract=off",
		"-Xclang", "-ffloat16-excess-precision=none", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wdouble-promotion", "-Werror",
		"-Wno-c++17-extensions", "-Wno-unknown-pragmas", "-Wno-unused-function"}
	return append(args, b.flags...)
}

// key is the hash of everything that decides what the library does.
func (b *builder) key(p *msl.Program) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n", b.version, strings.Join(b.arguments(), " "))
	for _, name := range p.Names() {
		fmt.Fprintf(h, "%s %d\n%s", name, len(p.Files[name]), p.Files[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// build gives the path of the program's library, compiled now if the cache has none. Processes that want the same one wait for
// each other; what is written half never bears the final name; what does not load is the caller's to drop.
func (b *builder) build(ctx context.Context, p *msl.Program) (path, key string, err error) {
	key = b.key(p)
	path = filepath.Join(b.dir, key+".so")
	if _, err := os.Stat(path); err == nil {
		return path, key, nil
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return "", key, fmt.Errorf("metal-cpu: the cache of kernels: %w; SIBYL_CACHE names another place", err)
	}
	lock := flock.New(filepath.Join(b.dir, "lock"))
	if ok, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil || !ok {
		return "", key, fmt.Errorf("metal-cpu: waiting for another process that builds kernels in %s: %w", b.dir, err)
	}
	defer lock.Unlock()
	if _, err := os.Stat(path); err == nil { // the other process made it
		return path, key, nil
	}
	if left, err := filepath.Glob(filepath.Join(b.dir, "build-*")); err == nil {
		for _, dir := range left { // of a process that was killed: whoever builds holds the lock
			_ = os.RemoveAll(dir) // only room is lost
		}
	}
	tmp, err := os.MkdirTemp(b.dir, "build-")
	if err != nil {
		return "", key, err
	}
	defer os.RemoveAll(tmp)
	for _, name := range p.Names() {
		if err := os.WriteFile(filepath.Join(tmp, name), []byte(p.Files[name]), 0o600); err != nil {
			return "", key, err
		}
	}
	if err := b.compile(ctx, tmp); err != nil {
		return "", key, err
	}
	return path, key, os.Rename(filepath.Join(tmp, "kernels.so"), path)
}

// wholeELF says what is missing of a shared object: the loader maps a file that was cut off without a word, and the process ends where it
// reads behind the end. The table of sections is the last thing in it.
func wholeELF(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	var head [64]byte
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:4]) != "\x7fELF" || head[4] != 2 {
		return errors.New("a file that is no 64-bit ELF library")
	}
	end := binary.LittleEndian.Uint64(head[0x28:]) + uint64(binary.LittleEndian.Uint16(head[0x3a:]))*uint64(binary.LittleEndian.Uint16(head[0x3c:]))
	if uint64(st.Size()) < end {
		return fmt.Errorf("%d bytes of a library of %d", st.Size(), end)
	}
	return nil
}

// compile runs clang in dir.
func (b *builder) compile(ctx context.Context, dir string) error {
	args := append(b.arguments(), "-isystem", ".", "main.cpp", "-o", "kernels.so", "-lm")
	cmd := exec.CommandContext(ctx, b.clang, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	return sourceError(stderr.String(), b.version)
}

var (
	diagnostic = regexp.MustCompile(`(?m)^([\w.-]+\.metal):(\d+):\d+: error: (.*)$`)
	anyError   = regexp.MustCompile(`(?m)^.*error: .*$`)
)

// sourceError is the first fault that the compiler saw, with the kernel's file and line.
func sourceError(text, compiler string) error {
	if m := diagnostic.FindStringSubmatch(text); m != nil {
		return &inputerr.Error{File: m[1] + ":" + m[2], Field: "kernel source", Found: inputerr.Clip(m[3], 200), Want: "source that " + compiler + " takes", Do: "correct the line"}
	}
	first := anyError.FindString(text)
	if first == "" {
		first = text
	}
	return &inputerr.Error{File: "metal-cpu", Field: "compiler", Found: inputerr.Clip(strings.TrimSpace(first), 300), Want: "a library",
		Do: "check that " + compiler + " compiles and links C++ (libc6-dev)"}
}
