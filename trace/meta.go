package trace

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"sibyl/engine"
	"sibyl/internal/inputerr"
)

// Format is the value of the header's "format": it tells a trace from any other safetensors file.
const Format = "sibyl-trace/1"

// Meta is what a trace says about the run it holds. Everything that can change a bit of the data is here.
type Meta struct {
	SibylVersion  string
	Subject       string // as on the command line
	Engine        string
	Contract      string // "hf-fp32"
	Scheme        string // "stored"
	Mode          string // "exact", "fast" or ""
	Delta         string // "recurrent" or "chunk": the delta rule's form in prefill
	Path          string // engine.Path: "prefill", "step", "chunk=N"
	Threads       int    // 0 if not known
	ConfigSHA256  string
	WeightsSHA256 string
	IDs           []int32
	PositionIDs   [][3]int32 // per token T, H, W; nil means text
	// Past is how many tokens a state given at the start had consumed; states at the end cover Past+len(IDs).
	Past int
	// DataSHA256 is the hash of the data section, in lower-case hex: set by Writer.Commit and by Open.
	DataSHA256 string
}

// MetaOf fills in what an engine says of itself. Delta, PositionIDs and Past are the caller's to add.
func MetaOf(version string, info engine.Info, path engine.Path, ids []int32) Meta {
	return Meta{SibylVersion: version, Subject: info.Subject, Engine: info.Engine, Contract: info.Contract,
		Scheme: info.Scheme, Mode: info.Mode, Path: path.String(), Threads: info.Threads,
		ConfigSHA256: info.ConfigSHA256, WeightsSHA256: info.WeightsSHA256, IDs: ids}
}

// emptyDigest reserves the place of data_sha256 in the header, which is known only at the end.
var emptyDigest = strings.Repeat("0", 64)

// encode gives the header's metadata. The format allows strings only: numbers are decimal, lists are JSON.
func (m *Meta) encode() (map[string]string, error) {
	ids, err := json.Marshal(m.IDs)
	if err != nil {
		return nil, err
	}
	out := map[string]string{
		"format": Format, "sibyl_version": m.SibylVersion, "subject": m.Subject, "engine": m.Engine,
		"contract": m.Contract, "scheme": m.Scheme, "mode": m.Mode, "delta": m.Delta, "path": m.Path,
		"threads": strconv.Itoa(m.Threads), "config_sha256": m.ConfigSHA256, "weights_sha256": m.WeightsSHA256,
		"ids": string(ids), "past": strconv.Itoa(m.Past), "data_sha256": emptyDigest,
	}
	if m.PositionIDs != nil {
		var axes [3][]int32 // [3, T], as --position-ids takes them
		for _, p := range m.PositionIDs {
			for a := range axes {
				axes[a] = append(axes[a], p[a])
			}
		}
		pos, err := json.Marshal(axes)
		if err != nil {
			return nil, err
		}
		out["position_ids"] = string(pos)
	}
	return out, nil
}

// decodeMeta reads the metadata of a file whose format was checked.
func decodeMeta(file string, kv map[string]string) (*Meta, error) {
	m := &Meta{SibylVersion: kv["sibyl_version"], Subject: kv["subject"], Engine: kv["engine"], Contract: kv["contract"],
		Scheme: kv["scheme"], Mode: kv["mode"], Delta: kv["delta"], Path: kv["path"], ConfigSHA256: kv["config_sha256"],
		WeightsSHA256: kv["weights_sha256"], DataSHA256: kv["data_sha256"]}
	bad := func(key, want string) error {
		return &inputerr.Error{File: file, Field: "metadata " + key, Found: inputerr.Clip(kv[key], 40), Want: want,
			Do: "make the trace again with `sibyl trace`"}
	}
	if err := json.Unmarshal([]byte(kv["ids"]), &m.IDs); err != nil || len(m.IDs) == 0 {
		return nil, bad("ids", "a JSON list of token ids")
	}
	for _, n := range []struct {
		key string
		to  *int
	}{{"threads", &m.Threads}, {"past", &m.Past}} {
		v, err := strconv.Atoi(kv[n.key])
		if err != nil || v < 0 || v > maxTokens {
			return nil, bad(n.key, fmt.Sprintf("a number from 0 to %d", maxTokens))
		}
		*n.to = v
	}
	if !isDigest(m.DataSHA256) {
		return nil, bad("data_sha256", "64 hexadecimal digits")
	}
	if pos, ok := kv["position_ids"]; ok {
		var axes [][]int32
		if err := json.Unmarshal([]byte(pos), &axes); err != nil || len(axes) != 3 {
			return nil, bad("position_ids", "a JSON list of 3 lists")
		}
		m.PositionIDs = make([][3]int32, len(m.IDs))
		for a := range axes {
			if len(axes[a]) != len(m.IDs) {
				return nil, bad("position_ids", fmt.Sprintf("3 lists of %d numbers, one a token", len(m.IDs)))
			}
			for i, p := range axes[a] {
				m.PositionIDs[i][a] = p
			}
		}
	}
	return m, nil
}

// maxTokens bounds token counts that are read from metadata, so that sums of them cannot overflow.
const maxTokens = 1 << 30

func isDigest(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" && s != emptyDigest
}
