package trace

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"strings"
)

// compareNames is the order of tensors in a trace file, and so in its hash: by the bytes of their names.
func compareNames(a, b string) int { return strings.Compare(a, b) }

// DataSHA256 is the hash of a Source's tensors, sorted by name, each as its bytes in a trace file (F32 or I32,
// little endian), in lower-case hex. Written to a file, the same tensors have this data_sha256: names, shapes and
// metadata are not part of it. The sequence's length and the choice of taps are.
func DataSHA256(s Source) (string, error) {
	list := slices.Clone(s.Tensors())
	slices.SortFunc(list, func(a, b TensorInfo) int { return compareNames(a.Name, b.Name) })
	h := sha256.New()
	x := make([]float32, blockElements)
	b := make([]byte, 4*blockElements)
	for _, t := range list {
		for off, n := 0, t.Len(); off < n; {
			m := min(n-off, blockElements)
			if err := s.Read(t.Name, off, x[:m]); err != nil {
				return "", err
			}
			for i, v := range x[:m] {
				bits := math.Float32bits(v)
				if t.DType == I32 {
					bits = uint32(int32(v))
				}
				binary.LittleEndian.PutUint32(b[4*i:], bits)
			}
			h.Write(b[:4*m]) // a hash's Write never fails
			off += m
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
