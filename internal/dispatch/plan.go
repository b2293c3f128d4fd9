package dispatch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/model"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/discover"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/store"
	"surprisal/internal/usage"
)

// Request is what a person asks for.
type Request struct {
	Inputs    []string // files, folders, globs
	Out       string
	ModelDir  string
	Tokenizer string // a tokenizer.json that is not in ModelDir
	// Options may have MaxLength 0 (the model's block_size) and Engine auto.
	Options score.Options
	// Engine, if set, chooses the engine that the run is bound to, given the one asked
	// for, and says how many workers there will be. Otherwise each worker chooses for
	// auto. It may take long: model and inputs are read at the same time.
	Engine    func(ctx context.Context, asked score.EngineKind) (score.EngineKind, int, error)
	JobTokens int64  // 0: DefaultJobTokens, or less if that gives several workers enough jobs
	Program   string // version
}

// defaultBlockSize is L for a checkpoint without a training length.
const defaultBlockSize = 4096

// DefaultJobTokens is the target size of a job.
const DefaultJobTokens = 4_000_000

// jobTokens is the target size of a job for so many tokens and workers: small enough
// that no worker waits long for the others at the end of the run.
func jobTokens(tokens int64, workers int) int64 {
	const jobsEach, least = 64, 200_000
	if workers < 2 {
		return DefaultJobTokens
	}
	return min(max(tokens/int64(jobsEach*workers), least), DefaultJobTokens)
}

// Plan decides what a run scores. It changes nothing. If OUT already holds a manifest
// of the run, known, then files planned before keep their cuts, files that failed are
// planned again and new files are added.
func Plan(ctx context.Context, req Request) (m, known *score.Manifest, err error) {
	if m, known, err = header(ctx, req); err != nil {
		return nil, nil, err
	}
	files, err := resolveModel(ctx, req, m)
	if err != nil {
		return nil, nil, err
	}
	if known != nil && m.Options.Engine == score.EngineAuto { // a run keeps its engine
		m.Options.Engine = known.Options.Engine
	}
	if err := m.Options.Validate(); err != nil {
		return nil, nil, &usage.Error{Err: err}
	}
	if err := examine(ctx, req, m, known, files); err != nil {
		return nil, nil, err
	}
	m.ConfigDigest = score.ConfigDigest(m.Options, m.Model)
	if known != nil {
		if err := sameRun(known, m); err != nil {
			return nil, nil, err
		}
	}
	if err := m.Validate(); err != nil {
		return nil, nil, err
	}
	return m, known, nil
}

// header makes the manifest without model and files, as known has it if OUT holds a
// manifest.
func header(ctx context.Context, req Request) (m, known *score.Manifest, err error) {
	m = &score.Manifest{
		Version: score.FormatVersion, Created: time.Now().UTC().Format(time.RFC3339),
		Program: req.Program, Options: req.Options, JobTokens: req.JobTokens,
	}
	if m.JobTokens <= 0 {
		m.JobTokens = DefaultJobTokens
	}
	if req.Out != "" {
		m.Out = req.Out
		if err := place.ValidOut(m.Out); err != nil {
			return nil, nil, usage.Errorf("--out: %w", err)
		}
		known, err = outdir.ReadManifest(ctx, m.Out)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, usage.Errorf("--out %s: %w", m.Out, err)
		}
	}
	m.Inputs = slices.Clone(req.Inputs)
	if known == nil {
		m.Run = newRunID()
		return m, nil, nil
	}
	m.Run, m.Created, m.Program = known.Run, known.Created, known.Program
	m.JobTokens, m.Costs = known.JobTokens, known.Costs
	return m, known, nil
}

// examine fills in the engine, the model's digests and the files. It does these at the
// same time, because each may take long: a digest reads the whole checkpoint.
func examine(ctx context.Context, req Request, m, known *score.Manifest, files modelFiles) error {
	engine, workers := m.Options.Engine, 0
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return files.digest(gctx, req, &m.Model) })
	g.Go(func() (err error) {
		m.Files, err = planInputs(gctx, req, m, known)
		return err
	})
	g.Go(func() (err error) {
		if req.Engine != nil {
			engine, workers, err = req.Engine(gctx, engine)
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	m.Options.Engine = engine
	if known != nil || req.JobTokens > 0 {
		return nil
	}
	tokens := int64(0)
	for i := range m.Files {
		tokens += m.Files[i].Tokens
	}
	n := jobTokens(tokens, workers)
	if n >= m.JobTokens {
		return nil
	}
	m.JobTokens = n
	var err error
	m.Files, err = planInputs(ctx, req, m, known)
	return err
}

// planInputs finds the inputs and cuts them into jobs.
func planInputs(ctx context.Context, req Request, m, known *score.Manifest) ([]score.FilePlan, error) {
	inputs, problems, err := discover.Inputs(ctx, req.Inputs, m.Out)
	if err != nil {
		return nil, inputOrCancel(ctx, "%w", err)
	}
	files, err := planFiles(ctx, inputs, m, known)
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		files = append(files, score.FilePlan{
			Input: score.Input{Path: p.Path, Rel: problemRel(p.Path)}, Error: p.Err.Error(),
		})
	}
	slices.SortFunc(files, func(a, b score.FilePlan) int { return strings.Compare(a.Input.Rel, b.Input.Rel) })
	return files, nil
}

// withoutRev is in without the hub's commit ID.
func withoutRev(in score.Input) score.Input {
	if p, err := place.Parse(in.Path); err == nil && p.Rev != "" {
		p.Rev = ""
		in.Path = p.String()
	}
	return in
}

// problemRel is a name for a path that Discover could not read.
func problemRel(name string) string {
	if place.IsURL(name) {
		_, rest, _ := strings.Cut(name, "://")
		return strings.TrimPrefix(path.Clean("/"+strings.ReplaceAll(rest, `\`, "_")), "/")
	}
	return strings.TrimPrefix(filepath.ToSlash(name), "/")
}

func newRunID() string {
	return time.Now().UTC().Format("20060102-150405") + "-" + strings.ToLower(rand.Text()[:6])
}

// modelFiles are a model's paths on this machine.
type modelFiles struct {
	dir       string
	tokenizer string // empty if token IDs are scored
}

// digest fills in m's digests.
func (f modelFiles) digest(ctx context.Context, req Request, m *score.Model) (err error) {
	if m.Digest, err = model.Digest(ctx, f.dir); err != nil {
		return inputOrCancel(ctx, "--model %s: %w", req.ModelDir, err)
	}
	if f.tokenizer == "" {
		return nil
	}
	if m.TokenizerDigest, err = model.TokenizerDigest(ctx, f.tokenizer); err != nil {
		return inputOrCancel(ctx, "--tokenizer %s: %w", f.tokenizer, err)
	}
	return nil
}

// resolveModel fills in m.Model except its digests, and the options that depend on the
// model.
func resolveModel(ctx context.Context, req Request, m *score.Manifest) (modelFiles, error) {
	if req.ModelDir == "" {
		return modelFiles{}, usage.Errorf("--model DIR is required: a folder with model-ckpt.pth and " +
			"training_metadata.json")
	}
	if err := place.ValidModelDir(req.ModelDir); err != nil {
		return modelFiles{}, usage.Errorf("--model: %w", err)
	}
	var err error
	dir, name := req.ModelDir, req.ModelDir
	if place.IsURL(name) {
		if dir, name, err = store.Download(ctx, name, model.IsFile, func() {}); err != nil {
			return modelFiles{}, inputOrCancel(ctx, "--model: %w", err)
		}
	}
	cfg, err := model.LoadConfig(dir)
	if err != nil {
		return modelFiles{}, usage.Errorf("--model %s: %w", req.ModelDir, err)
	}
	if m.Options.MaxLength == 0 {
		if m.Options.MaxLength = cfg.BlockSize; m.Options.MaxLength <= 0 {
			m.Options.MaxLength = defaultBlockSize
		}
	}
	m.Model = score.Model{Dir: name, Name: cfg.Name}
	if m.Options.IDsColumn != "" {
		return modelFiles{dir: dir}, nil
	}
	tok, named := filepath.Join(dir, "tokenizer.json"), place.Join(name, "tokenizer.json")
	if req.Tokenizer != "" {
		tok, named = req.Tokenizer, req.Tokenizer
		if place.IsURL(tok) {
			if tok, named, err = store.DownloadFile(ctx, tok, model.BesideTokenizer(), func() {}); err != nil {
				return modelFiles{}, inputOrCancel(ctx, "--tokenizer: %w", err)
			}
		}
	}
	if _, err := os.Stat(tok); err != nil {
		if req.Tokenizer == "" {
			return modelFiles{}, usage.Errorf("--model %s has no tokenizer.json: give --tokenizer FILE, or score "+
				"token IDs with --ids-column", req.ModelDir)
		}
		return modelFiles{}, usage.Errorf("--tokenizer %s: %w", req.Tokenizer, err)
	}
	m.Model.Tokenizer = named
	return modelFiles{dir, tok}, nil
}

func inputOrCancel(ctx context.Context, format string, a ...any) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return usage.Errorf(format, a...)
}

// sameRun rejects a plan whose scores could not stand beside those of known.
func sameRun(known, m *score.Manifest) error {
	what := ""
	switch {
	case known.Model.Digest != m.Model.Digest:
		what = "another model (" + known.Model.Dir + ")"
	case known.Model.TokenizerDigest != m.Model.TokenizerDigest:
		what = "another tokenizer"
	case known.ConfigDigest != m.ConfigDigest:
		what = "other options (see options in " + place.Join(m.Out, score.ManifestName) + ")"
	case !slices.Equal(known.Inputs, m.Inputs):
		what = "other inputs (" + strings.Join(known.Inputs, " ") + ")"
	default:
		return nil
	}
	return usage.Errorf("--out %s holds run %s, which used %s: choose another --out, or delete that folder", m.Out,
		known.Run, what)
}

// planFiles plans inputs, several at a time, and keeps the files planned in known.
func planFiles(ctx context.Context, inputs []score.Input, m, known *score.Manifest) ([]score.FilePlan, error) {
	before := map[string]*score.FilePlan{}
	if known != nil {
		for i := range known.Files {
			before[known.Files[i].Input.Rel] = &known.Files[i]
		}
	}
	files := make([]score.FilePlan, len(inputs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4 * runtime.GOMAXPROCS(0)) // reading footers mostly waits for the disk
	for i, in := range inputs {
		if k := before[in.Rel]; k != nil && k.Error == "" {
			if moved := withoutRev(k.Input); k.Input != in && moved != in && moved == withoutRev(in) {
				k.Input = in // a later commit of a hub repository that holds the same file
			}
			if k.Input != in {
				return nil, usage.Errorf("input %s has changed since run %s began (%s holds scores of the old "+
					"version): choose another --out", in.Path, known.Run, m.Out)
			}
			files[i] = *k
			delete(before, in.Rel)
			continue
		}
		delete(before, in.Rel)
		g.Go(func() (err error) {
			files[i], err = shard.Plan(gctx, in, shard.PlanOptions{Options: m.Options, JobTokens: m.JobTokens})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	// Files that are gone may have been scored before; otherwise their jobs fail.
	for _, k := range before {
		if k.Error == "" {
			files = append(files, *k)
		}
	}
	return files, nil
}
