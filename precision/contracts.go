package precision

import (
	"fmt"
	"slices"
)

// HFFP32 is the oracle: stored weights upcast exactly, every named operation to float32.
var HFFP32 = &Contract{
	Name:    "hf-fp32",
	Meaning: "the oracle: stored weights upcast exactly, every operation in float32",
	L2Eps:   1e-6,
}

var named = []*Contract{HFFP32}

// Names lists the contracts of this build in the order they are explained.
func Names() []string {
	var out []string
	for _, c := range named {
		out = append(out, c.Name)
	}
	return out
}

// Lookup gives a named contract.
func Lookup(name string) (*Contract, error) {
	i := slices.IndexFunc(named, func(c *Contract) bool { return c.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("contract %q is not in this build; it has %v", name, Names())
	}
	return named[i], nil
}
