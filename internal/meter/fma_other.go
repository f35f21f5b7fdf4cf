//go:build noasm || !(amd64 || arm64)

package meter

// fmaLoop: the compiler makes no vector code, so a loop in Go would not tell what the machine can do.
func fmaLoop() (loop func(rounds int), how string, flops float64) { return nil, "", 0 }
