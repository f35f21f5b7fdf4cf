package coreai

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The Linux worker: a script that drives coreai.runtime in the user's Python. This file and the script are all that
// knows either.

//go:embed runtime_linux.py
var script []byte

// pythonVariable names the interpreter; python3 from PATH if it is not set.
const pythonVariable = "SIBYL_COREAI_PYTHON"

// platformNeeds says what the worker needs of this machine.
const platformNeeds = "Python 3.11 to 3.14 with coreai-core " + RuntimeVersion + " (" + pythonVariable + ", else python3)"

func python() string {
	if p := os.Getenv(pythonVariable); p != "" {
		return p
	}
	return "python3"
}

// platformInstall is the one command that installs what is missing.
func platformInstall() string {
	return fmt.Sprintf("%s -m pip install coreai-core==%s", python(), RuntimeVersion)
}

// platformWorker starts the script. Its temporary files, which the runtime leaves behind when it is killed, go to
// scratch.
func platformWorker(scratch string) (*exec.Cmd, error) {
	path, err := exec.LookPath(python())
	if err != nil {
		return nil, &Failure{Code: NoWorker, Doing: "start", Msg: err.Error(), Fatal: true,
			Do: "install Python 3.11 to 3.14, or name one in " + pythonVariable + "; then PYTHON -m pip install coreai-core==" + RuntimeVersion}
	}
	file := filepath.Join(scratch, "sibyl_coreai_worker.py")
	if err := os.WriteFile(file, script, 0o600); err != nil {
		return nil, err
	}
	// -B: no __pycache__; -u: no buffers between the pipe and us.
	cmd := exec.Command(path, "-B", "-u", file)
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch, "PYTHONIOENCODING=utf-8")
	return cmd, nil
}
