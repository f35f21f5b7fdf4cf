package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/strictyaml"
	"sibyl/internal/userfile"
	"sibyl/oracle"
	"sibyl/oracle/refcache"
)

// gateCache is --ref-cache at work, and the hashes of the models of one gate. Without the flag it has no store and
// passes everything on.
type gateCache struct {
	store *refcache.Store
	dir   string
	sums  map[string]string // weights' sha256, by MODEL
}

// openCache opens the folder of --ref-cache, if there is one.
func (v *Gate) openCache(a *App) (*gateCache, error) {
	g := &gateCache{dir: v.RefCache, sums: map[string]string{}}
	if v.RefCache == "" {
		return g, nil
	}
	var err error
	g.store, err = refcache.Open(v.RefCache, func(text string) { a.Note("%s", text) })
	return g, err
}

// report says what the store was good for.
func (g *gateCache) report(a *App) {
	if g.store == nil {
		return
	}
	if s := g.store.Stats(); s.Known+s.Run > 0 {
		a.Note("reference cache %s: %d of %d runs of the reference were there", g.dir, s.Known, s.Known+s.Run)
	}
}

// weights is the hash of a model's weights, computed once a gate, and with a store once for each state of its files.
func (g *gateCache) weights(ctx context.Context, a *App, c bundle.Source, model string) (sum string, err error) {
	if sum, ok := g.sums[model]; ok {
		return sum, nil
	}
	progress := a.Progress("hashing the weights")
	if g.store != nil {
		sum, err = g.store.WeightsSHA256(ctx, c, progress)
	} else {
		sum, err = c.WeightsSHA256(ctx, progress)
	}
	if err == nil {
		g.sums[model] = sum
	}
	return sum, err
}

// nonFinite looks for NaN and Inf in the weights, with a store once for each hash.
func (g *gateCache) nonFinite(ctx context.Context, a *App, c bundle.Source) ([]bundle.NonFinite, error) {
	if !a.stream {
		c.Stay() // this reads them first, the runs again and again
	}
	progress := a.Progress("looking for NaN and Inf")
	if g.store == nil {
		return c.NonFinite(ctx, progress)
	}
	sum, err := g.weights(ctx, a, c, c.Path())
	if err != nil {
		return nil, err
	}
	return g.store.NonFinite(ctx, c, sum, progress)
}

// open opens REF or TEST. What REF shows is kept, if there is a store; what TEST shows is what is asked.
func (g *gateCache) open(ctx context.Context, a *App, s Subject, isRef bool) (engine.Engine, error) {
	s.Side = "test"
	if isRef {
		s.Side = "ref"
	}
	e, err := a.open(ctx, s, "exact", "")
	if err != nil || g.store == nil || !isRef || s.Engine == "replay" {
		return e, err
	}
	return g.wrap(ctx, a, e, s.Model, s.Contract, s.Scheme)
}

// controls has what controls on REF's own weights show kept too: it does not depend on TEST's scheme. A control that
// runs other weights is another one for each scheme.
func (g *gateCache) controls(a *App, controls []oracle.Control, ref, test Subject) {
	if g.store == nil {
		return
	}
	for i := range controls {
		c := &controls[i]
		if c.Open == nil {
			continue
		}
		open := c.Open
		c.Open = func(ctx context.Context) (engine.Engine, error) {
			e, err := open(ctx)
			if err != nil || e.Info().Scheme != "stored" || !sameModel(e.Info().Subject, ref.Model+"@") {
				return e, err
			}
			return g.wrap(ctx, a, e, ref.Model, ref.Contract, test.Contract)
		}
	}
}

// wrap gives e a memory. parts are those of the subjects that may name a file on which its results depend.
func (g *gateCache) wrap(ctx context.Context, a *App, e engine.Engine, model string, parts ...string) (_ engine.Engine, err error) {
	defer func() {
		if err != nil {
			_ = e.Close() // the first error is the one to tell
		}
	}()
	c, err := a.source(ctx, Subject{Model: model})
	if err != nil {
		return nil, err
	}
	defer closing(c, &err)
	id := refcache.Identity{ConfigSHA256: c.ConfigSHA256()}
	if id.WeightsSHA256, err = g.weights(ctx, a, c, c.Path()); err != nil {
		return nil, err
	}
	for _, part := range parts {
		for prefix, into := range map[string]*string{"contract:": &id.ContractSHA256, "recipe:": &id.SchemeSHA256} {
			sum, err := hashOfFile(part, prefix)
			if err != nil {
				return nil, err
			}
			*into += sum
		}
	}
	return g.store.Wrap(e, id), nil
}

// hashOfFile is the sha256 of the file that a part names, "" if it names none.
func hashOfFile(part, prefix string) (string, error) {
	file, ok := strings.CutPrefix(part, prefix)
	if !ok {
		return "", nil
	}
	data, err := userfile.Read(file, strictyaml.MaxBytes)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// hashes puts the weights' hashes into a result that is to be written: what it says is said of those bytes.
func (v *Gate) hashes(ctx context.Context, a *App, r *oracle.GateResult, ref, test Subject, g *gateCache) error {
	if v.Out == "" {
		return nil
	}
	for _, side := range []struct {
		s    Subject
		info *oracle.EngineInfo
	}{{ref, &r.Ref}, {test, &r.Test}} {
		if side.s.Engine == "replay" || side.info.WeightsSHA256 != "" {
			continue // recorded
		}
		if err := g.hashSide(ctx, a, side.s.Model, &side.info.WeightsSHA256); err != nil {
			return err
		}
	}
	return nil
}

func (g *gateCache) hashSide(ctx context.Context, a *App, model string, sum *string) (err error) {
	c, err := a.source(ctx, Subject{Model: model})
	if err != nil {
		return err
	}
	defer closing(c, &err)
	*sum, err = g.weights(ctx, a, c, c.Path())
	return err
}
