package kernels

import (
	"fmt"
	"strings"

	"sibyl/internal/inputerr"
)

// Level is a set of instructions that variants of kernels are written in. NoAsm is the portable Go definition, which
// every kernel has.
type Level uint8

// The levels; which of them a process can use depends on the machine and the build (Levels).
const (
	NoAsm  Level = iota
	AVX2         // amd64 with AVX2, FMA and F16C
	AVX512       // amd64 with AVX-512 F, BW, DQ and VL besides; a kernel that gains nothing by it has its AVX2 variant here too
	NEON         // arm64
	numLevels
)

var levelNames = [numLevels]string{"noasm", "avx2", "avx512", "neon"}

// String is the level as SIBYL_CPU names it.
func (l Level) String() string { return levelNames[l] }

// feature is one thing a level needs, and whether this machine has it.
type feature struct {
	name string
	has  bool
}

// kernel is one operation: its portable definition, its variants, and the one in use. F is a function type.
type kernel[F any] struct {
	name     string
	variants [numLevels]*F // [NoAsm] is the definition
	run      F
	taken    func(F) // told whenever run changes, if set
}

// selectable is what the registry sees of a kernel.
type selectable interface {
	use(Level)
	list() (name string, levels []Level)
}

var (
	registry []selectable
	active   Level
)

// define makes a kernel of its portable definition.
func define[F any](name string, def F) *kernel[F] {
	k := &kernel[F]{name: name, run: def}
	k.variants[NoAsm] = &def
	registry = append(registry, k)
	return k
}

// add registers a variant. It is taken where the machine can run it, until Use says otherwise.
func (k *kernel[F]) add(l Level, f F) {
	if k.variants[l] != nil {
		panic(fmt.Sprintf("kernels: %s has two variants for %v", k.name, l))
	}
	k.variants[l] = &f
	k.use(best())
}

// below is the level whose variants serve where a kernel has none of its own: what runs the one runs the other.
var below = [numLevels]Level{AVX512: AVX2}

// use takes the variant of level l, or of the next level below that has one; the definition is always there.
func (k *kernel[F]) use(l Level) {
	for k.variants[l] == nil {
		l = below[l]
	}
	k.run = *k.variants[l]
	if k.taken != nil {
		k.taken(k.run)
	}
}

func (k *kernel[F]) list() (string, []Level) {
	var levels []Level
	for l, f := range k.variants {
		if f != nil {
			levels = append(levels, Level(l))
		}
	}
	return k.name, levels
}

// usable says whether this build holds kernels of level l and this machine runs them.
func usable(l Level) bool {
	for _, f := range needs[l] {
		if !f.has {
			return false
		}
	}
	return l == NoAsm || len(needs[l]) > 0
}

// Levels are those that Use accepts here, the best last.
func Levels() []Level {
	var out []Level
	for l := NoAsm; l < numLevels; l++ {
		if usable(l) {
			out = append(out, l)
		}
	}
	return out
}

func best() Level {
	all := Levels()
	return all[len(all)-1]
}

// Active is the level in use.
func Active() Level { return active }

// asksAhead says that this processor reads long streams best with lines asked for ahead: then products go by rowsKernel.ahead
// where there is one, not by fast or tall. Those long enough for tall are then summed in another order. Tests set it.
var asksAhead bool

// InUse is what fast results depend on: the level, and whether this processor's rows ask ahead.
func InUse() string {
	if asksAhead && (active == AVX2 || active == AVX512) {
		return active.String() + ", reading ahead"
	}
	return active.String()
}

func init() { active = best() }

// Use chooses the kernels of all later calls: "" the best this machine runs, or one of the names of Levels. It must
// not run beside a computation. Results of the exact arithmetic do not depend on it.
func Use(name string) error {
	l, err := chooseLevel(name)
	if err != nil {
		return err
	}
	active = l
	for _, k := range registry {
		k.use(l)
	}
	return nil
}

func chooseLevel(name string) (Level, error) {
	if name == "" {
		return best(), nil
	}
	var have []string
	for _, l := range Levels() {
		if have = append(have, l.String()); l.String() == name {
			return l, nil
		}
	}
	do := "leave it empty for " + best().String() + ", or choose " + strings.Join(have, " or ")
	for l := NoAsm; l < numLevels; l++ {
		if l.String() == name {
			return 0, &inputerr.Error{File: "SIBYL_CPU", Field: name, Found: missing(l), Want: levelWants[l], Do: do}
		}
	}
	return 0, &inputerr.Error{File: "SIBYL_CPU", Found: inputerr.Clip(name, 80), Want: strings.Join(levelNames[:], ", "), Do: do}
}

// levelWants says what each level takes.
var levelWants = [numLevels]string{
	AVX2:   "an amd64 processor with avx2, fma and f16c, and a build with assembly",
	AVX512: "an amd64 processor with avx512f, avx512bw, avx512dq and avx512vl besides avx2, fma and f16c, and a build with assembly",
	NEON:   "an arm64 processor and a build with assembly",
}

// missing names the features that keep this process from using l.
func missing(l Level) string {
	if len(needs[l]) == 0 {
		return "a build without such kernels (" + buildName + ")"
	}
	var names []string
	for _, f := range needs[l] {
		if !f.has {
			names = append(names, f.name)
		}
	}
	return "a processor without " + strings.Join(names, ", ")
}
