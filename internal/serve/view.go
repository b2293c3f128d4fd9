package serve

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"surprisal/internal/jobs/record"
	"surprisal/internal/monitor"
)

const (
	// workersPage is how many workers a browser is sent at a time, runsMost how many
	// runs: those that live, then the newest of the others.
	workersPage = 20
	liveMost    = 50
	finalMost   = 12
	// cellsMost bounds the overview of all workers.
	cellsMost = 2000
)

// state is all that is known, before a browser's selection. It is immutable.
type state struct {
	at      time.Time
	link    link
	fleet   fleet
	runs    []run // newest first
	workers []worker
}

// link is the connection to NATS.
type link struct {
	OK    bool      `json:"ok"`
	URL   string    `json:"url"`
	Why   string    `json:"why,omitempty"` // why there is no answer
	Since time.Time `json:"since"`         // it is so
	Seen  time.Time `json:"seen,omitzero"` // time of the shown state
}

// fleet is all workers and runs together.
type fleet struct {
	Workers  int            `json:"workers"`
	States   map[string]int `json:"states"` // of workers
	GPUs     int            `json:"gpus"`   // that tell of themselves
	Rate     float64        `json:"rate"`   // tokens/s
	Use      *float64       `json:"use,omitempty"`
	Power    *float64       `json:"power,omitempty"`
	Live     int            `json:"live"` // runs that are not over
	Jobs     int            `json:"jobs"` // of those
	Done     int            `json:"done"`
	Dead     int            `json:"dead"`           // of all runs
	Left     *float64       `json:"left,omitempty"` // seconds, of the run that takes longest
	Queue    uint64         `json:"queue"`          // messages
	InHand   int            `json:"in_hand"`
	Again    int            `json:"redelivered"`
	Oldest   time.Time      `json:"oldest,omitzero"`
	Rates    *line          `json:"rates"`
	Uses     *line          `json:"uses"`
	Powers   *line          `json:"powers"`
	Step     float64        `json:"step"` // seconds between points
	MoreRuns int            `json:"more_runs"`
}

// run is a row of the runs.
type run struct {
	ID         string               `json:"id"`
	State      record.RunState      `json:"state"`
	Over       bool                 `json:"over"`
	Model      string               `json:"model"`
	Out        string               `json:"out"`
	Inputs     []string             `json:"inputs"`
	InputCount int                  `json:"input_count"`
	Created    string               `json:"created"`
	Program    string               `json:"program"`
	Options    string               `json:"options"`
	Priority   int                  `json:"priority"`
	Jobs       int                  `json:"jobs"`
	Counts     map[record.State]int `json:"counts"`
	Rows       int64                `json:"rows"`
	Documents  int64                `json:"documents"` // those in hand too
	FailedRows int64                `json:"failed_rows"`
	Tokens     int64                `json:"tokens"`
	Estimated  int64                `json:"estimated_tokens"`
	Percent    float64              `json:"percent"`
	Rate       float64              `json:"rate"`
	Left       *float64             `json:"left,omitempty"`
	Workers    int                  `json:"workers"` // that have it in hand
	Dispatcher string               `json:"dispatcher,omitempty"`
	Error      string               `json:"error,omitempty"`
	LastDone   time.Time            `json:"last_done,omitzero"`
	LastError  string               `json:"last_error,omitempty"`
	Counting   bool                 `json:"counting,omitempty"`
	Rates      *line                `json:"rates"`
}

// worker is a row of the workers.
type worker struct {
	ID      string    `json:"id"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Engine  string    `json:"engine"`
	Device  string    `json:"device"`
	Version string    `json:"version"`
	State   string    `json:"state"` // busy, idle, draining, silent, stalled, gone
	Stalled string    `json:"stalled,omitempty"`
	Rate    float64   `json:"rate"`
	Jobs    int64     `json:"jobs"`
	Tokens  int64     `json:"tokens"`
	Started time.Time `json:"started"`
	Seen    time.Time `json:"seen"` // by this machine's clock
	Hand    []inHand  `json:"hand"`
	GPU     *gpu      `json:"gpu,omitempty"`
	Rates   *line     `json:"rates"`
	Uses    *line     `json:"uses,omitempty"`
	Powers  *line     `json:"powers,omitempty"`
}

type inHand struct {
	Run       string `json:"run"`
	Job       string `json:"job"`
	Documents int64  `json:"documents"`
	Tokens    int64  `json:"tokens"`
}

// compose makes the state from the monitor's.
func (s *Server) compose(h *history, now time.Time) state {
	s.mu.Lock()
	was := s.now.link
	s.mu.Unlock()
	st := state{at: now, link: link{URL: s.cfg.NATS, Why: "not connected to NATS yet"}}
	st.fleet = fleet{States: map[string]int{}, Step: sampleEvery.Seconds()}
	var over monitor.Overview
	if m := s.watch.Load(); m != nil {
		over = m.Overview()
		if u := s.client.Load().URL(); u != "" {
			st.link.URL = u
		}
		switch {
		case over.Trouble != nil:
			st.link.Why = oneLine(over.Trouble.Error())
		case over.Seen.IsZero():
			st.link.Why = "waiting for the first answer"
		default:
			st.link.OK, st.link.Why = true, ""
		}
		st.link.Seen = over.Seen
	}
	if st.link.Since = was.Since; was.OK != st.link.OK || was.Since.IsZero() {
		st.link.Since = now
	}
	if over.Seen.After(h.looked) {
		h.looked = over.Seen
		h.workersNow(over.Workers, now)
	}
	sampled := st.link.OK && h.sample(now)
	s.composeWorkers(&st, h, now)
	composeRuns(&st, h, over, sampled)
	f := &st.fleet
	f.Queue, f.InHand, f.Again, f.Oldest = over.Queue.Messages, over.Queue.AckPending, over.Queue.Redelivered,
		over.Queue.Oldest
	if sampled {
		h.rate.add(f.Rate)
		h.use.add(orNaN(f.Use))
		h.power.add(orNaN(f.Power))
	}
	f.Rates, f.Uses, f.Powers = h.rate.line(1), h.use.line(1), h.power.line(1)
	return st
}

func (s *Server) composeWorkers(st *state, h *history, now time.Time) {
	f := &st.fleet
	var use, power float64
	uses, powers := 0, 0
	for id, p := range h.workers {
		r := &p.record
		w := worker{
			ID: id, Host: r.Host, PID: r.PID, Engine: r.Engine, Device: r.Device, Version: r.Version,
			Stalled: r.Stalled, Rate: r.TokensPerSec,
			Jobs: r.JobsDone, Tokens: r.TokensDone, Started: r.Started, Seen: p.moved, Hand: []inHand{}, GPU: gpuOf(*r),
			Rates: p.rate.line(1), Uses: p.use.line(1), Powers: p.power.line(1),
		}
		for _, x := range r.Progress[:min(len(r.Progress), 16)] {
			w.Hand = append(w.Hand, inHand(x))
		}
		switch {
		case !p.gone.IsZero():
			w.State, w.Rate = "gone", 0
		case r.Stalled != "":
			w.State = "stalled"
		case st.link.OK && now.Sub(p.moved) > silentAfter:
			w.State, w.Rate = "silent", 0
		case r.Draining:
			w.State = "draining"
		case len(r.Progress) > 0:
			w.State = "busy"
		default:
			w.State = "idle"
		}
		if w.State != "gone" {
			f.Workers++
			f.Rate += w.Rate
			if g := w.GPU; g != nil {
				f.GPUs++
				if g.Use != nil {
					use, uses = use+*g.Use, uses+1
				}
				if g.Power != nil {
					power, powers = power+*g.Power, powers+1
				}
			}
		}
		f.States[w.State]++
		st.workers = append(st.workers, w)
	}
	if uses > 0 {
		use /= float64(uses)
		f.Use = &use
	}
	if powers > 0 {
		f.Power = &power
	}
	slices.SortFunc(st.workers, func(a, b worker) int { return strings.Compare(a.ID, b.ID) })
}

func composeRuns(st *state, h *history, over monitor.Overview, sampled bool) {
	f := &st.fleet
	there := map[string]bool{}
	for i := len(over.Runs) - 1; i >= 0; i-- {
		rs, more := &over.Runs[i], &over.More[i]
		rec := &rs.Run
		there[rec.ID] = true
		r := run{
			ID: rec.ID, State: rec.State, Over: rec.State.Final(), Model: modelName(rec), Out: rec.Out,
			Inputs:     rec.Inputs[:min(len(rec.Inputs), 4)],
			InputCount: rec.InputCount, Created: rec.Created, Program: rec.Program, Options: options(rec),
			Priority: rec.Priority, Jobs: rec.Jobs,
			Counts: maps.Clone(rs.Jobs), Rows: rec.Rows, Documents: rs.Documents, FailedRows: more.Failed,
			Tokens: rs.Tokens, Estimated: rec.Tokens,
			Percent: math.Floor(rs.Pace.Percent*10) / 10, Rate: rs.Pace.TokensPerSec, Left: rs.Pace.Left,
			Error: clip(rec.Error,
				300),
			LastDone: more.LastDone, LastError: clip(more.LastError, 300), Counting: more.Counting,
		}
		if d := rs.Dispatcher; d != nil {
			r.Dispatcher = fmt.Sprintf("%s on %s, pid %d", d.Command, clip(d.Host, 80), d.PID)
		}
		for k := range st.workers {
			w := &st.workers[k]
			if w.State == "gone" {
				continue
			}
			ours := false
			for _, x := range w.Hand {
				if x.Run == rec.ID {
					ours = true
					r.Documents += x.Documents
					r.Tokens += x.Tokens
				}
			}
			if ours {
				r.Workers++
			}
		}
		if rec.State == record.RunComplete {
			// Records may have expired; the run was checked, so it is complete.
			r.Counts, r.Documents = map[record.State]int{record.StateDone: rec.Jobs}, rec.Rows
		}
		left := rec.Jobs
		for _, n := range r.Counts {
			left -= n
		}
		if left > 0 && !more.Counting {
			r.Counts[monitor.StateQueued] = left
		}
		f.Dead += r.Counts[record.StateDead]
		p := h.runs[rec.ID]
		if !r.Over {
			f.Live++
			f.Jobs += rec.Jobs
			f.Done += r.Counts[record.StateDone]
			if r.Left != nil && (f.Left == nil || *r.Left > *f.Left) {
				f.Left = r.Left
			}
			if p == nil {
				p = &series{most: fleetPoints}
				h.runs[rec.ID] = p
			}
		}
		if p != nil {
			if sampled && !r.Over {
				p.add(r.Rate)
			}
			r.Rates = p.line(1)
		}
		st.runs = append(st.runs, r)
	}
	for id := range h.runs {
		if !there[id] {
			delete(h.runs, id)
		}
	}
	// Those that go on first, then those that may; the newest first among equals.
	slices.SortStableFunc(st.runs, func(a, b run) int {
		return cmp.Compare(rank(a.State), rank(b.State))
	})
}

func rank(s record.RunState) int {
	switch {
	case s.Final():
		return 2
	case s == record.RunPaused:
		return 1
	}
	return 0
}

func modelName(r *record.Run) string {
	if r.Model.Name != "" {
		return r.Model.Name
	}
	return r.Model.Dir
}

func options(r *record.Run) string {
	o := r.Options
	s := "column " + o.TextColumn
	if o.IDsColumn != "" {
		s = "token IDs in column " + o.IDsColumn
	}
	return fmt.Sprintf("%s, long documents: %s, L = %d, engine: %s", s, o.Long, o.MaxLength, o.Engine)
}

// query is a browser's selection.
type query struct {
	page       int
	sort, find string
	run        string // beside those that are shown anyway
	size       int    // workers a page; 0 is workersPage
}

func parseQuery(v url.Values) query {
	n, _ := strconv.Atoi(v.Get("page")) // none is the first
	return query{page: max(0, min(n, 10_000)), sort: v.Get("sort"), find: strings.ToLower(clip(v.Get("find"), 80)),
		run: v.Get("run")}
}

// view is the state as sent to a browser.
type view struct {
	At       int64  `json:"at"` // milliseconds
	Program  string `json:"program"`
	Controls bool   `json:"controls"` // with the token
	Link     link   `json:"link"`
	Fleet    fleet  `json:"fleet"`
	Runs     []run  `json:"runs"`
	Workers  struct {
		List  []worker `json:"list"`
		Found int      `json:"found"`
		Page  int      `json:"page"`
		Size  int      `json:"size"`
		// Cells has a character for each worker, by name: see cell.
		Cells string `json:"cells"`
	} `json:"workers"`
}

func (s *Server) view(st state, q query) view {
	v := view{At: st.at.UnixMilli(), Program: s.cfg.Program, Controls: s.guard.open, Link: st.link, Fleet: st.fleet,
		Runs: []run{}}
	live, final := 0, 0
	for _, r := range st.runs {
		if r.Over {
			final++
		} else {
			live++
		}
		if r.Over && final > finalMost || !r.Over && live > liveMost {
			v.Fleet.MoreRuns++
			if r.ID != q.run {
				continue
			}
			v.Fleet.MoreRuns--
		}
		v.Runs = append(v.Runs, r)
	}
	found := make([]*worker, 0, len(st.workers))
	var cells strings.Builder
	for i := range st.workers {
		w := &st.workers[i]
		if i < cellsMost {
			cells.WriteByte(w.cell())
		}
		if q.find == "" || strings.Contains(strings.ToLower(w.ID+" "+w.Host+" "+w.Engine+" "+w.Device+" "+w.State),
			q.find) {
			found = append(found, w)
		}
	}
	slices.SortStableFunc(found, func(a, b *worker) int {
		switch q.sort {
		case "slow":
			return cmp.Compare(a.Rate, b.Rate)
		case "fast":
			return cmp.Compare(b.Rate, a.Rate)
		case "name":
			return 0
		}
		return cmp.Compare(trouble(a.State), trouble(b.State))
	})
	p := &v.Workers
	p.Found, p.Size, p.Cells, p.List = len(found), cmp.Or(q.size, workersPage), cells.String(), []worker{}
	p.Page = min(q.page, max(0, (len(found)-1)/p.Size))
	for _, w := range found[p.Page*p.Size : min(len(found), (p.Page+1)*p.Size)] {
		p.List = append(p.List, *w)
	}
	return v
}

// trouble ranks a worker's states, the worst first.
func trouble(state string) int {
	i := slices.Index([]string{"stalled", "silent", "gone", "draining", "busy"}, state)
	if i < 0 {
		return 5
	}
	return i
}

// cell is a worker in the overview of all: 0 to 9 for how busy its GPU is, or a letter
// for its state where that is unknown.
func (w *worker) cell() byte {
	switch w.State {
	case "stalled":
		return 'x'
	case "silent":
		return 's'
	case "gone":
		return 'g'
	case "draining":
		return 'd'
	case "idle":
		return 'i'
	}
	if w.GPU != nil && w.GPU.Use != nil {
		return '0' + byte(max(0, min(9, *w.GPU.Use*10)))
	}
	return 'b'
}
