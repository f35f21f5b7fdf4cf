package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/internal/strictjson"
)

// maxList bounds a list in config.json that is kept; layer_types is the longest.
const maxList = 1 << 12

// value is a JSON value that may matter: a scalar, a list of scalars, or an object of such.
type value struct {
	kind strictjson.Kind
	text string // the string, or the number, bool or NaN as written
	list []value
	obj  map[string]value
}

// String shows the value as JSON, shortened.
func (v value) String() string {
	switch v.kind {
	case strictjson.String:
		return inputerr.Clip(v.text, 60)
	case strictjson.Array:
		if len(v.list) > 8 {
			return fmt.Sprintf("a list of %d", len(v.list))
		}
		parts := make([]string, len(v.list))
		for i, e := range v.list {
			parts[i] = e.String()
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case strictjson.Object:
		return "an object"
	}
	if len(v.text) > 60 {
		return v.text[:60] + "..."
	}
	return v.text
}

// natural gives a number that is written as a natural number.
func (v value) natural() (uint64, bool) {
	if v.kind != strictjson.Number {
		return 0, false
	}
	n, err := strconv.ParseUint(v.text, 10, 63)
	return n, err == nil
}

// section is an object and its path in the file ("text_config.").
type section struct {
	path string
	m    map[string]value
}

// has says whether the key is there with a value; null is none.
func (s section) has(key string) bool {
	v, ok := s.m[key]
	return ok && v.kind != strictjson.Null
}

// known are the keys that are kept, at any depth; all others are checked as JSON and passed over.
var known = func() map[string]bool {
	m := map[string]bool{}
	for _, key := range strings.Fields(`model_type architectures text_config tie_word_embeddings eos_token_id
		quantization_config quant_method quantization hidden_size num_hidden_layers vocab_size max_position_embeddings rms_norm_eps
		num_attention_heads num_key_value_heads head_dim linear_num_key_heads linear_num_value_heads
		linear_key_head_dim linear_value_head_dim linear_conv_kernel_dim intermediate_size num_experts
		num_experts_per_tok moe_intermediate_size shared_expert_intermediate_size layer_types
		full_attention_interval rope_parameters rope_scaling rope_theta rope_type type partial_rotary_factor
		mrope_section mrope_interleaved`) {
		m[key] = true
	}
	for _, f := range fixed {
		m[f.key] = true
	}
	return m
}()

// parseRoot reads the file into the known part of its tree.
func parseRoot(file string, data []byte) (section, error) {
	s, err := strictjson.New(data)
	var v value
	if err == nil {
		v, err = parseValue(s, "", 0)
	}
	if err == nil && v.kind != strictjson.Object {
		err = &strictjson.Error{Found: v.kind.String(), Want: "an object"}
	}
	if err == nil {
		err = s.End()
	}
	var at *strictjson.Error
	var in *inputerr.Error
	switch {
	case errors.As(err, &at):
		return section{}, &inputerr.Error{File: file, Field: fmt.Sprintf("byte %d", at.Offset), Found: at.Found, Want: at.Want, Do: "this is not JSON as a config.json has it; download the file again"}
	case errors.As(err, &in):
		in.File = file
	}
	return section{m: v.obj}, err
}

// parseValue reads the next value; path names it in errors that are about the value rather than the text.
func parseValue(s *strictjson.Scanner, path string, depth int) (v value, err error) {
	v.kind = s.Kind()
	switch v.kind {
	case strictjson.Object:
		v.obj = map[string]value{}
		return v, s.Object(func(key string) (err error) {
			field := strings.TrimPrefix(path+"."+key, ".")
			if s.Kind() == strictjson.NonFinite || known[key] && depth < 3 {
				v.obj[key], err = parseValue(s, field, depth+1)
				return err
			}
			return s.Skip()
		})
	case strictjson.Array:
		return v, s.Array(func(i int) error {
			if i == maxList {
				return &inputerr.Error{Field: path, Found: fmt.Sprintf("more than %d entries", maxList), Want: "fewer", Do: "is this a config.json?"}
			}
			if k := s.Kind(); k == strictjson.Array || k == strictjson.Object {
				v.list = append(v.list, value{kind: k})
				return s.Skip()
			}
			e, err := parseValue(s, fmt.Sprintf("%s[%d]", path, i), depth+1)
			v.list = append(v.list, e)
			return err
		})
	case strictjson.String:
		v.text, err = s.String()
	case strictjson.Number:
		v.text, err = s.Number()
	case strictjson.Bool:
		var b bool
		b, err = s.Bool()
		v.text = strconv.FormatBool(b)
	case strictjson.Null:
		v.text, err = "null", s.Null()
	case strictjson.NonFinite:
		if v.text, err = s.NonFinite(); err == nil {
			err = &inputerr.Error{Field: path, Found: v.text, Want: "a finite number", Do: fromBase}
		}
	default:
		err = s.Skip() // says what is there instead of a value
	}
	return v, err
}

// reader asks sections for values and keeps the first error; after it every answer is zero.
type reader struct {
	file string
	err  error
}

// fail records the first error and returns it.
func (r *reader) fail(field, found, want, do string) error {
	if r.err == nil {
		r.err = &inputerr.Error{File: r.file, Field: field, Found: found, Want: want, Do: do}
	}
	return r.err
}

// get finds a value that must be there.
func (r *reader) get(s section, key, want string) (value, bool) {
	if r.err == nil && !s.has(key) {
		found := "nothing"
		if _, null := s.m[key]; null {
			found = "null"
		}
		r.fail(s.path+key, found, want, fromBase)
	}
	return s.m[key], r.err == nil
}

// count reads a whole number of 1 to limit.
func (r *reader) count(s section, key string, limit int) int {
	want := fmt.Sprintf("a whole number of 1 to %d", limit)
	v, ok := r.get(s, key, want)
	if !ok {
		return 1 // never used: r.err is set. Not 0, so that nothing divides by it on the way out.
	}
	n, ok := v.natural()
	if !ok || n < 1 || n > uint64(limit) {
		r.fail(s.path+key, v.String(), want, fromBase)
		return 1
	}
	return int(n)
}

// float reads a finite number.
func (r *reader) float(s section, key string) float64 {
	v, ok := r.get(s, key, "a number > 0")
	if !ok {
		return 0
	}
	x, err := strconv.ParseFloat(v.text, 64)
	if v.kind != strictjson.Number || err != nil || math.IsInf(x, 0) {
		r.fail(s.path+key, v.String(), "a number > 0", fromBase)
	}
	return x
}

// text reads a string; absent or null gives otherwise, and where that is empty too it is an error.
func (r *reader) text(s section, key, otherwise string) string {
	if otherwise != "" && !s.has(key) {
		return otherwise
	}
	v, ok := r.get(s, key, "a string")
	if ok && v.kind != strictjson.String {
		r.fail(s.path+key, v.String(), "a string", fromBase)
	}
	return v.text
}

// bool reads a key that Exceptions lists: its absence is noted in c.Assumed, unless quiet.
func (r *reader) bool(c *Config, s section, key string, quiet bool) bool {
	if !s.has(key) {
		assumed := ""
		for _, e := range Exceptions {
			if e.Key == key {
				assumed = e.Assumed
			}
		}
		if !quiet {
			c.Assumed = append(c.Assumed, key)
		}
		return assumed == "true"
	}
	v := s.m[key]
	if v.kind != strictjson.Bool {
		r.fail(s.path+key, v.String(), "true or false", fromBase)
	}
	return v.text == "true"
}

// list reads a list; absent or null is an empty one.
func (r *reader) list(s section, key string) []value {
	if !s.has(key) {
		return nil
	}
	v := s.m[key]
	if v.kind != strictjson.Array {
		r.fail(s.path+key, v.String(), "a list", fromBase)
	}
	return v.list
}
