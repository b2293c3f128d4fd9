package jobs

import (
	"context"
	"time"
)

// watchdog breaks a silence: servers and clients have been seen to stop
// delivering while messages wait.
type watchdog struct {
	k     *Consumer
	since time.Time // of the silence, or of the last step against it
	steps int
}

// look acts when the silence has lasted and jobs are pending: first a new handle
// of the consumer, then a new connection, and so on in turn.
func (w *watchdog) look(ctx context.Context) {
	k := w.k
	if time.Since(w.since) < k.cfg.IdleAfter || !k.c.Connected() {
		return
	}
	w.since = time.Now()
	h, err := k.c.js.Consumer(perRequest{ctx}, JobStream, WorkDurable)
	if err != nil {
		if ctx.Err() == nil {
			k.log.Warn().Err(k.c.fail("look at the queue", err)).Msg("no job, and the queue does not answer")
		}
		return
	}
	info := h.CachedInfo()
	switch {
	case info.NumPending == 0:
		w.steps = 0
		return
	case info.Paused:
		k.log.Warn().Dur("for", info.PauseRemaining).Msg("no job: the queue's consumer is paused")
		return
	case info.NumAckPending >= k.top.MaxAckPending:
		k.log.Warn().Int("ack_pending", info.NumAckPending).Msg("no job: as many as MaxAckPending allows are in workers' hands or delayed")
		return
	}
	w.steps++
	log := k.log.Warn().Uint64("pending", info.NumPending).Int("step", w.steps)
	if w.steps%2 == 1 {
		log.Msg("no job though jobs are pending: taking a new handle of the consumer")
		k.mu.Lock()
		k.handle = h
		k.mu.Unlock()
		return
	}
	log.Msg("still no job though jobs are pending: reconnecting")
	if err := k.c.nc.ForceReconnect(); err != nil {
		k.log.Warn().Err(err).Msg("reconnect")
	}
}
