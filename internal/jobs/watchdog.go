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

// look acts when the silence has lasted and jobs are pending that this worker may
// take: first it looks at the runs anew, then it makes a new connection, and so on
// in turn.
func (w *watchdog) look(ctx context.Context) {
	k := w.k
	if time.Since(w.since) < k.cfg.IdleAfter || !k.c.Connected() {
		return
	}
	w.since = time.Now()
	if err := k.roster.refresh(ctx); err != nil {
		if ctx.Err() == nil {
			k.log.Warn().Err(err).Msg("no job arrives, and the queue does not answer")
		}
		return
	}
	stuck := ""
	pending := uint64(0)
	for _, q := range k.roster.pending(time.Now()) {
		switch {
		case q.Paused:
		case q.AckPending >= q.Config.MaxAckPending:
			k.log.Warn().Str("run", q.Run).Int("ack_pending", q.AckPending).
				Msg("no job: MaxAckPending jobs are in hand or delayed")
		default:
			stuck, pending = q.Run, pending+q.Pending
		}
	}
	if stuck == "" {
		w.steps = 0
		return
	}
	w.steps++
	log := k.log.Warn().Uint64("pending", pending).Str("run", stuck).Int("step", w.steps)
	if w.steps%2 == 1 {
		log.Msg("no job arrives although jobs are pending; renewing the consumers' handles")
		k.roster.rouse()
		return
	}
	log.Msg("no job arrives although jobs are pending; reconnecting")
	if err := k.c.nc.ForceReconnect(); err != nil {
		k.log.Warn().Err(err).Msg("reconnect")
	}
}
