package main

import (
	"fmt"
	"math"
)

// wilson is the 95 % interval of a share of k in n. Source: E. B. Wilson, Probable inference, the law of succession, and
// statistical inference, JASA 22 (1927), equation 5, with z = 1.96; it needs no correction at 0 or n.
func wilson(k, n int) (lo, hi float64) {
	if n == 0 {
		return 0, 1
	}
	const z = 1.959963984540054
	p, m := float64(k)/float64(n), float64(n)
	centre := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return max(0, centre-half), min(1, centre+half)
}

// share prints k of n with its interval: "39 of 40, 97.5 % (87.1 to 99.6 %)".
func share(k, n int) string {
	if n == 0 {
		return "0 of 0"
	}
	lo, hi := wilson(k, n)
	return fmt.Sprintf("%d of %d, %.1f %% (%.1f to %.1f %%)", k, n, 100*float64(k)/float64(n), 100*lo, 100*hi)
}
