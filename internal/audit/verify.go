package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/shard/pq"
	"surprisal/internal/usage"
)

// FindingKind is what is wrong.
type FindingKind string

// The kinds of findings.
const (
	FindManifest  FindingKind = "manifest"  // the manifest has changed
	FindInput     FindingKind = "input"     // an input is gone, changed, or was never readable
	FindMissing   FindingKind = "missing"   // a job has no score file
	FindDead      FindingKind = "dead"      // a job has no score file and is dead
	FindDamaged   FindingKind = "damaged"   // a score file has changed
	FindForeign   FindingKind = "foreign"   // a file of another job, run or program
	FindDuplicate FindingKind = "duplicate" // a second file of a job
	FindTemporary FindingKind = "temporary" // a temporary file of a worker that is gone
	FindSuccess   FindingKind = "success"   // _SUCCESS is missing, wrong or too early
	FindScore     FindingKind = "score"     // a row gets a different score when rescored
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind   FindingKind `json:"kind"`
	File   string      `json:"file"` // relative to OUT; an input's path
	Job    string      `json:"job,omitempty"`
	What   string      `json:"what"`
	Remedy string      `json:"remedy"`
	// Mended is what Repair did.
	Mended string `json:"mended,omitempty"`
}

// VerifyRequest is what to verify.
type VerifyRequest struct {
	Out string
	// Client, if set, is asked which jobs are dead, and used to requeue the jobs whose
	// files Repair quarantined.
	Client *jobs.Client
	Repair bool
	// StaleAfter is the age at which a temporary file must be a killed worker's;
	// dispatch.StaleAfter.
	StaleAfter time.Duration
	// Rescore is how many rows, sampled with Seed, Local scores again.
	Rescore int
	Seed    uint64
	Local   *dispatch.Local
}

// Verification is the result of Verify.
type Verification struct {
	Run      string    `json:"run"`
	Out      string    `json:"out"`
	Jobs     int       `json:"jobs"`
	Verified int       `json:"verified"` // jobs whose score file is intact
	Rows     int64     `json:"rows"`     // in them
	Findings []Finding `json:"findings"`
	Rescored *Rescored `json:"rescored,omitempty"`
	// Queued jobs, by Repair with a client.
	Queued int `json:"queued,omitempty"`
	// Quarantined files, by Repair.
	Quarantined int `json:"quarantined,omitempty"`
}

// verification is a call of Verify.
type verification struct {
	req   VerifyRequest
	v     *Verification
	m     *score.Manifest
	mu    sync.Mutex
	good  map[string]shard.Committed // by job
	bad   map[string]bool            // outputs to quarantine, relative to OUT
	dead  map[string]string          // reasons, by job
	found map[string]Finding         // of jobs, by output
}

// Verify reads a run's manifest, inputs and score files again. What is wrong is a
// finding, not an error. With Repair it quarantines damaged and foreign files and
// restores the manifest, so that the run's command scores again what is missing.
func Verify(ctx context.Context, req VerifyRequest) (*Verification, error) {
	out := req.Out
	if req.StaleAfter == 0 {
		req.StaleAfter = dispatch.StaleAfter
	}
	v := &verification{
		req: req, v: &Verification{Out: out, Findings: []Finding{}}, good: map[string]shard.Committed{},
		bad: map[string]bool{}, dead: map[string]string{}, found: map[string]Finding{},
	}
	if err := v.manifest(ctx, out); err != nil {
		return nil, err
	}
	if req.Repair {
		unlock, err := dispatch.LockOut(ctx, out, zerolog.Nop())
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	if err := v.askDead(ctx); err != nil {
		return nil, err
	}
	if err := v.files(ctx); err != nil {
		return nil, err
	}
	if err := v.strays(ctx); err != nil {
		return nil, err
	}
	if err := v.success(ctx); err != nil {
		return nil, err
	}
	if req.Rescore > 0 {
		if err := v.rescore(ctx); err != nil {
			return nil, fmt.Errorf("rescore rows: %w", err)
		}
	}
	if req.Repair {
		if err := v.repair(ctx); err != nil {
			return nil, fmt.Errorf("repair %s: %w", out, err)
		}
	}
	return v.v, nil
}

func (v *verification) add(f Finding) {
	v.v.Findings = append(v.v.Findings, f)
}

// sameCommand is the remedy for missing scores.
const sameCommand = "repeat the run's command: it scores what is missing"

func (v *verification) manifest(ctx context.Context, out string) error {
	m, err := outdir.VerifyManifest(ctx, out)
	f := Finding{Kind: FindManifest, File: score.ManifestName}
	switch {
	case err == nil:
	case errors.Is(err, outdir.ErrManifestChanged):
		f.What, f.Remedy = err.Error(), "--repair restores it from its second copy"
		v.add(f)
	case errors.Is(err, outdir.ErrNoCopy):
		f.What, f.Remedy = err.Error(), "--repair rewrites the copy"
		v.add(f)
	case errors.Is(err, fs.ErrNotExist):
		return usage.Errorf("%s is not an output folder of a run: it has no %s", out, score.ManifestName)
	default:
		return usage.Errorf("%s: %w, and there is no intact copy of it: choose another --out, or restore it from a "+
			"backup", out, err)
	}
	m.Out = out
	v.m, v.v.Run = m, m.Run
	return nil
}

// askDead lists the dead jobs, if there is a client and the queue knows the run.
func (v *verification) askDead(ctx context.Context) error {
	if v.req.Client == nil {
		return nil
	}
	err := v.req.Client.JobStates(ctx, v.m.Run, func(s record.Job) {
		if s.State == record.StateDead {
			v.dead[s.Job] = s.Error
		}
	})
	if errors.Is(err, jobs.ErrNotSetUp) {
		return nil
	}
	return err
}

// files verifies each job's score file, several at a time.
func (v *verification) files(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	var order []string // outputs in the manifest's order
	for i := range v.m.Files {
		f := &v.m.Files[i]
		if f.Error != "" {
			v.add(Finding{
				Kind: FindInput, File: f.Input.Path, What: "could not be planned: " + f.Error,
				Remedy: "repair the file and repeat the run's command, or leave it",
			})
			continue
		}
		input := true
		if err := shard.CheckInput(ctx, f.Input); err != nil {
			input = false
			v.add(Finding{
				Kind: FindInput, File: f.Input.Path, What: err.Error(),
				Remedy: "restore the file with its modification time; scores of the changed file belong in another " +
					"--out",
			})
		}
		for _, j := range v.m.FileJobs(i) {
			v.v.Jobs++
			order = append(order, j.Output)
			g.Go(func() error { return v.file(gctx, j, input) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, o := range order {
		if f, ok := v.found[o]; ok {
			v.add(f)
		}
	}
	return nil
}

func (v *verification) file(ctx context.Context, j score.Job, input bool) error {
	c, err := shard.Verify(ctx, j, input)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	f := Finding{File: j.Output, Job: j.ID}
	aside := "--repair quarantines it; then " + sameCommand
	switch {
	case err == nil:
		v.good[j.ID] = c
		v.v.Verified++
		v.v.Rows += j.Rows()
		return nil
	case errors.Is(err, fs.ErrNotExist):
		f.Kind, f.What, f.Remedy = FindMissing, "no score file", sameCommand
		if reason, dead := v.dead[j.ID]; dead {
			f.Kind, f.What = FindDead, "no score file, and its job is dead: "+reason
		}
	case errors.Is(err, shard.ErrInputChanged):
		// Since the input was checked.
		f.Kind, f.File, f.What, f.Remedy = FindInput, j.Input.Path, err.Error(),
			"do not change inputs while a run is verified"
	case errors.Is(err, shard.ErrConflict):
		f.Kind, f.What, f.Remedy = FindForeign, unwrapped(err), aside
		v.bad[j.Output] = true
	case errors.Is(err, pq.ErrCorrupt), errors.Is(err, pq.ErrColumn):
		f.Kind, f.What, f.Remedy = FindDamaged, unwrapped(err), aside
		v.bad[j.Output] = true
	default:
		return err
	}
	v.found[j.Output] = f
	return nil
}

// unwrapped is an error's text without the path, which is in the finding.
func unwrapped(err error) string {
	if u := errors.Unwrap(err); u != nil {
		return u.Error()
	}
	return err.Error()
}

// strays finds files in OUT that belong to no job.
func (v *verification) strays(ctx context.Context) error {
	planned, ids := map[string]bool{}, map[string]string{}
	for _, j := range v.m.Jobs() {
		planned[j.Output], ids[j.ID] = true, j.Output
	}
	before := time.Now().Add(-v.req.StaleAfter)
	return outdir.List(ctx, v.v.Out, func(e outdir.Entry) error {
		switch {
		case e.Kind == outdir.EntryTemporary && (e.Modified.Before(before) || v.v.Verified == v.v.Jobs):
			v.add(Finding{
				Kind: FindTemporary, File: e.Rel, What: "left by a worker that is gone",
				Remedy: "--repair or dispatcher gc deletes it",
			})
		case e.Kind == outdir.EntryParquet:
			v.add(Finding{
				Kind: FindForeign, File: e.Rel, What: "a parquet file of no job of the run: readers of the folder " +
					"would take it for scores",
				Remedy: "move it elsewhere; --repair quarantines it",
			})
			v.bad[e.Rel] = true
		case e.Kind == outdir.EntryScores && !planned[e.Rel]:
			f := Finding{
				Kind: FindForeign, File: e.Rel, What: "a score file of another run",
				Remedy: "move it elsewhere; --repair quarantines it",
			}
			if c, err := shard.Inspect(ctx, e.Path); err == nil && ids[c.Job] != "" {
				f.Kind, f.Job, f.What = FindDuplicate, c.Job, "a second file of the job that wrote "+ids[c.Job]
			}
			v.add(f)
			v.bad[e.Rel] = true
		}
		return nil
	})
}

// totals are the sums over the intact files.
func (v *verification) totals() *dispatch.Summary {
	var t shard.Totals
	failed := 0
	for _, c := range v.good {
		t.Add(c.Totals)
	}
	for i := range v.m.Files {
		if v.m.Files[i].Error != "" {
			failed++
		}
	}
	return &dispatch.Summary{
		Run: v.m.Run, Out: v.m.Out, Jobs: v.v.Jobs, Documents: t.Documents, Tokens: t.Tokens, Bytes: t.Bytes,
		FailedRows: t.Failed, Truncated: t.Truncated, Complete: len(v.good) == v.v.Jobs && failed == 0,
	}
}

// success compares _SUCCESS with the totals.
func (v *verification) success(ctx context.Context) error {
	have, err := outdir.ReadSuccess(ctx, v.v.Out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", score.SuccessName, err)
	}
	s := v.totals()
	want, werr := dispatch.SuccessBody(v.m, s)
	if werr != nil {
		return werr
	}
	f := Finding{Kind: FindSuccess, File: score.SuccessName}
	switch {
	case s.Complete && err != nil:
		f.What, f.Remedy = "missing, although every job is committed and intact",
			"--repair writes it, as does the run's command or dispatcher wait "+v.m.Run
	case s.Complete && !sameJSON(have, want):
		f.What, f.Remedy = "its totals are not those of the score files", "--repair rewrites it"
	case !s.Complete && err == nil:
		f.What, f.Remedy = "present, although not every row has a score", "--repair deletes it"
	default:
		return nil
	}
	v.add(f)
	return nil
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	ax, err1 := json.Marshal(x)
	by, err2 := json.Marshal(y)
	return err1 == nil && err2 == nil && bytes.Equal(ax, by)
}

// repair carries out the findings' remedies.
func (v *verification) repair(ctx context.Context) error {
	open := map[string]bool{} // jobs whose file is quarantined or missing
	for i := range v.v.Findings {
		f := &v.v.Findings[i]
		switch f.Kind {
		case FindManifest:
			if err := outdir.RestoreManifest(ctx, v.v.Out); err != nil {
				return err
			}
			f.Mended = "restored"
		case FindMissing:
			open[f.Job] = true
		case FindDamaged, FindForeign, FindDuplicate, FindScore:
			if !v.bad[f.File] {
				continue // already quarantined
			}
			to, err := outdir.Quarantine(ctx, v.v.Out, f.File)
			if err != nil {
				return err
			}
			delete(v.bad, f.File)
			v.v.Quarantined++
			f.Mended = "moved to " + strings.TrimPrefix(to, v.v.Out+"/")
			if f.Kind != FindDuplicate && f.Job != "" {
				open[f.Job] = true
				delete(v.good, f.Job)
			}
		case FindTemporary:
			e := outdir.Entry{Kind: outdir.EntryTemporary, Path: f.File, Rel: f.File}
			if err := outdir.Remove(ctx, v.v.Out, e); err != nil {
				return err
			}
			f.Mended = "removed"
		}
	}
	s := v.totals()
	if err := dispatch.Finish(ctx, v.m, s); err != nil {
		return err
	}
	for i := range v.v.Findings {
		if f := &v.v.Findings[i]; f.Kind == FindSuccess {
			f.Mended = "removed"
			if s.Complete {
				f.Mended = "written"
			}
		}
	}
	if v.req.Client == nil || s.Complete {
		return nil
	}
	return v.requeue(ctx, open)
}

// requeue queues open jobs of a run that was submitted and not cancelled.
func (v *verification) requeue(ctx context.Context, open map[string]bool) error {
	r, err := v.req.Client.Run(ctx, v.m.Run)
	if errors.Is(err, jobs.ErrNoRun) || errors.Is(err, jobs.ErrNotSetUp) || r.State == record.RunCancelled {
		return nil
	}
	if err != nil {
		return err
	}
	var left []score.Job
	for _, j := range v.m.Jobs() {
		if open[j.ID] {
			left = append(left, j)
		}
	}
	if len(left) == 0 {
		return nil
	}
	release, err := dispatch.Acquire(ctx, v.req.Client, v.m.Run, "verify")
	if err != nil {
		return err
	}
	defer release()
	if err := dispatch.Enqueue(ctx, v.req.Client, r, record.RunConfig{}, slices.Values(left)); err != nil {
		return err
	}
	v.v.Queued = len(left)
	for i := range v.v.Findings {
		if f := &v.v.Findings[i]; open[f.Job] && f.Kind != FindDuplicate {
			f.Mended = strings.TrimPrefix(f.Mended+"; queued", "; ")
		}
	}
	return nil
}

// Kinds counts the findings of each kind. kinds are sorted by name.
func (v *Verification) Kinds() (kinds []FindingKind, counts map[FindingKind]int) {
	counts = map[FindingKind]int{}
	for _, f := range v.Findings {
		if counts[f.Kind] == 0 {
			kinds = append(kinds, f.Kind)
		}
		counts[f.Kind]++
	}
	slices.Sort(kinds)
	return kinds, counts
}
