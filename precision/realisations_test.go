package precision

import "testing"

// TestRealisations: each is a contract of this build, another one than the one it stands for, and computed by the
// same arithmetic; a contract with an arithmetic of its own has none.
func TestRealisations(t *testing.T) {
	t.Parallel()
	for name := range realisations {
		c, err := Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{name: true}
		for _, other := range Realisations(name) {
			o, err := Lookup(other)
			if err != nil || seen[other] {
				t.Errorf("%s: realisation %s: %v, or twice", name, other, err)
				continue
			}
			seen[other] = true
			if o.Arithmetic != "" || c.Arithmetic != "" || o.Weights != c.Weights || o.KV != c.KV {
				t.Errorf("%s: %s has another arithmetic, or other types of weights or caches", name, other)
			}
		}
	}
	if Realisations("hf-fp32") != nil || Realisations("coreai-cpu") != nil {
		t.Error("hf-fp32 and coreai-cpu stand for themselves alone")
	}
}
