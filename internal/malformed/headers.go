package malformed

import (
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	again = "; download the file again; a correct writer never produces this"
	cut   = "; the download stopped early: download the file again"
)

// headers are single safetensors files. Most hold one or two U8 tensors, whose bytes are their sizes.
func headers() []Case {
	var list []Case
	add := func(name, why, want string, content []byte) {
		list = append(list, Case{Name: "malformed/safetensors/" + name + ".safetensors", Why: why, Want: want, Files: map[string][]byte{"": content}})
	}
	length := func(n uint64) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), "{}"...) }
	entry := func(name string, begin, end int) string {
		return fmt.Sprintf(`"%s":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`, name, end-begin, begin, end)
	}
	obj := func(entries ...string) string { return "{" + strings.Join(entries, ",") + "}" }
	one := func(body string) []byte { return file(`{"a":{`+body+`}}`, make([]byte, 4)) }

	add("short", "shorter than the length itself", "PATH: header length (bytes 0..8): found a file of 5 bytes, want at least 8"+cut, []byte("\x02\x00\x00\x00\x00"))
	add("length-0", "no header at all", "PATH: header length (bytes 0..8): found 0, want at least 2, the length of {}"+again, length(0))
	add("length-over-limit", "a length nobody may allocate", "PATH: header length (bytes 0..8): found 100000001, want at most 100000000; is this a safetensors file? its first 8 bytes are no header length", length(100_000_001))
	add("length-max", "adding 8 to it overflows", "PATH: header length (bytes 0..8): found 18446744073709551615, want at most 100000000; is this a safetensors file? its first 8 bytes are no header length", length(1<<64-1))
	add("length-over-file", "a cut download", "PATH: header length (bytes 0..8): found 3, want at most 2, what the file holds after it"+cut, length(3))
	add("bad-utf8", "names that two programs would read differently", "PATH: header, byte 3: found the byte 0xff, want UTF-8"+again, file(obj(entry("a\xff", 0, 4)), make([]byte, 4)))
	add("not-object", "valid JSON of another kind", "PATH: header, byte 0: found '[', want {"+again, file("[]", nil))
	add("leading-space", "the format wants { first, so that the file can be told by it", "PATH: header, byte 0: found ' ', want {"+again, file(" {}", nil))
	add("not-closed", "JSON that ends early", "PATH: header, byte 2: found the end of the text, want a string"+again, file("{ ", nil))
	add("after-object", "text after the object", "PATH: header, byte 2: found 'x', want the end of the text"+again, file("{}x", nil))
	add("duplicate-key", "two meanings for one name; encoding/json takes the last", `PATH: header, byte 53: found the key "a" a second time, want each key once`+again,
		file(obj(entry("a", 0, 4), strings.Replace(entry("a", 0, 4), `"U8","shape":[4]`, `"F32","shape":[1]`, 1)), make([]byte, 4)))
	add("duplicate-escaped", "the same name, once with an escape", `PATH: header, byte 53: found the key "a" a second time, want each key once`+again,
		file(obj(entry("a", 0, 4), strings.Replace(entry(`\u0061`, 0, 4), `"U8","shape":[4]`, `"F32","shape":[1]`, 1)), make([]byte, 4)))
	add("duplicate-in-entry", "two shapes for one tensor", `PATH: header, tensor "a", byte 31: found the key "shape" a second time, want each key once`+again,
		one(`"dtype":"U8","shape":[2],"shape":[4],"data_offsets":[0,4]`))
	add("hole", "bytes nobody owns can hide a stale tensor", `PATH: header, tensor "b" data_offsets: found [8, 12], want a begin of 4: bytes 4..8 belong to no tensor`+again,
		file(obj(entry("a", 0, 4), entry("b", 8, 12)), make([]byte, 12)))
	add("hole-at-start", "the same, before the first tensor", `PATH: header, tensor "a" data_offsets: found [2, 4], want a begin of 0: bytes 0..2 belong to no tensor`+again,
		file(obj(entry("a", 2, 4)), make([]byte, 4)))
	add("overlap", "bytes with two owners", `PATH: header, tensor "b" data_offsets: found [2, 6], want a begin of 4: its first bytes belong to tensor "a" too`+again,
		file(obj(entry("a", 0, 4), entry("b", 2, 6)), make([]byte, 6)))
	add("trailing-bytes", "bytes after the last tensor", "PATH: data section: found 7 bytes, want 4, where the last tensor ends: bytes 4..7 belong to no tensor"+again,
		file(obj(entry("a", 0, 4)), make([]byte, 7)))
	add("truncated", "a cut download", `PATH: header, tensor "a" data_offsets: found [0, 4], want an end of at most 3, the bytes the file holds after its header`+cut,
		file(obj(entry("a", 0, 4)), make([]byte, 3)))
	add("end-before-begin", "a negative length", `PATH: header, tensor "a" data_offsets: found [4, 0], want an end not below its begin`+again,
		one(`"dtype":"U8","shape":[4],"data_offsets":[4,0]`))
	add("shape-overflow", "a product that wraps around to the right size", `PATH: header, tensor "a" shape: found [4611686018427387905 4], want a product below 2^63`+again,
		one(`"dtype":"U8","shape":[4611686018427387905,4],"data_offsets":[0,4]`))
	add("dimension-overflow", "one dimension beyond 64 bits", `PATH: header, tensor "a", byte 28: found 18446744073709551616, want a natural number below 2^64`+again,
		one(`"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,4]`))
	add("dimension-over-int", "one dimension beyond a signed 64-bit integer", `PATH: header, tensor "a" shape: found 9223372036854775808 in dimension 0, want at most 9223372036854775807`+again,
		one(`"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,4]`))
	add("dimension-negative", "sizes are natural numbers", `PATH: header, tensor "a", byte 28: found -4, want a natural number below 2^64`+again,
		one(`"dtype":"U8","shape":[-4],"data_offsets":[0,4]`))
	add("dimension-fraction", "4.0 is no size, whatever a float parser says", `PATH: header, tensor "a", byte 28: found 4.0, want a natural number below 2^64`+again,
		one(`"dtype":"U8","shape":[4.0],"data_offsets":[0,4]`))
	add("rank", "a shape without end", `PATH: header, tensor "a" shape: found more than 8 dimensions, want fewer`+again,
		one(`"dtype":"U8","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,4]`))
	add("size-mismatch", "size is not shape times dtype", `PATH: header, tensor "a" data_offsets: found 4 bytes, want 8, the size of F16 [4]`+again,
		one(`"dtype":"F16","shape":[4],"data_offsets":[0,4]`))
	add("unknown-dtype-range", "an unknown dtype is passed over, its range is not", `PATH: header, tensor "a" data_offsets: found [0, 5], want an end of at most 4, the bytes the file holds after its header`+cut,
		one(`"dtype":"F8_E4M3","shape":[5],"data_offsets":[0,5]`))
	add("dtype-number", "a dtype is a name", `PATH: header, tensor "a", byte 14: found '3', want a string`+again, one(`"dtype":3,"shape":[4],"data_offsets":[0,4]`))
	add("no-dtype", "an entry says all three", `PATH: header, tensor "a": found no dtype, want dtype, shape and data_offsets`+again, one(`"shape":[4],"data_offsets":[0,4]`))
	add("three-offsets", "a range has two ends", `PATH: header, tensor "a" data_offsets: found more than 2 numbers, want [begin, end]`+again, one(`"dtype":"U8","shape":[4],"data_offsets":[0,4,8]`))
	add("one-offset", "a range has two ends", `PATH: header, tensor "a" data_offsets: found 1 numbers, want [begin, end]`+again, one(`"dtype":"U8","shape":[4],"data_offsets":[0]`))
	add("unknown-key", "a key that may change the meaning", `PATH: header, tensor "a": found the key "order", want dtype, shape and data_offsets only`+again,
		one(`"dtype":"U8","order":"F","shape":[4],"data_offsets":[0,4]`))
	add("long-name", "a name without end", "PATH: header: found a tensor name of 513 bytes, want 1 to 512"+again, file(obj(entry(strings.Repeat("n", 513), 0, 4)), make([]byte, 4)))
	add("lone-surrogate", "a name with no UTF-8", `PATH: header, byte 2: found a \u escape that is no character, want four hex digits, surrogates in pairs`+again,
		file(obj(entry(`\ud800`, 0, 4)), make([]byte, 4)))
	add("metadata-number", "metadata is strings", `PATH: header, __metadata__, byte 26: found '1', want a string`+again, file(`{"__metadata__":{"format":1}}`, nil))
	add("nested-shape", "brackets where a number belongs", `PATH: header, tensor "a", byte 28: found '[', want a natural number`+again,
		file(`{"a":{"dtype":"U8","shape":[`+strings.Repeat("[", 1000), nil))
	add("lfs-pointer", "Git LFS was not installed", "PATH: found a Git LFS pointer, want the file itself; run `git lfs pull` in the folder it came from, or download the file again", []byte(lfs))
	return list
}
