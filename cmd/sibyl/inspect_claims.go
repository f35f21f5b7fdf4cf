package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// dtypesText lists dtypes, the one with the most bytes first.
func dtypesText(dtypes map[string]int) string {
	names := slices.Sorted(maps.Keys(dtypes))
	slices.SortStableFunc(names, func(a, b string) int { return dtypes[b] - dtypes[a] })
	return strings.Join(names, ", ")
}

// knownUnused says whether a tensor belongs to a part of the family that is not the text model.
func knownUnused(name string) bool {
	for _, prefix := range []string{"model.visual.", "visual.", "mtp.", "model.mtp."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

var (
	nameSize  = regexp.MustCompile(`(?i)(?:^|[-_])(\d+(?:\.\d+)?)b(?:$|[-_])`)
	nameDType = regexp.MustCompile(`(?i)(?:^|[-_.])(fp32|f32|fp16|f16|bf16|fp8|int8|int4|gptq|awq)(?:$|[-_.])`)
)

// nameClaims holds the size and the dtype in a model's name against what is stored. A size within a factor of two
// is right: names round, and leave out or count the embedding.
func nameClaims(name string, parameters int64, dtypes map[string]int) (out []string) {
	if m := nameSize.FindStringSubmatch(name); m != nil {
		claim, _ := strconv.ParseFloat(m[1], 64) // the pattern is a number
		if have := float64(parameters) / 1e9; have > 2*claim || have < claim/2 {
			out = append(out, fmt.Sprintf("the name says %sB, the weights are %.3g billion", m[1], have))
		}
	}
	if m := nameDType.FindStringSubmatch(name); m != nil {
		claim := strings.ToUpper(strings.TrimPrefix(strings.ToLower(m[1]), "fp"))
		switch claim {
		case "INT8":
			claim = "I8"
		case "INT4":
			if claim = "I4"; strings.HasPrefix(dtypesText(dtypes), "U4") {
				claim = "U4"
			}
		}
		if claim == "32" || claim == "16" || claim == "8" {
			claim = "F" + claim
		}
		if !strings.HasPrefix(dtypesText(dtypes), claim) {
			out = append(out, fmt.Sprintf("the name says %s, the weights are %s", m[1], dtypesText(dtypes)))
		}
	}
	return out
}
