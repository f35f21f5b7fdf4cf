package bench

import "sibyl/config"

// WorkOf counts what a model's matrices ask of one token: two operations a weight. Attention over the context, the delta
// rule, norms and gates are left out, so a share of the peak is a little too low, never too high. bytes is what the files
// say decoding one token must read.
func WorkOf(c *config.Config, bytes int64) Work {
	w := Work{Bytes: bytes, Head: 2 * float64(c.VocabSize) * float64(c.HiddenSize)}
	for _, kind := range c.Layers {
		for _, r := range c.LayerRoles(kind) {
			shape := r.Shape(c)
			n := 2.0
			switch r {
			case config.Conv1D, config.SharedExpertGate, config.ALog, config.DtBias:
				continue
			case config.ExpertsGateUp, config.ExpertsDown:
				n = 2 * float64(c.MoE.TopK)
				shape = shape[1:] // of one expert
			}
			if len(shape) < 2 { // a norm's gain
				continue
			}
			for _, d := range shape {
				n *= float64(d)
			}
			w.Body += n
		}
	}
	return w
}
