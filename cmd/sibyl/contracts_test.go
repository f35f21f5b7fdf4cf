package main

import (
	"slices"
	"testing"

	"sibyl/precision"
)

// TestEveryContractIsAPart: what `sibyl contracts` prints can stand behind an @.
func TestEveryContractIsAPart(t *testing.T) {
	t.Parallel()
	for _, name := range precision.Names() {
		s, err := ParseSubject("m@"+name, func(string) bool { return false })
		if err != nil || s.Contract != name || s.missing() != nil {
			t.Errorf("@%s: %+v, %v, %v", name, s, err, s.missing())
		}
		if !slices.Contains(partNames(), name) {
			t.Errorf("%s is not among the names that errors list", name)
		}
	}
}

// TestContractsDoc: its table is the program's.
func TestContractsDoc(t *testing.T) {
	t.Parallel()
	checkDoc(t, "contracts.md", 3)
}
