// Command sibyl says whether a converted Qwen3.5-family model still says what the original says, and where and
// why it does not. One file per verb; app.go holds everything that touches the process: the environment, the
// terminal, signals and exit codes.
package main

import "os"

func main() {
	os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
