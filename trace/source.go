package trace

// Source is one recorded sequence, in memory or in a file, that can be read in blocks.
type Source interface {
	// Label names it for people: a path, or a subject.
	Label() string
	// IDs are the tokens that were run.
	IDs() []int32
	// Tensors lists what it holds, in the order of the math, then greedy.ids and greedy.top2_margin if present.
	Tensors() []TensorInfo
	// Read copies len(dst) elements of a tensor, row-major from element off, as float32. Ids and expert numbers
	// are below 2^24 and so exact. Reading beyond the end or an unknown name is an error.
	Read(name string, off int, dst []float32) error
}

// TensorInfo describes one tensor of a Source.
type TensorInfo struct {
	Name  string
	Tap   Tap // NumTaps for greedy.ids and greedy.top2_margin
	Layer int // -1 at top level
	DType DType
	// Shape is row-major. A Recorder that knows no config gives [T, width] for tensors of more axes, and [size]
	// for states.
	Shape []int
}

// Len is the number of elements.
func (t TensorInfo) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// PerToken says whether the first axis is the token.
func (t TensorInfo) PerToken() bool { return t.Tap == OpResult || t.Tap < NumTaps && !t.Tap.Cache() }

// The tensors that `sibyl trace --greedy N` adds to a trace: references for a rollout, not taps.
const (
	GreedyIDs    = "greedy.ids"         // I32 [N]: the ids chosen after the prompt
	GreedyMargin = "greedy.top2_margin" // F32 [N]: the gap between the two largest logits at each choice
)
