package main

import (
	"fmt"
	"io"
	"strings"

	"sibyl/trace"
)

// traceInspection is what --json prints for a trace file.
type traceInspection struct {
	File     string            `json:"file"`
	Tokens   int               `json:"tokens"`
	Metadata map[string]string `json:"metadata"`
	DataOK   bool              `json:"data_sha256_matches"`
	Tensors  []traceTensor     `json:"tensors"`
}

// traceTensor is one tensor of a trace.
type traceTensor struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
}

// inspectTrace shows a trace file, and whether its data still has the hash its header says.
func inspectTrace(a *App, path string, asJSON, every bool) (err error) {
	f, err := trace.Open(path, "")
	if err != nil {
		return err
	}
	defer closing(f, &err)
	r := traceInspection{File: path, Tokens: len(f.IDs()), Metadata: map[string]string{}}
	rows := [][]string{{"file", path}, {"tokens", countText(int64(r.Tokens))}}
	if m := f.Meta(); m != nil {
		for _, kv := range [][2]string{
			{"sibyl_version", m.SibylVersion}, {"subject", m.Subject}, {"engine", m.Engine}, {"contract", m.Contract},
			{"scheme", m.Scheme}, {"mode", m.Mode}, {"delta", m.Delta}, {"path", m.Path}, {"threads", fmt.Sprint(m.Threads)},
			{"past", fmt.Sprint(m.Past)}, {"config_sha256", m.ConfigSHA256}, {"weights_sha256", m.WeightsSHA256}, {"data_sha256", m.DataSHA256},
		} {
			r.Metadata[kv[0]] = kv[1]
			if kv[1] != "" {
				rows = append(rows, []string{strings.ReplaceAll(kv[0], "_", " "), kv[1]})
			}
		}
	}
	for _, t := range f.Tensors() {
		r.Tensors = append(r.Tensors, traceTensor{t.Name, string(t.DType), t.Shape})
	}
	verdict := f.Verify()
	r.DataOK = verdict == nil
	err = a.Emit(asJSON, r, func(w io.Writer) error {
		if err := table(w, "", rows); err != nil {
			return err
		}
		state := "the data has the hash the header says"
		if verdict != nil {
			state = verdict.Error()
		}
		if _, err := fmt.Fprintf(w, "\n%s\n%s\n", state, plural(len(r.Tensors), "tensor", "tensors")); err != nil || !every {
			return err
		}
		list := [][]string{{"tensor", "dtype", "shape"}}
		for _, t := range r.Tensors {
			list = append(list, []string{t.Name, t.DType, shapeText(t.Shape)})
		}
		return table(w, "", list)
	})
	if err == nil && verdict != nil {
		err = statusError(exitMismatch)
	}
	return err
}
