package bundle

import (
	"testing"

	"sibyl/config"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	c, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h, err := c.WeightsSHA256(t.Context(), nil)
	if err != nil || len(h) != 64 {
		t.Fatal(h, err)
	}
	head, err := c.Tensor(config.Head, 0)
	embed, err2 := c.Tensor(config.Embed, 0)
	if err != nil || err2 != nil || &head.Data[0] != &embed.Data[0] {
		t.Errorf("a tied head must be the embedding's bytes (%v, %v)", err, err2)
	}
	s := c.Sizes()
	t.Logf("%+v %d %s", s, s.Total(), h)
}
