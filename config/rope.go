package config

import (
	"fmt"
	"math"

	"sibyl/internal/inputerr"
	"sibyl/internal/strictjson"
)

// rope reads theta, the rotary share and the mRoPE sections. Each is looked for in rope_parameters, then in
// rope_scaling (transformers before 5), then in the text config itself. theta and the share have no default:
// transformers falls back to 10000, which is not this family's.
func (r *reader) rope(c *Config, t section) {
	places := []section{}
	for _, key := range []string{"rope_parameters", "rope_scaling"} {
		v, ok := t.m[key]
		switch {
		case !ok || v.kind == strictjson.Null:
		case v.kind == strictjson.Object:
			places = append(places, section{path: t.path + key + ".", m: v.obj})
		default:
			r.fail(t.path+key, v.String(), "an object", fromBase)
		}
	}
	places = append(places, t)
	find := func(key string) section {
		for _, p := range places {
			if p.has(key) {
				return p
			}
		}
		return section{path: t.path + "rope_parameters."}
	}
	r.ropeType(c, places[:len(places)-1])
	c.RopeTheta = r.float(find("rope_theta"), "rope_theta")
	if r.err == nil && !(c.RopeTheta > 1) {
		r.fail(find("rope_theta").path+"rope_theta", fmt.Sprint(c.RopeTheta), "a number above 1", fromBase)
	}
	share := r.float(find("partial_rotary_factor"), "partial_rotary_factor")
	dim := share * float64(c.HeadDim)
	if r.err == nil && !(dim >= 2 && dim <= float64(c.HeadDim) && math.Mod(dim, 2) == 0) {
		r.fail(find("partial_rotary_factor").path+"partial_rotary_factor", fmt.Sprint(share),
			fmt.Sprintf("a share of head_dim %d that is an even number of dimensions", c.HeadDim), fromBase)
	}
	if r.err == nil {
		c.RotaryDim = int(dim)
		r.sections(c, find("mrope_section"), find("mrope_interleaved"))
	}
}

// ropeType refuses scaled rope. "type" is the key's name of old, and "mrope" what the family's ancestors called
// unscaled rope with sections (transformers maps it to default).
func (r *reader) ropeType(c *Config, places []section) {
	named := false
	for _, p := range places {
		for _, key := range []string{"rope_type", "type"} {
			named = named || p.has(key)
			if kind := r.text(p, key, "default"); r.err == nil && kind != "default" && kind != "mrope" {
				r.fail(p.path+key, inputerr.Clip(kind, 60), `"default"`, "sibyl computes unscaled rope only; use the base model's config.json")
			}
		}
	}
	if !named {
		c.Assumed = append(c.Assumed, "rope_type")
	}
}

// sections reads mrope_section and mrope_interleaved.
func (r *reader) sections(c *Config, s, interleaved section) {
	half := c.RotaryDim / 2
	switch {
	case !s.has("mrope_section") && half == 32:
		c.MRopeSection = [3]int{11, 11, 10}
		c.Assumed = append(c.Assumed, "mrope_section")
	default:
		list := r.list(s, "mrope_section")
		if r.err == nil && len(list) != 3 {
			found := "nothing"
			if s.has("mrope_section") {
				found = fmt.Sprintf("%d entries", len(list))
			}
			r.fail(s.path+"mrope_section", found, "three counts (T, H, W)", fromBase)
			return
		}
		sum := 0
		for i, v := range list {
			n, ok := v.natural()
			if !ok || n > maxHeadDim {
				r.fail(fmt.Sprintf("%smrope_section[%d]", s.path, i), v.String(), fmt.Sprintf("a count of at most %d", half), fromBase)
				return
			}
			c.MRopeSection[i] = int(n)
			sum += int(n)
		}
		if r.err == nil && sum != half {
			r.fail(s.path+"mrope_section", fmt.Sprintf("%v, a sum of %d", c.MRopeSection, sum), fmt.Sprintf("a sum of %d, half the rotary dimensions", half), fromBase)
		}
	}
	c.MRopeInterleaved = r.bool(c, interleaved, "mrope_interleaved", false)
	if r.err == nil && !c.MRopeInterleaved {
		r.fail(interleaved.path+"mrope_interleaved", "false", "true", "the family's code interleaves whatever this says; set it to true")
	}
}
