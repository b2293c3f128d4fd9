package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// state answers with what the page shows, once.
func (s *Server) state(w http.ResponseWriter, r *http.Request) {
	st, _ := s.current()
	answer(w, s.view(st, parseQuery(r.URL.Query())))
}

const (
	// writeWithin is how long a browser may take to read one event.
	writeWithin = 10 * time.Second
	// aliveEvery is the longest time without an event, so that a connection that
	// is gone is noticed.
	aliveEvery = 10 * time.Second
)

// events is the page's stream: a view each time that it changes.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	full := s.looking >= streamsAtMost
	if !full {
		s.looking++
	}
	s.mu.Unlock()
	if full {
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%d browsers are connected already", streamsAtMost))
		return
	}
	defer func() {
		s.mu.Lock()
		s.looking--
		s.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx must not buffer
	out := http.NewResponseController(w)
	q := parseQuery(r.URL.Query())
	var sent []byte
	var at time.Time
	for {
		st, changed := s.current()
		v := s.view(st, q)
		now := v.At
		v.At = 0
		b, err := json.Marshal(v)
		if err != nil {
			s.cfg.Log.Error().Err(err).Msg("could not render the page")
			return
		}
		if !bytes.Equal(b, sent) || time.Since(at) > aliveEvery {
			sent, at = b, time.Now()
			if err := out.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
				return
			}
			if _, err := fmt.Fprintf(w, "retry: 1000\nid: %d\ndata: %s\n\n", now, b); err != nil {
				return
			}
			if err := out.Flush(); err != nil {
				return
			}
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}
