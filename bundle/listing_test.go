package bundle

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sibyl/bundle/aicode"
)

// listedBlob and listedWeight are the fields of listing.json that follow from the file alone.
type listedBlob struct {
	Key    string  `json:"key"`
	DType  string  `json:"dtype"`
	Shape  []int64 `json:"shape"`
	Splat  bool    `json:"splat"`
	Offset int64   `json:"file_offset"`
	Bytes  int     `json:"bytes"`
	SHA256 string  `json:"sha256"`
}

type listedWeight struct {
	Function    string      `json:"function"`
	Use         string      `json:"use"`
	Scheme      string      `json:"scheme"`
	Block       []int64     `json:"block"`
	Data        *listedBlob `json:"data"`
	Scale       *listedBlob `json:"scale"`
	Offset1     *listedBlob `json:"offset1"`
	Offset2     *listedBlob `json:"offset2"`
	QMin        int64       `json:"q_min"`
	QMax        int64       `json:"q_max"`
	QThenScale  string      `json:"sha256_q_then_scale"`
	DequantF16  string      `json:"sha256_dequant_fp16"`
	DequantBF16 string      `json:"sha256_dequant_bf16"`
	Chain       string      `json:"chain"`
	Parameter   string      `json:"parameter"`
}

type listedFile struct {
	Metadata struct{ Producer, AssetVersion, CreationDate string }
	Bytes    int64          `json:"main_mlirb_bytes"`
	SHA256   string         `json:"main_mlirb_sha256"`
	HashOK   bool           `json:"main_hash_ok"`
	Bytecode uint64         `json:"bytecode_version"`
	Producer string         `json:"bytecode_producer"`
	Dialect  string         `json:"aicode_dialect_version"`
	Version  uint64         `json:"asset_version"`
	Count    int            `json:"resources"`
	Profile  string         `json:"profile"`
	Weights  []listedWeight `json:"weights"`
}

func blob(c *aicode.Const, sum string) *listedBlob {
	b := &listedBlob{Key: c.Resource, DType: c.Type.Elem.String(), Shape: append([]int64{}, c.Type.Dims...), Splat: c.Splat, Bytes: len(c.Data), SHA256: sum}
	if c.Resource != "" {
		b.Offset = c.Offset
	}
	return b
}

func listed(w *Weight) listedWeight {
	f := w.Facts
	out := listedWeight{Function: w.Function, Use: w.Use, Scheme: f.Scheme, Chain: w.Chain, Data: blob(w.Data.Const, f.SHA256[0].Hex)}
	if q := w.Quant; q != nil {
		out.Block, out.QMin, out.QMax, out.QThenScale = q.Block, f.QMin, f.QMax, f.QThenScale
		out.Scale, out.Offset1, out.Offset2 = blob(q.Scale, f.SHA256[1].Hex), blob(q.Offset1, f.SHA256[2].Hex), blob(q.Offset2, f.SHA256[3].Hex)
		if f.DequantAs == "f16" {
			out.DequantF16 = f.Dequant
		} else {
			out.DequantBF16 = f.Dequant
		}
	}
	return out
}

// TestListings: every field of every sample's listing that the file itself tells; roles_test.go holds the tensors' names.
func TestListings(t *testing.T) {
	for _, name := range samples(t) {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(bundles, name, "listing.json"))
			if err != nil {
				t.Fatal(err)
			}
			var want listedFile
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			b := openSample(t, sampleAsset(t, name))
			l, err := b.Listing()
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Read(context.Background(), l, true, nil); err != nil {
				t.Fatal(err)
			}
			p := l.Program
			got := listedFile{Bytes: p.Size, SHA256: b.Asset.MainHash(), HashOK: b.Asset.Verify(context.Background(), nil) == nil, Bytecode: p.Bytecode,
				Producer: p.Producer, Dialect: hex.EncodeToString(p.Dialect), Version: p.AssetVersion, Count: len(p.Resources)}
			got.Metadata.Producer, got.Metadata.AssetVersion, got.Metadata.CreationDate = b.Asset.Producer, b.Asset.AssetVersion, b.Asset.CreationDate
			if want.Profile != "" {
				profile, err := b.Profile()
				if got.Profile = profile.Name; err != nil {
					t.Error(err)
				}
			}
			for i, w := range l.Weights {
				g := listed(w)
				if i < len(want.Weights) && want.Weights[i].Parameter != "" {
					g.Parameter = w.Parameter()
				}
				if i < len(want.Weights) && want.Weights[i].DequantF16+want.Weights[i].DequantBF16 == "" {
					g.DequantF16, g.DequantBF16 = "", "" // the listing of u4-minval does not have it
				}
				got.Weights = append(got.Weights, g)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("listing (-listing.json +sibyl):\n%s", d)
			}
		})
	}
}
