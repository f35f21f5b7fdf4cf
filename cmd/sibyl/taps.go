package main

import (
	"io"
	"path"

	"sibyl/internal/inputerr"
	"sibyl/trace"
)

// Taps prints the one list of tap names.
type Taps struct {
	Globs []string `arg:"" optional:"" name:"GLOB" help:"Only names that match one of these, as in --taps: * and ? and [a-z]."`
	JSON
}

// Help is the part of the help below the flags.
func (*Taps) Help() string {
	return `Names as trace files, --taps and diff use them; N stands for a layer number.

Examples:

  sibyl taps
  sibyl taps 'layerN.gdn.*'
  sibyl taps --json 'cache.*'`
}

// tapInfo is one line of the list.
type tapInfo struct {
	Name    string `json:"name"`
	Where   string `json:"where"`
	DType   string `json:"dtype"`
	Shape   string `json:"shape"`
	Meaning string `json:"meaning"`
}

// Run prints the list.
func (v *Taps) Run(a *App) error {
	var list []tapInfo
	var names []string
	used := make([]bool, len(v.Globs))
	for t := range trace.NumTaps {
		names = append(names, t.String())
		keep := len(v.Globs) == 0
		for i, g := range v.Globs {
			long, err := path.Match(g, t.String())
			short, _ := path.Match(g, t.Short())
			if err != nil {
				return &inputerr.Error{File: "GLOB", Found: inputerr.Clip(g, 80), Want: "names with *, ? and [a-z]"}
			}
			if long || short {
				keep, used[i] = true, true
			}
		}
		if keep {
			list = append(list, tapInfo{t.String(), t.Where().String(), string(t.DType()), t.Axes(), t.Meaning()})
		}
	}
	for i, g := range v.Globs {
		if !used[i] {
			return &inputerr.Error{File: "GLOB", Found: inputerr.Clip(g, 80) + ", which matches no tap", Do: didYouMean(g, names)}
		}
	}
	return a.Emit(v.JSON.JSON, list, func(w io.Writer) error {
		rows := [][]string{{"name", "where", "dtype", "shape", "meaning"}}
		for _, t := range list {
			rows = append(rows, []string{t.Name, t.Where, t.DType, "[" + t.Shape + "]", t.Meaning})
		}
		return table(w, "", rows)
	})
}
