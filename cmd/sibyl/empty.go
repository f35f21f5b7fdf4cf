package main

import (
	"reflect"

	"github.com/alecthomas/kong"

	"sibyl/internal/inputerr"
)

// refuseEmpty refuses flags and arguments that are given and empty, unless tagged empty:"ok": a script whose
// variable is unset would otherwise be answered about the demo model, or write nothing.
func refuseEmpty(parsed *kong.Context) error {
	for _, p := range parsed.Path {
		var v *kong.Value
		var name string
		switch {
		case p.Flag != nil:
			v, name = p.Flag.Value, "--"+p.Flag.Name
		case p.Positional != nil:
			v, name = p.Positional, p.Positional.Name
		}
		if v != nil && !v.Tag.Has("empty") && isEmpty(v.Target) {
			return emptyArgument(name)
		}
	}
	return nil
}

// isEmpty says whether v is an empty text, or a list without an element or with an empty one.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		return v.Len() == 0
	case reflect.Slice:
		for i := range v.Len() {
			if isEmpty(v.Index(i)) {
				return true
			}
		}
		return v.Len() == 0
	}
	return false
}

// emptyArgument is what refuses an empty argument.
func emptyArgument(name string) error {
	return &inputerr.Error{File: name, Found: "an empty argument", Want: "a value, or nothing at all", Do: "is a variable unset?"}
}
