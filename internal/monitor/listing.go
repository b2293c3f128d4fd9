package monitor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/usage"
)

// JobLine is a job in a list.
type JobLine struct {
	Job     string       `json:"job"`
	State   record.State `json:"state"`
	File    string       `json:"file,omitempty"` // empty where OUT's manifest is not to be read
	First   int64        `json:"first"`
	Last    int64        `json:"last"`
	Attempt int          `json:"attempt,omitempty"`
	Worker  string       `json:"worker,omitempty"`
	Updated time.Time    `json:"updated,omitzero"`
	Error   string       `json:"error,omitempty"`
	// Documents and Tokens of a job that is done, counted by its worker.
	Documents int64 `json:"documents,omitempty"`
	Tokens    int64 `json:"tokens,omitempty"`
}

// ListRequest is what to list.
type ListRequest struct {
	Out    string
	Run    string         // with Client; where OUT is not to be read there is nothing else
	Client *jobs.Client   // nil: OUT alone tells what is done
	States []record.State // none: all
	Skip   int            // so many are left out first
	Limit  int            // 0: all
	// Newest tells those that have a record in the order of their last change,
	// the newest first. It holds Skip+Limit of them.
	Newest bool
	// Newer gives the jobs to tell of, where it knows them, as Monitor.Newest does: a
	// list of few jobs of a million doesn't read all their records then.
	Newer func(run string, states []record.State, skip, limit int) (ids []string, more, ok bool)
}

// errLimit ends a list early.
var errLimit = errors.New("limit")

// JobStateNames are the states by which jobs can be listed.
var JobStateNames = []record.State{StateQueued, record.StateRunning, record.StateWaiting, record.StateFailed,
	record.StateDone, record.StateDead}

// ListJobs calls do once for each job: first those that have a record, by their last
// change, then those that OUT holds, then the queued ones in the manifest's order.
// Besides the manifest it holds a Tracker. more reports whether the limit left jobs
// out.
func ListJobs(ctx context.Context, req ListRequest, do func(JobLine) error) (more bool, err error) {
	for _, s := range req.States {
		if !slices.Contains(JobStateNames, s) {
			return false, usage.Errorf("--state %q is not one of %s", s, strings.Trim(fmt.Sprint(JobStateNames), "[]"))
		}
	}
	l := &lister{req: req, do: do}
	if err := l.manifest(ctx); err != nil {
		return false, err
	}
	err = l.list(ctx)
	if errors.Is(err, errLimit) {
		return true, nil
	}
	return false, err
}

type lister struct {
	req     ListRequest
	do      func(JobLine) error
	m       *score.Manifest // nil if OUT cannot be read
	tracked *Tracker        // nil likewise; jobs that are not queued were listed
	told    int             // jobs listed or skipped
}

func (l *lister) wants(s record.State) bool {
	return len(l.req.States) == 0 || slices.Contains(l.req.States, s)
}

func (l *lister) tell(j JobLine) error {
	if !l.wants(j.State) {
		return nil
	}
	if l.req.Limit > 0 && l.told == l.req.Skip+l.req.Limit {
		return errLimit
	}
	if l.told++; l.told <= l.req.Skip {
		return nil
	}
	return l.do(j)
}

// manifest reads OUT's manifest. With a client it may be missing.
func (l *lister) manifest(ctx context.Context) error {
	out := l.req.Out
	m, err := outdir.ReadManifest(ctx, out)
	switch {
	case err == nil && (l.req.Run == "" || m.Run == l.req.Run):
		m.Out = out
		l.req.Out, l.req.Run = out, m.Run
		l.m, l.tracked = m, Track(m)
	case l.req.Client == nil || l.req.Run == "":
		return usage.Errorf("%s is not an output folder of a run: %w", out, err)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return nil
}

func (l *lister) list(ctx context.Context) error {
	if l.req.Client != nil && l.req.Newest && l.req.Newer != nil && l.req.Limit > 0 && len(l.req.States) > 0 {
		ids, more, ok := l.req.Newer(l.req.Run, l.req.States, l.req.Skip, l.req.Limit)
		// If the page is not full, files without a record may follow.
		if ok && (len(ids) == l.req.Limit || !l.wants(record.StateDone)) {
			return l.known(ctx, ids, more)
		}
	}
	if l.req.Client != nil {
		if err := l.records(ctx); err != nil {
			return err
		}
	}
	if l.m == nil || !l.wants(StateQueued) && !l.wants(record.StateDone) {
		return nil
	}
	if err := l.outputs(ctx); err != nil {
		return err
	}
	return l.queued(ctx)
}

// recordsAtOnce is how many records are requested at the same time.
const recordsAtOnce = 8

// known lists these jobs, which follow the skipped ones. A job whose state has changed
// meanwhile is listed as it is now.
func (l *lister) known(ctx context.Context, ids []string, more bool) error {
	states := make([]*record.Job, len(ids))
	ask, asked := errgroup.WithContext(ctx)
	ask.SetLimit(recordsAtOnce)
	for i, id := range ids {
		ask.Go(func() error {
			s, err := l.req.Client.Job(asked, l.req.Run, id)
			if err == nil {
				states[i] = &s
			} else if !errors.Is(err, jobs.ErrNoJob) {
				return err
			}
			return nil
		})
	}
	if err := ask.Wait(); err != nil {
		return err
	}
	for _, s := range states {
		if s == nil {
			continue
		}
		j, _ := l.record(*s)
		if err := l.do(j); err != nil {
			return err
		}
	}
	if more {
		return errLimit
	}
	return nil
}

// record makes a line of a job's record; told reports whether the job was listed
// before.
func (l *lister) record(s record.Job) (j JobLine, told bool) {
	j = JobLine{Job: s.Job, State: s.State, Attempt: s.Attempt, Worker: s.Worker, Updated: s.Updated, Error: s.Error,
		Last: -1}
	if s.Totals != nil {
		j.Documents, j.Tokens = s.Totals.Documents, s.Totals.Tokens
	}
	if l.m == nil {
		return j, false
	}
	i, ok := l.tracked.find(s.Job)
	if ok {
		file, cut := l.tracked.where(i)
		j.File = l.m.Files[file].Input.Rel
		j.First, j.Last = l.tracked.rows(file, cut)
		told = l.mark(i, s.State)
	}
	return j, told
}

// mark notes that a job is listed, and reports whether it was listed before.
func (l *lister) mark(i int32, s record.State) (before bool) {
	before = l.tracked.state(i) != StateQueued
	l.tracked.set(i, s, done{}, "")
	return before
}

// records lists the jobs that have a record.
func (l *lister) records(ctx context.Context) error {
	scan, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	tell, last := l.tell, newest[JobLine]{}
	if l.req.Newest {
		if l.req.Limit > 0 {
			last.most = l.req.Skip + l.req.Limit
		}
		tell = func(j JobLine) error {
			if l.wants(j.State) {
				last.add(j)
			}
			return nil
		}
	}
	err := l.req.Client.JobStates(scan, l.req.Run, func(s record.Job) {
		if scan.Err() != nil {
			return
		}
		j, told := l.record(s)
		if told {
			return
		}
		if err := tell(j); err != nil {
			stop(err)
		}
	})
	if cause := context.Cause(scan); cause != nil && ctx.Err() == nil {
		return cause
	}
	if err != nil && !errors.Is(err, jobs.ErrNotSetUp) {
		return err
	}
	for j := range last.backwards() {
		if err := l.tell(j); err != nil {
			return err
		}
	}
	if last.left > 0 {
		return errLimit
	}
	return nil
}

// outputs lists the committed jobs that have no record.
func (l *lister) outputs(ctx context.Context) error {
	outputs := l.m.Outputs()
	for p, err := range outdir.ListOutputs(ctx, l.req.Out) {
		if err != nil {
			return err
		}
		j, ok := outputs.Job(strings.TrimPrefix(strings.TrimPrefix(p, l.req.Out), "/"))
		if !ok {
			continue
		}
		if i, ok := l.tracked.find(j.ID); !ok || l.mark(i, record.StateDone) {
			continue
		}
		if err := l.tell(line(j, record.StateDone)); err != nil {
			return err
		}
	}
	return nil
}

func line(j score.Job, s record.State) JobLine {
	return JobLine{Job: j.ID, State: s, File: j.Input.Rel, First: j.First, Last: j.Last}
}

// queued lists the other jobs.
func (l *lister) queued(ctx context.Context) error {
	if !l.wants(StateQueued) {
		return nil
	}
	for n := range l.tracked.Len() {
		i := int32(n) //nolint:gosec // a run has fewer jobs
		if l.tracked.state(i) != StateQueued {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.tell(line(l.tracked.Job(i), StateQueued)); err != nil {
			return err
		}
	}
	return nil
}

// JobDetail is all that is known about one job.
type JobDetail struct {
	Run   string       `json:"run"`
	Job   string       `json:"job"`
	State record.State `json:"state"`
	// File, rows and Output are from the manifest, or from the dead letter.
	File   string `json:"file,omitempty"`
	Input  string `json:"input,omitempty"`
	First  int64  `json:"first"`
	Last   int64  `json:"last"`
	Output string `json:"output,omitempty"`
	// There is the state of the output: committed, missing, or what is wrong with it.
	There     string `json:"there"`
	Documents int64  `json:"documents,omitempty"`
	Tokens    int64  `json:"tokens,omitempty"`
	Failed    int64  `json:"failed_rows,omitempty"`
	Digest    string `json:"digest,omitempty"`
	// Queued is when its message was queued, if the message is still there.
	Queued time.Time          `json:"queued,omitzero"`
	Record *record.Job        `json:"record,omitempty"`
	Letter *record.DeadLetter `json:"dead_letter,omitempty"`
}

// GetJob looks up one job of a run by its ID or a unique prefix. With a nil client it
// reads only OUT.
func GetJob(ctx context.Context, client *jobs.Client, out, run, id string) (*JobDetail, error) {
	d := &JobDetail{Run: run, Job: id, There: "unknown: cannot read the output folder on this machine", Last: -1}
	m, err := outdir.ReadManifest(ctx, out)
	seen := err == nil && (run == "" || m.Run == run)
	switch {
	case seen:
		m.Out, d.Run = out, m.Run
		found := Track(m).byPrefix(id)
		switch {
		case len(found) == 0:
			return nil, usage.Errorf("run %s has no job %s", m.Run, id)
		case len(found) > 1:
			return nil, usage.Errorf("several job IDs begin with %s: give more of it", id)
		}
		if err := d.output(ctx, found[0]); err != nil {
			return nil, err
		}
	case client == nil:
		return nil, usage.Errorf("%s is not an output folder of a run: %w", out, err)
	}
	if client == nil {
		d.State = StateQueued
		if d.There == "committed" {
			d.State = record.StateDone
		}
		return d, nil
	}
	return d, d.ask(ctx, client, seen)
}

// output fills in what the manifest and OUT have.
func (d *JobDetail) output(ctx context.Context, j score.Job) error {
	d.Job, d.File, d.Input, d.First, d.Last, d.Output = j.ID, j.Input.Rel, j.Input.Path, j.First, j.Last,
		place.Join(j.Out, j.Output)
	c, err := shard.Inspect(ctx, d.Output)
	switch {
	case err == nil && c.Job == j.ID && c.ConfigDigest == j.ConfigDigest:
		d.There = "committed"
		d.Documents, d.Tokens, d.Failed, d.Digest = c.Totals.Documents, c.Totals.Tokens, c.Totals.Failed, c.Digest
	case err == nil:
		d.There = fmt.Sprintf("a file of job %s of run %s is there instead", c.Job, c.Run)
	case errors.Is(err, fs.ErrNotExist):
		d.There = "missing"
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		d.There = "unreadable: " + err.Error()
	}
	return nil
}

// ask fills in what the queue has.
func (d *JobDetail) ask(ctx context.Context, client *jobs.Client, known bool) error {
	s, err := client.Job(ctx, d.Run, d.Job)
	switch {
	case err == nil:
		d.State, d.Record = s.State, &s
	case errors.Is(err, jobs.ErrNoJob), errors.Is(err, jobs.ErrNotSetUp):
		d.State = StateQueued
		if d.There == "committed" {
			d.State = record.StateDone
		}
	default:
		return err
	}
	if d.Queued, err = client.Queued(ctx, d.Run, d.Job); err != nil && !errors.Is(err, jobs.ErrNotSetUp) {
		return err
	}
	letter, err := client.Letter(ctx, d.Run, d.Job)
	switch {
	case err == nil:
		d.Letter = &letter
		if j := letter.Job; j != nil && !known {
			d.File, d.Input, d.First, d.Last, d.Output = j.Input.Rel, j.Input.Path, j.First, j.Last,
				place.Join(j.Out, j.Output)
		}
	case !errors.Is(err, jobs.ErrNoJob) && !errors.Is(err, jobs.ErrNotSetUp):
		return err
	}
	if !known && d.Record == nil && d.Letter == nil && d.Queued.IsZero() {
		return usage.Errorf("the queue knows no job %s of run %s: give the whole ID, or run this where the output "+
			"folder can be read", d.Run, d.Job)
	}
	return nil
}

// NewestDead lists dead letters of a run, or of all runs with run "", the newest
// first: at most limit after the first skip. It keeps skip+limit in memory. total is
// how many there are.
func NewestDead(
	ctx context.Context, client *jobs.Client, run string, skip, limit int,
) (letters []record.DeadLetter, total int, err error) {
	last := newest[record.DeadLetter]{most: skip + limit}
	err = client.DeadEach(ctx, run, func(d record.DeadLetter) { total++; last.add(d) })
	if err != nil && !errors.Is(err, jobs.ErrNotSetUp) {
		return nil, 0, err
	}
	n := 0
	for d := range last.backwards() {
		if n++; n > skip {
			letters = append(letters, d)
		}
	}
	return letters, total, nil
}

// newest keeps the elements added last.
type newest[T any] struct {
	most int // 0: all
	ring []T
	next int // index of the oldest element of a full ring
	left int // elements dropped
}

func (n *newest[T]) add(x T) {
	if n.most == 0 || len(n.ring) < n.most {
		n.ring = append(n.ring, x)
		return
	}
	n.ring[n.next], n.next, n.left = x, (n.next+1)%n.most, n.left+1
}

// backwards gives the elements, the last one first.
func (n *newest[T]) backwards() iter.Seq[T] {
	return func(yield func(T) bool) {
		for i := range n.ring {
			if !yield(n.ring[(n.next+len(n.ring)-1-i)%len(n.ring)]) {
				return
			}
		}
	}
}

// DeadLetters lists a run's dead letters, or those of all runs with run "".
func DeadLetters(ctx context.Context, client *jobs.Client, run string) ([]record.DeadLetter, error) {
	letters, err := client.Dead(ctx, run)
	switch {
	case errors.Is(err, jobs.ErrNotSetUp):
		return []record.DeadLetter{}, nil
	case err != nil:
		return nil, err
	case len(letters) > 0:
		return letters, nil
	case run != "":
		if _, err := client.Run(ctx, run); err != nil {
			return nil, err // an unknown run is an error, not an empty list
		}
	}
	return []record.DeadLetter{}, nil
}
