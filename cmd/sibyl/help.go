package main

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kong"

	"sibyl/internal/kernels"
)

// about heads the help.
const about = `A numerics workbench for the Qwen3.5 decoder family: does a converted model still say
what the original says, and if not, where and why?

A SUBJECT is [MODEL][@part,part...]. MODEL is a checkpoint folder, a Hugging Face id in the
local cache (org/name), or nothing: the demo model inside this program. Parts choose an engine
(cpu, fp64), its arithmetic (exact, fast), a contract and a scheme (sibyl contracts and sibyl
schemes list them). Try:

  sibyl gate                      is the fast arithmetic faithful, on the demo model?
  sibyl run "The rays of light"   let the demo model go on

SIBYL_THREADS, SIBYL_MEMORY_LIMIT, SIBYL_QUIET and SIBYL_JSON in the environment stand for the flags
of these names, which win over them; no other flag can be set there. SIBYL_CPU chooses the CPU
kernels: noasm, avx2, avx512 or neon; empty means the best this machine runs (--version names it).
Exit codes: 0 ok, 1 mismatch, 2 usage or bad input, 3 inconclusive, 130 interrupted (Ctrl-C),
143 terminated. A second signal ends the program at once.`

// version is the release; versionText adds the commit when the build knows it.
const version = "0.1.0"

// versionText is what --version prints: "sibyl 0.1.0 (1a2b3c4d, go1.26.8 linux/amd64, avx2)", with what
// fast results depend on last.
func versionText() string {
	parts := []string{}
	if commit := buildCommit(); commit != "" {
		parts = append(parts, commit)
	}
	parts = append(parts, fmt.Sprintf("%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH), kernels.InUse())
	return fmt.Sprintf("sibyl %s (%s)", version, strings.Join(parts, ", "))
}

// buildCommit is the commit this was built from, "" if the build was not told; "+" marks local changes.
func buildCommit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(8, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+"
		}
	}
	if commit == "" {
		return ""
	}
	return commit + dirty
}

// helpText is a flag's help without its environment variable: the rule is said once, in about.
func helpText(v *kong.Value) string { return v.Help }

// laterVerbs are in the design and not in this build: typing one is not a spelling mistake.
var laterVerbs = []string{"bisect", "sweep", "doctor", "report", "serve", "patch"}

// usage makes kong's error one of ours: what was typed, the near words, and which help to ask for.
func (a *App) usage(args []string, err error) error {
	// Every short flag is two edits from every other: kong's guess at these is noise.
	if head, _, ok := strings.Cut(err.Error(), ", did you mean"); ok && !strings.Contains(head, "--") && strings.HasPrefix(head, "unknown flag") {
		err = errors.New(head)
	}
	verb := ""
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			verb = arg
			break
		}
	}
	for _, later := range laterVerbs {
		if verb == later {
			return &usageError{fmt.Errorf("the verb %q is not in this build yet", verb)}
		}
	}
	var names []string
	for _, n := range a.parser.Model.Children {
		if n.Name == verb {
			return &usageError{fmt.Errorf("%s: %w", verb, err)}
		}
		names = append(names, n.Name)
	}
	if verb == "version" {
		return &usageError{errors.New(`no verb "version"; did you mean --version?`)}
	}
	if verb != "" && strings.HasPrefix(err.Error(), "unexpected argument") {
		return &usageError{fmt.Errorf("no verb %q; %s", verb, didYouMean(verb, names))}
	}
	return &usageError{err}
}
