//go:build !noasm

package kernels

func init() { compensatedKernel.add(AVX2, compensatedAVX2) }

func compensatedAVX2(w, x []float32) (sum, bound float64) {
	var s twofold
	n := len(w)
	whole := n &^ 7
	if whole > 0 {
		var lanes [20]float64
		compensatedWhole(&lanes[0], &w[0], &x[0], whole)
		for i := range 8 {
			s.add(lanes[i])
			s.lost += lanes[8+i]
		}
		for _, v := range lanes[16:] {
			s.abs += v
		}
	}
	s.products(w[whole:], x[whole:])
	return s.bounded(n)
}
