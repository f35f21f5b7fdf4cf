package bundle

import (
	"testing"

	"sibyl/config"
	"sibyl/internal/demo"
)

// TestDemo opens the embedded model and holds what its README says of it.
func TestDemo(t *testing.T) {
	t.Parallel()
	c := mustOpen(t, "")
	if c.Name() != demo.Name || c.Config().NumLayers != 8 || c.Prefix() != "model.language_model." || len(c.Unused()) != 0 {
		t.Errorf("name %q, %d layers, prefix %q, %d unused; want %q, 8, the published prefix, 0", c.Name(), c.Config().NumLayers, c.Prefix(), len(c.Unused()), demo.Name)
	}
	head, err := c.Tensor(config.Head, 0)
	if err != nil {
		t.Fatal(err)
	}
	embed, err := c.Tensor(config.Embed, 0)
	if err != nil {
		t.Fatal(err)
	}
	if &head.Data[0] != &embed.Data[0] {
		t.Error("the head of a tied model is not the embedding's bytes")
	}
	aLog, err := c.Tensor(config.ALog, 0)
	if err != nil || aLog.DType != F32 {
		t.Errorf("A_log is %s (%v), want F32 as README.txt says", aLog.DType, err)
	}
	params := 0
	if err := c.each(func(_ string, d DType, _ []int, parts []Tensor) error {
		for _, p := range parts {
			params += len(p.Data) / d.Size()
		}
		return nil
	}); err != nil || params != 2419360 {
		t.Errorf("%d parameters (%v), want 2,419,360 as README.txt says", params, err)
	}
	if bad, err := c.NonFinite(t.Context(), nil); err != nil || len(bad) != 0 {
		t.Errorf("NonFinite = %v, %v, want none", bad, err)
	}
}
