package serve

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/monitor"
	"surprisal/internal/usage"
)

const (
	jobsPage = 50
	deadPage = 20
	// deepest is the last line that a browser can page to; commands list all.
	deepest = 5000
	// listWithin is how long a list may take.
	listWithin = time.Minute
)

// codeOf is the HTTP status of an error.
func codeOf(err error) int {
	var use *usage.Error
	switch {
	case errors.Is(err, errReadOnly), errors.Is(err, conn.ErrDenied), errors.Is(err, conn.ErrAuth):
		return http.StatusForbidden
	case errors.Is(err, errToken):
		return http.StatusUnauthorized
	case errors.Is(err, jobs.ErrNoRun), errors.Is(err, jobs.ErrNoJob), errors.Is(err, jobs.ErrNoWorker):
		return http.StatusNotFound
	case errors.Is(err, jobs.ErrHeld), errors.Is(err, errBusy):
		return http.StatusConflict
	case errors.As(err, &use):
		return http.StatusUnprocessableEntity
	case errors.Is(err, errNotYet), errors.Is(err, conn.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// scan waits for its turn to read a list: many at a time would cost memory and slow the
// server down.
func (s *Server) scan(ctx context.Context, do func(ctx context.Context, client *jobs.Client) error) error {
	client, err := s.queue()
	if err != nil {
		return err
	}
	if !client.Connected() {
		return conn.ErrUnreachable
	}
	ctx, cancel := context.WithTimeout(ctx, listWithin)
	defer cancel()
	select {
	case s.scans <- struct{}{}:
		defer func() { <-s.scans }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return do(ctx, client)
}

// pageOf reads the page asked for, of size lines each.
func pageOf(r *http.Request, size int) int {
	n, _ := strconv.Atoi(r.URL.Query().Get("page")) // none is the first
	return max(0, min(n, deepest/size-1))
}

type jobsAnswer struct {
	Run   string            `json:"run"`
	State string            `json:"state"`
	Jobs  []monitor.JobLine `json:"jobs"`
	Page  int               `json:"page"`
	Size  int               `json:"size"`
	More  bool              `json:"more"`
	Deep  bool              `json:"deep"` // there are more than any page shows
	Took  float64           `json:"took"` // seconds
}

// jobs lists a page of a run's jobs, as dispatcher jobs does, the newest first.
func (s *Server) jobs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	a := jobsAnswer{Run: q.Get("run"), State: q.Get("state"), Jobs: []monitor.JobLine{}, Page: pageOf(r, jobsPage),
		Size: jobsPage}
	began := time.Now()
	err := s.scan(r.Context(), func(ctx context.Context, client *jobs.Client) error {
		rec, err := client.Run(ctx, a.Run)
		if err != nil {
			return err
		}
		req := monitor.ListRequest{Out: rec.Out, Run: rec.ID, Client: client, Skip: a.Page * jobsPage, Limit: jobsPage,
			Newest: true}
		if m := s.watch.Load(); m != nil {
			req.Newer = m.Newest
		}
		if a.State != "" {
			req.States = []record.State{record.State(a.State)}
		}
		a.More, err = monitor.ListJobs(ctx, req, func(j monitor.JobLine) error {
			a.Jobs = append(a.Jobs, j)
			return nil
		})
		return err
	})
	if err != nil {
		fail(w, err)
		return
	}
	if a.Took = time.Since(began).Seconds(); a.More && (a.Page+2)*jobsPage > deepest {
		a.More, a.Deep = false, true
	}
	answer(w, a)
}

// job answers with one job, as dispatcher job does.
func (s *Server) job(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var d *monitor.JobDetail
	err := s.scan(r.Context(), func(ctx context.Context, client *jobs.Client) error {
		rec, err := client.Run(ctx, q.Get("run"))
		if err != nil {
			return err
		}
		d, err = monitor.GetJob(ctx, client, rec.Out, rec.ID, q.Get("job"))
		return err
	})
	if err != nil {
		fail(w, err)
		return
	}
	if d.Letter != nil {
		d.Letter.Raw = nil // bytes that are not a job
	}
	answer(w, d)
}

type deadAnswer struct {
	Run     string              `json:"run,omitempty"`
	Letters []record.DeadLetter `json:"letters"`
	Total   int                 `json:"total"`
	Page    int                 `json:"page"`
	Size    int                 `json:"size"`
}

// dead lists a page of dead letters, as dispatcher dead list does, the newest first.
func (s *Server) dead(w http.ResponseWriter, r *http.Request) {
	a := deadAnswer{Run: r.URL.Query().Get("run"), Letters: []record.DeadLetter{}, Page: pageOf(r, deadPage),
		Size: deadPage}
	letters, total, err := s.letters(r.Context(), a.Run, a.Page*deadPage, deadPage)
	if err != nil {
		fail(w, err)
		return
	}
	a.Letters, a.Total = append(a.Letters, letters...), total
	answer(w, a)
}

// letters reads dead letters, the newest first, without bytes that are not a job, and
// their number; run is empty for all runs.
func (s *Server) letters(ctx context.Context, run string, skip, limit int) (list []record.DeadLetter, total int,
	err error) {
	err = s.scan(ctx, func(ctx context.Context, client *jobs.Client) (err error) {
		list, total, err = monitor.NewestDead(ctx, client, run, skip, limit)
		return err
	})
	for i := range list {
		list[i].Raw = nil
	}
	return list, total, err
}
