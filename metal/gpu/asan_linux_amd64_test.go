package gpu

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestAddressSanitizer: an access beside what a kernel was given, or beside an array of its own, ends the process, and the report names
// the kernel, file and line. It needs kernels built with -fsanitize=address and the runtime preloaded: .ci/run sanitize.
func TestAddressSanitizer(t *testing.T) {
	if asan().poison == 0 {
		return // not asked for: the plain run has no runtime
	}
	const head = "struct Args { uint n; float by; };\nkernel void planted(device float * y [[buffer(0)]], constant Args & a [[buffer(1)]], threadgroup float * s [[threadgroup(0)]], uint i [[thread_position_in_threadgroup]]) { s[i] = a.by;\n"
	cases := []struct{ name, line, want string }{
		{"none", "y[i] = a.by * s[i];", ""},
		{"buffer-read", "y[i] = y[i + 1u];", "use-after-poison"},
		{"buffer-write", "y[i + 1u] = 1.0f;", "use-after-poison"},
		{"buffer-before", "y[i] = (y - 1)[i];", "use-after-poison"},
		{"threadgroup-read", "y[i] = s[i + 1u];", "use-after-poison"},
		{"threadgroup-write", "s[i + 1u] = y[i];", "use-after-poison"},
		{"arguments", "y[i] = (&a.by)[1u + i / 64u];", "use-after-poison"},
		{"local-array", "float w[4]; for (uint j = 0u; j < 4u; j++) { w[j] = y[j]; } y[i] = w[a.n];", "stack-buffer-overflow"},
	}
	if name := os.Getenv("SIBYL_ASAN_CASE"); name != "" {
		for _, c := range cases {
			if c.name == name {
				runPlanted(t, head+c.line+"\n}\n")
			}
		}
		return
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestAddressSanitizer$", "-test.v")
			cmd.Env = append(os.Environ(), "SIBYL_ASAN_CASE="+c.name)
			out, err := cmd.CombinedOutput()
			text := string(out)
			if c.want == "" {
				if err != nil {
					t.Errorf("a kernel without a fault: %v\n%s", err, text)
				}
				return
			}
			for _, want := range []string{"ERROR: AddressSanitizer: " + c.want, "in planted", "test.metal:5"} {
				if err == nil || !strings.Contains(text, want) {
					t.Errorf("%v, %q is not in\n%s", err, want, text)
				}
			}
		})
	}
	t.Logf("%d kernels", len(cases))
}

// runPlanted runs a kernel of 33 threads on a buffer and a threadgroup array of 33 numbers.
func runPlanted(t *testing.T, text string) {
	d := openCPU(t, 1)
	lib, err := d.Library(source(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := lib.Pipeline("planted")
	if err != nil {
		t.Fatal(err)
	}
	const n = 33
	b, err := d.Buffer(4 * n)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	c := d.Begin()
	c.Add(Dispatch{Pipeline: p, Buffers: []Slice{{Buffer: b}}, Args: []byte{4, 0, 0, 0, 0, 0, 128, 63}, Threadgroup: []int{4 * n}, Grid: [3]int{1, 1, 1}, Group: [3]int{n, 1, 1}})
	if _, err := c.Commit(); err != nil {
		t.Fatal(err)
	}
	fmt.Println("ran to its end")
}
