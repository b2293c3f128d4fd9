package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/model"
	"surprisal/internal/model/tokenizer"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/store"
)

// loaded is an engine with a model in it and what goes before it.
type loaded struct {
	engine    Engine
	tokenizer *tokenizer.Tokenizer // nil when ready-made ids are scored
	engineKey engineKey
	tokKey    tokenizerKey
}

type engineKey struct {
	digest     string
	queryScale float64
}

type tokenizerKey struct {
	digest  string
	special score.SpecialMode
}

func keysOf(j *score.Job) (engineKey, tokenizerKey) {
	e := engineKey{j.Model.Digest, j.Options.QueryScale}
	if j.Options.IDsColumn != "" {
		return e, tokenizerKey{}
	}
	return e, tokenizerKey{j.Model.TokenizerDigest, j.Options.Special}
}

// serves tells whether j can be scored with what is loaded.
func (l *loaded) serves(j *score.Job) bool {
	e, t := keysOf(j)
	return e == l.engineKey && (t == tokenizerKey{} || t == l.tokKey) && engineFits(j, l.engine.Info().Kind) == nil
}

func engineFits(j *score.Job, have score.EngineKind) error {
	if want := j.Options.Engine; want != score.EngineAuto && want != have {
		return fmt.Errorf("%w: the job asks for %s, this worker has %s", ErrEngine, want, have)
	}
	return nil
}

// models keeps the last model loaded: runs score one model for long.
type models struct {
	cfg  Config
	kind score.EngineKind
	log  zerolog.Logger
	cur  *loaded
	// fence is where models and tokenizers may be; nil: anywhere.
	fence *store.Fence
	info  atomic.Pointer[score.EngineInfo] // for describe, from any goroutine
	// moved is told while a model is fetched; nil: nobody waits.
	moved func()
	// open is (*models).openEngine, but in tests of the pipeline.
	open func(context.Context, *score.Job) (Engine, error)
}

// describe tells the engine's kind, and its device once a model is loaded.
func (m *models) describe() (engine, device string) {
	if i := m.info.Load(); i != nil {
		device = i.Device
	}
	return string(m.kind), device
}

// load gives what j needs, which may be what is loaded already. The model's and
// the tokenizer's bytes must be those that the job names.
func (m *models) load(ctx context.Context, j *score.Job) (*loaded, error) {
	if err := engineFits(j, m.kind); err != nil {
		return nil, err
	}
	ek, tk := keysOf(j)
	if m.cur != nil && m.cur.engineKey != ek {
		m.close()
	}
	var side sync.WaitGroup
	var e Engine
	var t *tokenizer.Tokenizer
	var engineErr, tokenizerErr error
	if m.cur == nil {
		side.Go(func() { e, engineErr = m.open(ctx, j) })
	}
	if tk != (tokenizerKey{}) && (m.cur == nil || m.cur.tokKey != tk) {
		side.Go(func() { t, tokenizerErr = m.openTokenizer(ctx, j) })
	}
	side.Wait()
	if engineErr != nil {
		if t != nil {
			t.Close()
		}
		return nil, fmt.Errorf("load model %s: %w", j.Model.Dir, engineErr)
	}
	if e != nil {
		info := e.Info()
		m.info.Store(&info)
		m.cur = &loaded{engine: e, engineKey: ek}
	}
	if tokenizerErr != nil {
		return nil, fmt.Errorf("load tokenizer: %w", tokenizerErr)
	}
	if t != nil {
		if m.cur.tokenizer != nil {
			m.cur.tokenizer.Close()
		}
		m.cur.tokenizer, m.cur.tokKey = t, tk
	}
	return m.cur, nil
}

// admit refuses a job whose model's name leads outside.
func (m *models) admit(j *score.Job) error {
	if err := m.fence.Check(j.Model.Dir); err != nil {
		return fmt.Errorf("model %w", err)
	}
	if j.Options.IDsColumn == "" && m.cfg.Tokenizer == "" && j.Model.Tokenizer != "" {
		if err := m.fence.Check(j.Model.Tokenizer); err != nil {
			return fmt.Errorf("tokenizer %w", err)
		}
	}
	return nil
}

// inside resolves the links of a model's folder and of what lies in it. Its bytes
// are held to the job's digest after that, so a link that is changed in between
// gains nothing.
func (m *models) inside(dir string) (string, error) {
	real, err := m.fence.Resolve(dir)
	if err != nil || m.fence == nil {
		return real, err
	}
	entries, err := os.ReadDir(real)
	for _, e := range entries {
		if _, err := m.fence.Resolve(filepath.Join(dir, e.Name())); err != nil {
			return "", err
		}
	}
	return real, err
}

// folder gives a model's local folder, fetched from the hub if need be.
func (m *models) folder(ctx context.Context, dir string) (string, error) {
	if !place.IsURL(dir) {
		return m.inside(dir)
	}
	if err := m.fence.Check(dir); err != nil {
		return "", err
	}
	local, _, err := store.Download(ctx, dir, model.IsFile, m.moved)
	return local, err
}

// openEngine loads j's model. Its digest is taken meanwhile: what turns out not to
// be that model is let go of.
func (m *models) openEngine(ctx context.Context, j *score.Job) (Engine, error) {
	start := time.Now()
	dir, err := m.folder(ctx, j.Model.Dir)
	if err != nil {
		return nil, err
	}
	var digested time.Duration
	confirmed := make(chan error, 1)
	go func() {
		digest, err := model.Digest(ctx, dir)
		if err == nil && digest != j.Model.Digest {
			err = fmt.Errorf("its digest is %s here, the job wants %s: the files differ", digest, j.Model.Digest)
		}
		digested = time.Since(start)
		confirmed <- err
	}()
	line := m.log.Info()
	e, name, err := m.loadEngine(dir, j.Options.QueryScale,
		func(phase string, took time.Duration) { line.Dur(phase+"_ms", took) })
	// Of another model's files, the digest says more than what loading them came to.
	if other := <-confirmed; other != nil {
		if err == nil {
			err = e.Close()
		}
		if err != nil {
			m.log.Debug().Err(err).Msg("files that are not the job's model were not loaded and freed cleanly")
		}
		return nil, other
	}
	if err != nil {
		return nil, err
	}
	if set := e.Info().Set; set != "" {
		line.Str("set", set)
	}
	line.Str("model", name).Str("digest", j.Model.Digest).Dur("digest_ms", digested).Dur("took", time.Since(start)).
		Str("engine", string(e.Info().Kind)).Str("device", e.Info().Device).Msg("model loaded")
	return e, nil
}

// loadEngine loads whatever model lies in dir, and tells its phases.
func (m *models) loadEngine(dir string, queryScale float64, took func(phase string, d time.Duration)) (Engine, string,
	error) {
	start := time.Now()
	cfg, err := model.LoadConfig(dir)
	if err != nil {
		return nil, "", err
	}
	ckpt, err := model.Open(dir, cfg)
	if err != nil {
		return nil, "", err
	}
	took("open", time.Since(start))
	defer func() { _ = ckpt.Close() }() // the engine keeps nothing of the mapping
	e, err := m.newEngine(ckpt, cfg, queryScale, took)
	return e, cfg.Name, err
}

func (m *models) openTokenizer(ctx context.Context, j *score.Job) (*tokenizer.Tokenizer, error) {
	path := m.cfg.Tokenizer
	if path == "" {
		if path = j.Model.Tokenizer; path == "" {
			path = place.Join(j.Model.Dir, "tokenizer.json")
		}
		var err error
		if path, err = m.fence.Resolve(path); err != nil {
			return nil, err
		}
		if place.IsURL(path) {
			if path, _, err = store.DownloadFile(ctx, path, model.BesideTokenizer(), m.moved); err != nil {
				return nil, err
			}
		}
	}
	digest, err := model.TokenizerDigest(ctx, path)
	if err != nil {
		return nil, err
	}
	if digest != j.Model.TokenizerDigest {
		return nil, fmt.Errorf("%s: its digest is %s here, the job wants %s: the files differ", path, digest,
			j.Model.TokenizerDigest)
	}
	t, err := tokenizer.Open(path, tokenizer.Config{Special: j.Options.Special})
	if err != nil {
		return nil, err
	}
	if _, ok := t.BOS(); !ok {
		t.Close()
		return nil, fmt.Errorf("%s names no beginning token, which the first token of a text is conditioned on", path)
	}
	return t, nil
}

// close frees what is loaded.
func (m *models) close() {
	if m.cur == nil {
		return
	}
	if m.cur.tokenizer != nil {
		m.cur.tokenizer.Close()
	}
	if err := m.cur.engine.Close(); err != nil {
		m.log.Warn().Err(err).Msg("engine not closed cleanly")
	}
	m.cur = nil
}
