package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"

	"sibyl/internal/inputerr"
)

// VerifyQuantized reads all quantized weights and compares their bytes with the hashes that config.json records; the
// first that differs is an *inputerr.Error. progress, if not nil, is told the bytes done and in all.
func (c *Checkpoint) VerifyQuantized(ctx context.Context, progress func(done, total int64)) error {
	if c.quant == nil {
		return nil
	}
	var done, total int64
	for _, t := range c.quant.Tensors {
		total += t.Bytes()
	}
	for _, t := range c.quant.Tensors {
		report := func(n int64) {
			if done += n; progress != nil {
				progress(done, total)
			}
		}
		if err := t.verify(ctx, report); err != nil {
			return err
		}
		c.Drop(t, 0, -1)
	}
	return nil
}

// verify compares one weight with its hashes.
func (t Tensor) verify(ctx context.Context, report func(int64)) error {
	q := t.Quant
	h := sha256.New()
	if err := t.hashQ(ctx, h, report); err != nil {
		return err
	}
	h.Write(q.Scale)
	report(int64(len(q.Scale)))
	check := func(what, got, want string) error {
		if got == want {
			return nil
		}
		return &inputerr.Error{File: t.File, Field: "tensor " + inputerr.Clip(t.Name, 120), Found: what + " with sha256 " + got, Want: want + ", as config.json records",
			Do: "the file was changed after it was written: quantize the original checkpoint again"}
	}
	if err := check("q and scales", hex.EncodeToString(h.Sum(nil)), q.SHA256); err != nil || len(q.Min) == 0 {
		return err
	}
	low := sha256.Sum256(q.Min)
	report(int64(len(q.Min)))
	return check("minvals", hex.EncodeToString(low[:]), q.MinSHA256)
}

// hashQ feeds q to h, one byte a value as the field's tools hash it.
func (t Tensor) hashQ(ctx context.Context, h hash.Hash, report func(int64)) error {
	f := quantFormats[t.Quant.Format]
	wide := make([]byte, 0, 2<<16)
	for b := t.Data; len(b) > 0; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("hashing %s stopped: %w", t.Name, err)
		}
		n := min(len(b), 1<<16)
		if f.perByte == 1 {
			h.Write(b[:n])
		} else {
			h.Write(Nibbles(wide[:0], b[:n], t.Quant.Format == "int4"))
		}
		b = b[n:]
		report(int64(n))
	}
	return nil
}

// Nibbles appends the four-bit values of packed to dst, one a byte, the low nibble first, signed ones in two's
// complement.
func Nibbles(dst, packed []byte, signed bool) []byte {
	for _, v := range packed {
		lo, hi := v&15, v>>4
		if signed {
			lo, hi = byte(int8(v<<4)>>4), byte(int8(v)>>4)
		}
		dst = append(dst, lo, hi)
	}
	return dst
}
