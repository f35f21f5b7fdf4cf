//go:build !linux

package coreai

import (
	"os/exec"
	"runtime"
)

// No worker for this system is in this build: the one for macOS, which reaches the GPU, comes behind the same protocol.

const platformNeeds = "Linux in this build"

func platformInstall() string { return "run it on Linux" }

func platformWorker(string) (*exec.Cmd, error) {
	return nil, &Failure{Code: NoWorker, Doing: "start", Msg: "this build has no worker for " + runtime.GOOS, Fatal: true,
		Do: "run it on Linux, where Apple's CPU runtime answers; the worker for macOS is not in this build yet"}
}
