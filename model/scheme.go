package model

import (
	"fmt"
	"strings"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/inputerr"
	"sibyl/internal/kernels"
	"sibyl/internal/near"
	"sibyl/quant"
)

// recipePrefix marks a scheme that a user wrote: "recipe:FILE".
const recipePrefix = "recipe:"

// LookupScheme gives a scheme by its name, or reads recipe:FILE. Bad input gives an *inputerr.Error.
func LookupScheme(name string) (*quant.Scheme, error) {
	if file, ok := strings.CutPrefix(name, recipePrefix); ok {
		return quant.LoadRecipe(file)
	}
	if s, ok := quant.Lookup(name); ok {
		return s, nil
	}
	return nil, &inputerr.Error{File: "scheme " + inputerr.Clip(name, 60), Found: "an unknown name",
		Want: "one of " + strings.Join(quant.Names(), ", ") + ", or recipe:FILE", Do: near.DidYouMean(name, quant.Names())}
}

// useScheme makes the plan read src's weights as the scheme would leave them; "" and "stored" leave them as they are. A
// tied head that the scheme keeps apart is read by the head's own spec from the embedding's bytes: no copy is made.
func (p *Plan) useScheme(src bundle.Source, name string) error {
	if name == "" || name == "stored" {
		return nil
	}
	s, err := LookupScheme(name)
	if err != nil {
		return err
	}
	a, err := s.AssignTo(src)
	if err != nil {
		return err
	}
	p.scheme = s.Label()
	p.View = func(at Place, r config.Role, m *kernels.Matrix) (*kernels.Matrix, error) {
		return a.View(max(at.Layer, 0), r, m)
	}
	return nil
}

// subject is the engine's spec in the command line's syntax, and the scheme it shows: label is that of the scheme asked
// for; if none was, that of a quantized checkpoint or of a bundle.
func subject(src bundle.Source, contract, mode, scheme, label, model string) (text, shown string) {
	text = fmt.Sprintf("%s@cpu,%s", model, contract)
	if mode != "" {
		text += "," + mode
	}
	if scheme != "" && scheme != "stored" {
		return text + "," + scheme, label
	}
	return text, SchemeOf(src)
}

// SchemeOf names how a model's weights are stored: by a scheme's name, by what the bytes are where no named scheme is
// meant, or "stored" for a checkpoint's or a bundle's own plain weights.
func SchemeOf(src bundle.Source) string {
	if shipped, ok := src.(*bundle.Shipped); ok {
		if name := quant.NameOf(shipped); name != "" {
			return name
		}
	}
	if q := src.Quantization(); q != nil {
		return q.Scheme
	}
	return "stored"
}
