package faults

// Spared is a mistake of DESIGN section 10 that is not injected.
type Spared struct{ Mistake, Why string }

// SparedMistakes lists the mistakes of DESIGN section 10 that no fault here stands for, because they are outside of the decoder
// or are none. Faults whose Why is not empty cannot change a confident id either; they are injected to show it.
func SparedMistakes() []Spared {
	return []Spared{
		{"softmax after top-k", "equivalent to renormalising the chosen probabilities: no mistake"},
		{"scale computed on fp32 instead of fp16 weights", "a bf16 weight is an fp16 weight unless it is below 6.1e-5: the scales, and q, are the same bits"},
		{"pre-tokenizer without \\p{M}, NFC across added tokens, stream-safe NFC, whole-word vocabulary look-up", "outside of the decoder: REF and TEST are given the same ids. The tokenizer's goldens hold them"},
		{"vocabulary padding ids emitted", "needs a padded vocabulary: the tiny and demo models have no id that is not trained. Engines that show such an id differ from REF there, which is a DEFECT like any other id"},
	}
}
