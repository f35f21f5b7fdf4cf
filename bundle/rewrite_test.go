package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/bundle/aicode"
	"sibyl/config"
	"sibyl/internal/inputerr"
)

// TestRewrite: one element of one scale of a LanguageBundle becomes another; everything else stays, and main.hash fits.
func TestRewrite(t *testing.T) {
	src := filepath.Join(bundles, "opticks-2m-int8hu-sym")
	b := openSample(t, src)
	r, err := b.Roles("main")
	if err != nil {
		t.Fatal(err)
	}
	scale := r.Find(config.UpProj, 2, "").Dequant.Operands[1].Def.Const
	data := bytes.Clone(scale.Data)
	scale.Set(data, 5, 0x3c00)
	out := filepath.Join(t.TempDir(), "copy")
	if err := b.Rewrite(context.Background(), out, []Edit{{scale, data}}, RewriteOptions{}); err != nil {
		t.Fatal(err)
	}
	again := openSample(t, out) // verifies main.hash
	old, now := b.Asset.Bytes(), bytes.Clone(again.Asset.Bytes())
	if v := now[scale.Offset+10 : scale.Offset+12]; v[0] != 0 || v[1] != 0x3c {
		t.Errorf("element 5 is % x, want 00 3c", v)
	}
	copy(now[scale.Offset+10:], old[scale.Offset+10:scale.Offset+12])
	if !bytes.Equal(old, now) {
		t.Error("other bytes changed")
	}
	for _, name := range []string{"metadata.json", "tokenizer/tokenizer.json", "opticks-2m-int8hu-sym.aimodel/metadata.json"} {
		a, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		c, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || !bytes.Equal(a, c) {
			t.Errorf("%s is not as it was (%v)", name, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(out), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestRewriteRefused: what does not fit is refused and leaves nothing.
func TestRewriteRefused(t *testing.T) {
	b := openSample(t, sampleAsset(t, "tiny-dense-tied-int4lin"))
	p, err := b.Program()
	if err != nil {
		t.Fatal(err)
	}
	var consts []*aicode.Const
	for _, op := range p.Graph("main").Body.Ops {
		if op.Const != nil && op.Const.Resource != "" {
			consts = append(consts, op.Const)
		}
	}
	k := consts[0]
	other := *k
	other.Offset++
	dir := t.TempDir()
	busy := filepath.Join(dir, "busy")
	if err := os.MkdirAll(filepath.Join(busy, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, out string
		edits     []Edit
		force     bool
		want      string
	}{
		{"length", "new", []Edit{{k, k.Data[1:]}}, false, "bytes to put there, want"},
		{"twice", "new", []Edit{{k, k.Data}, {k, k.Data}}, false, "found two edits of the same bytes, want one"},
		{"foreign", "new", []Edit{{&other, k.Data}}, false, "found a constant of another program"},
		{"taken", "busy", nil, false, "found a folder of 1 entries, want a name that is free"},
		{"force-no-bundle", "busy", nil, true, "found a folder that is no bundle, want one that --force may replace"},
	} {
		err := b.Rewrite(context.Background(), filepath.Join(dir, tt.out), tt.edits, RewriteOptions{Force: tt.force})
		var in *inputerr.Error
		if !errors.As(err, &in) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Rewrite(ctx, filepath.Join(dir, "new"), []Edit{{k, k.Data}}, RewriteOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v (%v)", entries, err)
	}
	// A bundle may be replaced, also by a change of itself.
	out := filepath.Join(dir, "again.aimodel")
	for i := range 2 {
		if err := b.Rewrite(context.Background(), out, nil, RewriteOptions{Force: i > 0}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{filepath.Join(out, ".git"), out + "c"} { // a clone's folder, and a compiled form beside
		if err := os.MkdirAll(filepath.Join(name, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self := openSample(t, out)
	sum := sha256.Sum256(self.Asset.Bytes())
	if err := self.Rewrite(context.Background(), out, []Edit{{k, make([]byte, len(k.Data))}}, RewriteOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(out, ".git")); err == nil {
		t.Error("a hidden folder was copied")
	}
	if now := openSample(t, out); now.Asset.MainHash() == b.Asset.MainHash() || sha256.Sum256(self.Asset.Bytes()) != sum {
		t.Error("the bundle did not change on disk, or it changed under who had it open")
	}
}
