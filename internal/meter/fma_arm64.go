//go:build !noasm

package meter

// fmaNEON does rounds of sixteen independent 4-lane multiply-adds: enough for four units of latency 4.
//
//go:noescape
func fmaNEON(rounds int)

func fmaLoop() (loop func(rounds int), how string, flops float64) { return fmaNEON, "neon", 16 * 4 * 2 }
