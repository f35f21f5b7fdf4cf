package oracle

// PromptText is a prompt before it is tokenized. Special tokens in it ("<|im_start|>") are meant as such.
type PromptText struct {
	Name string
	Text string
}

// DemoPrompts are what the gate asks of the embedded demo model when nothing else is given: openings in the
// manner of the three books it was trained on, and one turn of the ChatML it saw. They are short, so that the
// whole gate takes seconds, and six of those whose greedy continuations Hugging Face recorded (opticks-2m's golden.json).
func DemoPrompts() []PromptText {
	return []PromptText{
		{"rays", "The Rays of Light"},
		{"colours", "The Colours of natural Bodies"},
		{"prop", "PROP. II. THEOR. II.\n\n"},
		{"watson", "\"My dear Watson,\" said Holmes,"},
		{"huck", "Tom and Huck"},
		{"chatml", "<|im_start|>user\nWhat is the cause of Colours?<|im_end|>\n<|im_start|>assistant\n"},
	}
}
