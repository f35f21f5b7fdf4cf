//go:build cgo && linux && amd64 && gnustep

package gpu

/*
#include <stdlib.h>
extern void fakemetal_start(void);
extern const char *fakemetal_request(void);
extern void fakemetal_answer(const char *path, const char *said);
*/
import "C"

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unsafe"

	"sibyl/internal/inputerr"
	_ "sibyl/metal/darwin/fakemetal" // the framework that gpu_objc.go links
	"sibyl/metal/msl"
)

// lineMarker is how gpuDevice.Library marks the files of its source.
var lineMarker = regexp.MustCompile(`(?m)^#line 1 "([^"]*)"\n`)

func init() {
	C.fakemetal_start()
	go compileForFake()
}

// compileForFake is the compiler of the stand-in for Metal: the CPU device's, whose cache the two share.
func compileForFake() {
	for {
		path, err := compileMarked(C.GoString(C.fakemetal_request()))
		if err != nil {
			said := C.CString(metalSays(err))
			C.fakemetal_answer(nil, said)
			C.free(unsafe.Pointer(said))
			continue
		}
		p := C.CString(path)
		C.fakemetal_answer(p, nil)
		C.free(unsafe.Pointer(p))
	}
}

// compileMarked gives the library of a source whose files are marked.
func compileMarked(text string) (string, error) {
	var files []msl.File
	marks := lineMarker.FindAllStringSubmatchIndex(text, -1)
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		files = append(files, msl.File{Name: text[m[2]:m[3]], Text: strings.TrimSuffix(text[m[1]:end], "\n")})
	}
	d, err := CPU(1)
	if err == nil {
		_, err = d.Library(files)
	}
	if err != nil {
		return "", err
	}
	return d.(*cpuDevice).path, nil
}

// metalSays is a fault as Metal's own compiler tells it: clang's text, with warnings before it and the line behind.
func metalSays(err error) string {
	var bad *inputerr.Error
	if !errors.As(err, &bad) || !strings.Contains(bad.File, ".metal:") {
		return "program_source: error: " + err.Error()
	}
	message, quoted := strconv.Unquote(bad.Found)
	if quoted != nil {
		message = bad.Found
	}
	return fmt.Sprintf("program_source:1:1: warning: one that is no fault\n%s:1: error: %s\n    the line\n    ^\n", bad.File, message)
}
