package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"surprisal/internal/dispatch"
	"surprisal/internal/usage"
)

// order is a requested action.
type order struct {
	Do   string `json:"do"` // pause, resume, cancel, retry or drain
	Name string `json:"name"`
	// Confirm repeats the name, as a confirmation.
	Confirm string `json:"confirm"`
	Now     bool   `json:"now"` // of cancel: workers drop the jobs they have
}

// done is the result of an action.
type done struct {
	Said string `json:"said"`
}

const (
	maxOrder = 4 << 10 // bytes
	// orderWithin bounds an action: requeueing a run of a million jobs takes minutes.
	orderWithin = 10 * time.Minute
)

var errBusy = errors.New("another action on it is in progress")

// unlock tells whether a token is the right one.
func (s *Server) unlock(w http.ResponseWriter, r *http.Request) {
	if err := s.guard.may(r); err != nil {
		s.denied(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) denied(w http.ResponseWriter, r *http.Request, err error) {
	s.cfg.Log.Warn().Str("remote", r.RemoteAddr).Str("path", r.URL.Path).Err(err).Msg("control refused")
	fail(w, err)
}

// control does what dispatcher pause, resume, cancel, retry and drain do.
func (s *Server) control(w http.ResponseWriter, r *http.Request) {
	if err := s.guard.may(r); err != nil {
		s.denied(w, r, err)
		return
	}
	o, err := readOrder(w, r)
	if err != nil {
		refuse(w, http.StatusBadRequest, oneLine(err.Error()))
		return
	}
	if _, twice := s.busy.LoadOrStore(o.Name, true); twice {
		fail(w, fmt.Errorf("%s: %w", o.Name, errBusy))
		return
	}
	defer s.busy.Delete(o.Name)
	// The action continues if the browser closes the page.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), orderWithin)
	defer cancel()
	log := s.cfg.Log.With().Str("do", o.Do).Str("name", o.Name).Str("remote", r.RemoteAddr).Logger()
	said, err := s.obey(ctx, o)
	if err != nil {
		log.Warn().Err(err).Msg("control failed")
		fail(w, err)
		return
	}
	log.Info().Str("said", said).Msg("control")
	answer(w, done{said})
}

func readOrder(w http.ResponseWriter, r *http.Request) (o order, err error) {
	if r.Header.Get("Content-Type") != "application/json" {
		return o, errors.New("the request body must be application/json")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Second)) // where it can be set
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOrder))
	if err != nil {
		return o, fmt.Errorf("read the request: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return o, fmt.Errorf("read the request: %w", err)
	}
	if o.Name == "" || o.Confirm != o.Name {
		return o, errors.New("confirm by repeating the run or worker name")
	}
	return o, nil
}

func (s *Server) obey(ctx context.Context, o order) (said string, err error) {
	client, err := s.cfg.Dial(ctx)
	if err != nil {
		return "", err
	}
	defer client.Close()
	switch o.Do {
	case "pause":
		return o.Name + " is paused", dispatch.Pause(ctx, client, o.Name)
	case "cancel":
		return o.Name + " is cancelled", dispatch.Cancel(ctx, client, o.Name, o.Now)
	case "drain":
		return o.Name + " drains", client.Drain(ctx, o.Name)
	case "resume":
		rec, err := client.Run(ctx, o.Name) // a name here is a run's, never a folder's
		if err != nil {
			return "", err
		}
		res, err := dispatch.Resume(ctx, client, "", rec.ID, dispatch.QueueOptions{}, s.cfg.Log)
		switch {
		case err != nil:
			return "", err
		case res.WasPaused:
			return o.Name + " goes on", nil
		}
		return fmt.Sprintf("%s: %d of %d jobs are committed, %d are queued, %d are dead", o.Name, res.Committed,
			res.Jobs,
			res.Queued, res.Dead), nil
	case "retry":
		res, err := dispatch.Retry(ctx, client, o.Name, dispatch.RetryOptions{Dead: true, FailedFiles: true},
			dispatch.QueueOptions{}, s.cfg.Log)
		if err != nil {
			return "", err
		}
		said = fmt.Sprintf("%s: %d dead jobs requeued, %d failed files planned again (%d jobs)", o.Name, res.DeadJobs,
			res.MendedFiles,
			res.NewJobs)
		if res.FailedFiles > 0 {
			said += fmt.Sprintf(", %d files still fail", res.FailedFiles)
		}
		return said, nil
	}
	return "", &usage.Error{Err: fmt.Errorf("unknown action %q: use pause, resume, cancel, retry or drain",
		clip(o.Do, 40))}
}
