package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"sibyl/precision"
	"sibyl/quant"
	"sibyl/trace"
)

// Completion prints a script that a shell loads; the script asks this program for the candidates, so they
// never age.
type Completion struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is the part of the help below the flags.
func (*Completion) Help() string {
	return `Load it from your shell's start file:

  bash:  source <(sibyl completion bash)
  zsh:   source <(sibyl completion zsh)
  fish:  sibyl completion fish | source

Examples:

  sibyl completion bash`
}

// Run prints the script.
func (v *Completion) Run(a *App) error {
	_, err := io.WriteString(a.Stdout, completionScripts[v.Shell])
	return err
}

// completeVerb is what the scripts call: "sibyl __complete WORD... CURRENT", each candidate on a line.
const completeVerb = "__complete"

// The bash script joins what bash splits at = : and @ again, and takes the part before the last of these off the
// candidates, since that is what bash keeps.
var completionScripts = map[string]string{
	"bash": `# bash completion for sibyl
_sibyl() {
    local line="${COMP_LINE:0:COMP_POINT}" word candidate
    local -a words
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    word="${words[${#words[@]}-1]}"
    local kept="${word%"${word##*[=:@]}"}"
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("${candidate#"$kept"}")
    done < <(sibyl __complete "${words[@]:1}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[:=] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F _sibyl sibyl
`,
	"zsh": `#compdef sibyl
_sibyl() {
    local -a candidates
    candidates=("${(@f)$(sibyl __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${candidates[1]}" ]]; then
        compadd -Q -a candidates
    else
        _files
    fi
}
if [[ "${funcstack[1]}" == "_sibyl" ]]; then _sibyl "$@"; else compdef _sibyl sibyl; fi
`,
	"fish": `# fish completion for sibyl
function __sibyl_complete
    set -l words (commandline -opc)
    sibyl __complete $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c sibyl -a '(__sibyl_complete)'
`,
}

// complete prints the candidates for the last of words; none means a file name, which the shell completes.
func (a *App) complete(words []string) error {
	if len(words) == 0 {
		return nil
	}
	current := words[len(words)-1]
	for _, c := range a.candidates(words[:len(words)-1], current) {
		if strings.HasPrefix(c, current) {
			if _, err := fmt.Fprintln(a.Stdout, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// candidates lists what could stand in the place of current, after the words before it.
func (a *App) candidates(before []string, current string) []string {
	var verb *kong.Node
	for _, w := range before {
		for _, n := range a.parser.Model.Children {
			if n.Name == w && verb == nil {
				verb = n
			}
		}
	}
	flags := a.parser.Model.Flags
	if verb != nil {
		flags = append(verb.Flags[:len(verb.Flags):len(verb.Flags)], flags...)
	}
	if len(before) > 0 {
		for _, f := range flags {
			if last := before[len(before)-1]; !f.IsBool() && (last == "--"+f.Name || f.Short != 0 && last == "-"+string(f.Short)) {
				return flagValues(f, "")
			}
		}
	}
	switch {
	case strings.HasPrefix(current, "-"):
		return flagCandidates(flags, current)
	case verb == nil:
		var names []string
		for _, n := range a.parser.Model.Children {
			names = append(names, n.Name)
		}
		return names
	case len(verb.Positional) > 0 && verb.Positional[0].Enum != "":
		return verb.Positional[0].EnumSlice()
	case verb.Name == "schemes":
		return append(quant.Names(), "recipe:")
	case verb.Name == "contracts":
		return append(precision.Names(), "contract:")
	case strings.Contains(current, "@"):
		return partCandidates(current)
	}
	return nil
}

// flagCandidates lists the flags, or the values of the flag current already names with an =.
func flagCandidates(flags []*kong.Flag, current string) []string {
	var out []string
	for _, f := range flags {
		if strings.HasPrefix(current, "--"+f.Name+"=") {
			return flagValues(f, "--"+f.Name+"=")
		}
		if !f.Hidden {
			out = append(out, "--"+f.Name)
		}
	}
	return out
}

// flagValues lists a flag's values, where they are words.
func flagValues(f *kong.Flag, prefix string) []string {
	values := f.EnumSlice()
	if f.Name == "taps" {
		for t := range trace.NumTaps {
			values = append(values, strings.Replace(t.String(), "layerN", "layer*", 1))
		}
	}
	if f.Name == "scheme" {
		values = append(quant.Names(), "recipe:")
	}
	var out []string
	for _, v := range values {
		if v != "" {
			out = append(out, prefix+v)
		}
	}
	return out
}

// partCandidates lists the parts of this build that could follow the last @ or comma of a subject.
func partCandidates(current string) []string {
	cut := strings.LastIndexAny(current, "@,") + 1
	var out []string
	for _, p := range partTable {
		if p.inBuild() {
			out = append(out, current[:cut]+p.name)
		}
	}
	return out
}
