package jobs

import (
	"context"
	"time"
)

// watchdog acts when no jobs arrive: servers and clients have been observed to stop
// delivering although messages are pending.
type watchdog struct {
	k     *Consumer
	since time.Time // when the silence began, or the last step against it was taken
	steps int
}

// look acts if the silence lasts although jobs are pending that this worker may take: it
// renews the consumers' handles and, next time, the connection, in turn.
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
