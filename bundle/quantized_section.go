package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/internal/safetensors"
	"sibyl/internal/strictjson"
)

// parseQuantization reads the section; nil if config.json has none, or one of another method, which config refuses.
func parseQuantization(file string, config []byte) (*Quantization, error) {
	s, err := strictjson.New(config)
	if err != nil {
		return nil, nil // config's to tell
	}
	p := &sectionParser{s: s, file: file}
	err = s.Object(func(key string) error {
		if key != "quantization_config" || s.Kind() != strictjson.Object {
			return s.Skip()
		}
		return p.section()
	})
	if !p.ours {
		return nil, nil
	}
	var at *strictjson.Error
	if errors.As(err, &at) {
		return nil, p.fault(fmt.Sprintf("byte %d", at.Offset), at.Found, at.Want)
	}
	if err != nil {
		return nil, err
	}
	if p.version != quantVersion {
		return nil, p.fault("version", fmt.Sprint(p.version), fmt.Sprint(quantVersion))
	}
	if p.q.Scheme == "" || !p.tensors {
		return nil, p.fault("scheme, tensors", "nothing", "a scheme and its quantized tensors")
	}
	slices.SortFunc(p.q.Tensors, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	return &p.q, nil
}

type sectionParser struct {
	s       *strictjson.Scanner
	file    string
	q       Quantization
	ours    bool
	tensors bool
	version uint64
}

func (p *sectionParser) fault(field, found, want string) error {
	return &inputerr.Error{File: p.file, Field: "quantization_config." + field, Found: found, Want: want,
		Do: "quantize the original checkpoint again; do not edit this section"}
}

// section reads the object. quant_method stands first: sections of other methods are passed over unread.
func (p *sectionParser) section() error {
	first := true
	return p.s.Object(func(key string) (err error) {
		if first {
			first = false
			if key == "quant_method" && p.s.Kind() == strictjson.String {
				method, err := p.s.String()
				p.ours = method == QuantMethod
				return err
			}
		}
		if !p.ours {
			return p.s.Skip()
		}
		switch key {
		case "version":
			p.version, err = p.s.Uint64()
		case "scheme":
			p.q.Scheme, err = p.s.String()
		case "source":
			p.q.Source, err = p.s.String()
		case "untied_head":
			p.q.UntiedHead, err = p.s.Bool()
		case "tensors":
			p.tensors = true
			err = p.s.Object(p.tensor)
		default:
			return p.fault(inputerr.Clip(key, 40), "a key this version does not have", "quant_method, version, scheme, source, untied_head, tensors")
		}
		return err
	})
}

// tensor reads what the section says of one weight.
func (p *sectionParser) tensor(name string) error {
	if len(p.q.Tensors) == safetensors.MaxTensors {
		return p.fault("tensors", fmt.Sprintf("more than %d", safetensors.MaxTensors), "fewer")
	}
	q := &Quantized{}
	var block, axis uint64
	err := p.s.Object(func(key string) (err error) {
		switch key {
		case "format":
			q.Format, err = p.s.String()
		case "mode":
			q.Mode, err = p.s.String()
		case "block":
			block, err = p.s.Uint64()
		case "axis":
			axis, err = p.s.Uint64()
		case "sha256":
			q.SHA256, err = p.s.String()
		case "minval_sha256":
			q.MinSHA256, err = p.s.String()
		default:
			return p.fault("tensors["+inputerr.Clip(name, 80)+"]."+inputerr.Clip(key, 40), "a key this version does not have", "format, mode, block, axis, sha256, minval_sha256")
		}
		return err
	})
	if err != nil {
		return err
	}
	field := "tensors[" + inputerr.Clip(name, 80) + "]."
	f, known := quantFormats[q.Format]
	switch {
	case !known:
		return p.fault(field+"format", inputerr.Clip(q.Format, 40), "int8, int4 or u4-minval")
	case !slices.Contains(f.modes, q.Mode):
		return p.fault(field+"mode", inputerr.Clip(q.Mode, 40), fmt.Sprintf("one of %q", f.modes))
	case block < 1 || block > 1<<30:
		return p.fault(field+"block", fmt.Sprint(block), "a block's length")
	case axis > 1:
		return p.fault(field+"axis", fmt.Sprint(axis), "0 or 1")
	case !isHash(q.SHA256) || (q.Format == "u4-minval") != isHash(q.MinSHA256):
		return p.fault(field+"sha256", inputerr.Clip(q.SHA256+" "+q.MinSHA256, 140), "64 hex digits, and a minval_sha256 for u4-minval only")
	}
	q.Block, q.Axis = int(block), int(axis)
	p.q.Tensors = append(p.q.Tensors, Tensor{Name: name, DType: f.shown, Quant: q})
	return nil
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && strings.ToLower(s) == s
}
