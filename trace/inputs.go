package trace

// Input is a tensor that another is computed from.
type Input struct {
	Tap   Tap
	Layer int // -1 at top level
	// History: rows of earlier tokens count too, not only the row of the same token.
	History bool
}

// inputTable lists for each tap the taps of the same layer it is computed from. stream stands for the residual
// stream that enters the layer: embed, or the layer before's out. A tap that exists in one kind of layer only is
// listed although this layer may lack it: Inputs leaves that to the reader, who knows what was recorded.
var inputTable = [NumTaps][]Tap{
	Embed: {InputIDs},

	InputNorm: {stream},

	GDNInProjQKV: {InputNorm}, GDNInProjZ: {InputNorm}, GDNInProjB: {InputNorm}, GDNInProjA: {InputNorm},
	GDNConvPreSilu: {GDNInProjQKV},
	GDNConvOut:     {GDNConvPreSilu},
	GDNQL2:         {GDNConvOut},
	GDNKL2:         {GDNConvOut},
	GDNV:           {GDNConvOut},
	GDNG:           {GDNInProjA},
	GDNBeta:        {GDNInProjB},
	GDNCoreOut:     {GDNQL2, GDNKL2, GDNV, GDNG, GDNBeta},
	GDNGatedNorm:   {GDNCoreOut, GDNInProjZ},
	GDNOutProj:     {GDNGatedNorm},

	AttnQProj: {InputNorm}, AttnKProj: {InputNorm}, AttnVProj: {InputNorm},
	AttnQNorm:      {AttnQProj},
	AttnKNorm:      {AttnKProj},
	AttnQRope:      {AttnQNorm},
	AttnKRope:      {AttnKNorm},
	AttnOutPreGate: {AttnQRope, AttnKRope, AttnVProj},
	AttnOutGated:   {AttnOutPreGate, AttnQProj},
	AttnOProj:      {AttnOutGated},

	AfterMixer:   {stream, GDNOutProj, AttnOProj},
	PostAttnNorm: {AfterMixer},

	MoERouterLogitsRaw:  {PostAttnNorm},
	MoERouterProbs:      {MoERouterLogitsRaw},
	MoETopKWeights:      {MoERouterProbs},
	MoETopKIndex:        {MoERouterProbs},
	MoEExpertsOut:       {PostAttnNorm, MoETopKWeights, MoETopKIndex},
	MoESharedOutUngated: {PostAttnNorm},
	MoESharedGateLogit:  {PostAttnNorm},

	MLPOut:   {PostAttnNorm, MoEExpertsOut, MoESharedOutUngated, MoESharedGateLogit},
	LayerOut: {AfterMixer, MLPOut},

	FinalNorm: {LayerOut},
	Logits:    {FinalNorm},

	CacheConvState:      {GDNInProjQKV},
	CacheRecurrentState: {GDNKL2, GDNV, GDNG, GDNBeta},
	CacheKey:            {AttnKRope},
	CacheValue:          {AttnVProj},
}

// stream is a stand-in in inputTable for the residual stream that enters a layer.
const stream = NumTaps

// looksBack says which taps see earlier tokens: the conv, the recurrence, attention, and the states they leave.
func (t Tap) looksBack() bool {
	return t == GDNConvPreSilu || t == GDNCoreOut || t == AttnOutPreGate || t.Cache()
}

// Inputs gives the nearest tensors that tap of layer is computed from and for which recorded is true: where a
// direct input is not there, its own inputs stand in for it, and so on back to the embedding. lastLayer is the
// model's last layer, which final_norm reads; exists says which layers have a tap (see Kinds). skipped counts the
// taps that were stepped over: how many steps of the math lie between. The order is not specified; there are no
// doubles.
func Inputs(tap Tap, layer, lastLayer int, exists, recorded func(Tap, int) bool) (inputs []Input, skipped int) {
	seen, over := map[Input]bool{}, map[Input]bool{}
	var walk func(t Tap, l int, history bool)
	walk = func(t Tap, l int, history bool) {
		history = history || t.looksBack()
		for _, from := range inputTable[t] {
			at := l
			switch {
			case from == stream && l <= 0: // below 0: final_norm of a trace without layers
				from, at = Embed, -1
			case from == stream:
				from, at = LayerOut, l-1
			case t == FinalNorm:
				at = lastLayer
			}
			if !from.PerLayer() {
				at = -1
			}
			in := Input{from, at, history}
			if seen[in] || !exists(from, at) {
				continue
			}
			seen[in] = true
			if recorded(from, at) {
				inputs = append(inputs, in)
			} else {
				over[Input{from, at, false}] = true
				walk(from, at, history)
			}
		}
	}
	if tap < NumTaps {
		walk(tap, layer, false)
	}
	return inputs, len(over)
}

// Kinds tells from the tensors of a trace, which holds no config, in which layers a tap exists: a layer that
// recorded a tap of one kind of mixer has none of the other, and a model that recorded no MoE tap is dense. Where
// nothing was recorded that tells, both mixers count as there.
func Kinds(list []TensorInfo) (exists func(Tap, int) bool) {
	kind := map[int]Where{}
	moe := false
	for _, t := range list {
		if t.Tap >= NumTaps {
			continue
		}
		switch w := t.Tap.Where(); w {
		case GDNLayer, AttnLayer:
			kind[t.Layer] = w
		case MoELayer:
			moe = true
		}
	}
	return func(t Tap, layer int) bool {
		switch w := t.Where(); w {
		case GDNLayer, AttnLayer:
			k, known := kind[layer]
			return !known || k == w
		case MoELayer:
			return moe
		}
		return true
	}
}
