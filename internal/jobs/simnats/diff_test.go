package simnats

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/embedded"
)

var diffSeed = flag.Uint64("diff-seed", 0, "do only this seed's operations on both servers")

// ackWait is well above what the operations between two waits take: at first, and
// twice as long after each try in which the machine was too busy.
func ackWait(try int) time.Duration { return 2 * time.Second << try }

// TestSameAsRealServer does the same operations to the real server and to the
// simulated one: what each gives must be the same.
func TestSameAsRealServer(t *testing.T) {
	srv, err := embedded.Start(t.Context(), embedded.Config{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)
	seeds := 16
	if testing.Short() {
		seeds = 4
	}
	var all sync.WaitGroup // not parallel subtests: they wait, nearly all of the time
	for i := range seeds {
		seed := uint64(i + 1)
		if *diffSeed != 0 {
			if seed = *diffSeed; i > 0 {
				break
			}
		}
		all.Go(func() { same(t, srv, seed) })
	}
	all.Wait()
}

func same(t *testing.T, srv *embedded.Server, seed uint64) {
	for try := range 4 {
		nc, err := nats.Connect(srv.URL(), nats.Token(srv.Token()))
		if err != nil {
			t.Error(err)
			return
		}
		defer nc.Close()
		real, err := jetstream.New(nc)
		if err != nil {
			t.Error(err)
			return
		}
		sim := New(seed, Faults{})
		tag := fmt.Sprintf("s%dt%d", seed, try)
		a, b := &subject{js: real, tag: tag, nc: nc}, &subject{js: sim.Conn("x").JetStream(), tag: tag}
		a.ackWait, b.ackWait = ackWait(try), ackWait(try)
		slow := drive(t.Context(), seed, ackWait(try), a, b)
		sim.End()
		if slow {
			continue // the machine was too busy for AckWait to mean the same
		}
		for i := range max(len(a.said), len(b.said)) {
			if i >= len(a.said) || i >= len(b.said) || a.said[i] != b.said[i] {
				t.Errorf("seed %d, after\n%s\nthe real server says\n%s\nthe simulated one\n%s", seed,
					strings.Join(a.said[max(0, i-100):i], "\n"), at(a.said, i), at(b.said, i))
				return
			}
		}
		return
	}
	t.Errorf("seed %d: the machine is too busy", seed)
}

func at(s []string, i int) string {
	if i < len(s) {
		return s[i]
	}
	return "(nothing)"
}

// subject is a server under test, and what it said.
type subject struct {
	js      jetstream.JetStream
	nc      *nats.Conn // of the real one
	tag     string
	ackWait time.Duration
	s       jetstream.Stream
	work    jetstream.Consumer
	kv      jetstream.KeyValue
	held    []jetstream.Msg
	rev     map[string]uint64
	said    []string
}

func (x *subject) say(format string, a ...any) { x.said = append(x.said, fmt.Sprintf(format, a...)) }

// cause is an error without what only the words of one of the two have.
func cause(err error) string {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful):
		return "not deleted"
	case errors.As(err, &api):
		return fmt.Sprint(api.ErrorCode)
	case errors.Is(err, jetstream.ErrNoMessages):
		return "no messages"
	}
	return err.Error()
}

func (x *subject) setup(ctx context.Context) {
	var err error
	x.rev = map[string]uint64{}
	x.s, err = x.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "W" + x.tag, Subjects: []string{x.tag + ".job.*.*"}, Retention: jetstream.WorkQueuePolicy,
		Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1, Duplicates: 2 * x.ackWait,
	})
	x.say("create stream %s", cause(err))
	_, err = x.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "E" + x.tag, Subjects: []string{"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.W" + x.tag + ".>"},
	})
	x.say("create stream %s", cause(err))
	x.work, err = x.s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "workers", AckPolicy: jetstream.AckExplicitPolicy, AckWait: x.ackWait, MaxDeliver: 3, MaxAckPending: 4,
		FilterSubject: x.tag + ".job.r.*", MaxRequestBatch: 1,
	})
	x.say("create consumer %s", cause(err))
	_, err = x.s.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "second", AckPolicy: jetstream.AckExplicitPolicy,
		FilterSubject: x.tag + ".job.r.*"})
	x.say("overlapping consumer %s", cause(err))
	_, err = x.s.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "other", AckPolicy: jetstream.AckExplicitPolicy,
		FilterSubject: x.tag + ".job.q.*", AckWait: x.ackWait})
	x.say("other consumer %s", cause(err))
	_, err = x.js.Consumer(ctx, "W"+x.tag, "none")
	x.say("no consumer %s", cause(err))
	_, err = x.js.Stream(ctx, "N"+x.tag)
	x.say("no stream %s", cause(err))
	x.kv, err = x.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b" + x.tag, History: 1, TTL: time.Hour})
	x.say("create bucket %s", cause(err))
	_, err = x.js.KeyValue(ctx, "n"+x.tag)
	x.say("no bucket %s", cause(err))
}

// drive does one seed's operations to both. It reports whether that took so long
// that AckWait, or the time for which ids are remembered, may have ended for one and not
// for the other.
func drive(ctx context.Context, seed uint64, ackWait time.Duration, xs ...*subject) (slow bool) {
	for _, x := range xs {
		x.setup(ctx)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	var began, beat time.Time // the operations before these, and the last heartbeats
	for range 5 {
		start := time.Now()
		for range 10 {
			op, n, k := r.IntN(16), r.IntN(4), r.IntN(100)
			for _, x := range xs {
				x.do(ctx, op, n, k)
			}
		}
		if time.Since(start) > ackWait*3/10 || !began.IsZero() && time.Since(began) > ackWait*19/10 {
			return true
		}
		if began = start; beat.IsZero() {
			beat = start
		}
		// Half of AckWait, a heartbeat for some, then past the AckWait of the rest.
		rest, beats := ackWait*6/10, r.IntN(3)
		for _, wait := range []time.Duration{rest, rest, 0} {
			time.Sleep(wait)
			now := time.Now()
			for _, x := range xs {
				for i, m := range x.held {
					if wait > 0 && i%3 == beats {
						x.say("in progress %s", cause(m.InProgress()))
					}
				}
			}
			if time.Since(beat) > ackWait*19/20 {
				return true
			}
			if wait > 0 {
				beat = now
			}
		}
		time.Sleep(150 * time.Millisecond)
		for _, x := range xs {
			x.look(ctx)
		}
		if time.Since(beat) > ackWait*19/20 {
			return true
		}
	}
	return false
}

func (x *subject) do(ctx context.Context, op, n, k int) {
	key := fmt.Sprint("k", n)
	held := func() jetstream.Msg {
		if len(x.held) == 0 {
			return nil
		}
		return x.held[k%len(x.held)]
	}
	switch op {
	case 0, 1, 2, 3: // publish, under an id that may have been used
		m := nats.NewMsg(fmt.Sprintf("%s.job.%s.j%d", x.tag, []string{"r", "r", "r", "q"}[k%4], n))
		m.Data = []byte(key)
		m.Header.Set(jetstream.MsgIDHeader, fmt.Sprint(n, "/", k%3))
		f, err := x.js.PublishMsgAsync(m)
		if err != nil {
			x.say("publish %s", cause(err))
			return
		}
		select {
		case a := <-f.Ok():
			x.say("publish %s: %d, duplicate %v", m.Subject, a.Sequence, a.Duplicate)
		case err := <-f.Err():
			x.say("publish %s: %s", m.Subject, cause(err))
		}
	case 4, 5, 6: // fetch one
		m, err := x.work.Next(jetstream.FetchMaxWait(40 * time.Millisecond))
		if err != nil {
			x.say("next %s", cause(err))
			return
		}
		x.held = append(x.held, m)
		meta, err := m.Metadata()
		x.say("next %s %d, delivery %d of consumer %d: %s", m.Subject(), meta.Sequence.Stream, meta.NumDelivered,
			meta.Sequence.Consumer, cause(err))
	case 7:
		if m := held(); m != nil {
			x.say("double ack %s", cause(m.DoubleAck(ctx)))
		}
	case 8:
		if m := held(); m != nil {
			x.say("nak with delay %s", cause(m.NakWithDelay(x.ackWait/2)))
			x.settle(ctx, m)
		}
	case 9:
		if m := held(); m != nil {
			if k%2 == 0 {
				x.say("nak %s", cause(m.Nak()))
			} else {
				x.say("term %s", cause(m.TermWithReason("why")))
			}
			x.settle(ctx, m)
		}
	case 10:
		rev, err := x.kv.Create(ctx, key, []byte(fmt.Sprint(k)))
		x.note(key, rev, err)
		x.say("create %s %d %s, exists %v", key, rev, cause(err), errors.Is(err, jetstream.ErrKeyExists))
	case 11:
		rev, err := x.kv.Update(ctx, key, []byte(fmt.Sprint(k)), x.rev[key]-uint64(k%5/4))
		x.note(key, rev, err)
		x.say("update %s %d %s, mismatch %v", key, rev, cause(err), errors.Is(err, jetstream.ErrKeyRevisionMismatch))
	case 12:
		e, err := x.kv.Get(ctx, key)
		if err != nil {
			x.say("get %s %s", key, cause(err))
			return
		}
		x.say("get %s = %s, %d", e.Key(), e.Value(), e.Revision())
	case 13:
		if k%2 == 0 {
			x.say("delete %s %s", key, cause(x.kv.Delete(ctx, key)))
		} else {
			rev, err := x.kv.Put(ctx, key, []byte(fmt.Sprint(k)))
			x.note(key, rev, err)
			x.say("put %s %d %s", key, rev, cause(err))
		}
	case 14:
		switch k % 3 {
		case 0:
			x.say("delete message %d %s", k%12+1, cause(x.s.DeleteMsg(ctx, uint64(k%12+1))))
		case 1:
			if k%2 == 0 {
				x.say("purge %s", cause(x.s.Purge(ctx, jetstream.WithPurgeSubject(x.tag+".job.q.*"))))
			}
		case 2:
			b, err := x.work.Fetch(5, jetstream.FetchMaxWait(100*time.Millisecond))
			x.say("fetch 5 %s", cause(err))
			for range b.Messages() {
				x.say("got one")
			}
			x.say("fetch 5 failed: %v", b.Error() != nil)
		}
	case 15:
		m, err := x.s.GetMsg(ctx, uint64(k%9+1))
		x.message("get message", m, err)
		m, err = x.s.GetMsg(ctx, uint64(k%9+1), jetstream.WithGetMsgSubject(x.tag+".job.r.*"))
		x.message("get next message", m, err)
		m, err = x.s.GetLastMsgForSubject(ctx, fmt.Sprintf("%s.job.r.j%d", x.tag, n))
		x.message("get last", m, err)
	}
}

// settle waits until the server has done what was sent of m, which it does not answer.
func (x *subject) settle(ctx context.Context, m jetstream.Msg) {
	if x.nc == nil {
		_, _ = x.js.Stream(ctx, "W"+x.tag) // a round trip: it has been read
		time.Sleep(20 * time.Millisecond)
		return
	}
	// The real one does a consumer's acks in their order, and answers a heartbeat that
	// wants it to, here of a message that there is not.
	to := strings.Split(m.Reply(), ".")
	seq := 5
	if len(to) > 9 { // with the account in it
		seq = 7
	}
	to[seq] = "1000000"
	if _, err := x.nc.Request(strings.Join(to, "."), []byte("+WPI"), time.Minute); err != nil {
		x.say("settle: %v", err)
	}
}

func (x *subject) note(key string, rev uint64, err error) {
	if err == nil {
		x.rev[key] = rev
	}
}

func (x *subject) message(what string, m *jetstream.RawStreamMsg, err error) {
	if err != nil {
		x.say("%s %s", what, cause(err))
		return
	}
	x.say("%s %s %d %s", what, m.Subject, m.Sequence, m.Data)
}

// look says how everything stands.
func (x *subject) look(ctx context.Context) {
	s, err := x.js.Stream(ctx, "W"+x.tag)
	if err != nil {
		x.say("stream %s", cause(err))
		return
	}
	st := s.CachedInfo().State
	x.say("stream: %d messages, first %d, last %d", st.Msgs, st.FirstSeq, st.LastSeq)
	for _, name := range []string{"workers", "other"} {
		k, err := s.Consumer(ctx, name)
		if err != nil {
			x.say("consumer %s", cause(err))
			return
		}
		i := k.CachedInfo()
		x.say("consumer %s: pending %d, ack pending %d, delivered to %d", name, i.NumPending, i.NumAckPending,
			i.Delivered.Stream)
	}
	for stream, filter := range map[string]string{"KV_b" + x.tag: "$KV.b" + x.tag + ".*"} {
		x.list(ctx, stream, filter)
	}
	x.list(ctx, "E"+x.tag, "")
}

// list reads a stream's newest messages, as package jobs does.
func (x *subject) list(ctx context.Context, stream, filter string) {
	s, err := x.js.Stream(ctx, stream)
	if err != nil {
		x.say("stream %s", cause(err))
		return
	}
	policy := jetstream.DeliverLastPerSubjectPolicy
	if filter == "" {
		policy = jetstream.DeliverAllPolicy
	}
	k, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: filter, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, DeliverPolicy: policy,
		InactiveThreshold: time.Minute,
	})
	if err != nil {
		x.say("follow %s", cause(err))
		return
	}
	x.say("follow %s: pending %d", stream, k.CachedInfo().NumPending)
	for left := k.CachedInfo().NumPending; left > 0; {
		m, err := k.Next(jetstream.FetchMaxWait(time.Minute)) // there is one
		if err != nil {
			x.say("follow %s", cause(err))
			return
		}
		meta, err := m.Metadata()
		data := string(m.Data())
		if strings.HasPrefix(stream, "E") {
			data = data[strings.Index(data, `"stream_seq"`):]
			data = strings.Join(slices.Sorted(strings.SplitSeq(data[:strings.Index(data, "}")], ",")), ",")
		}
		x.say("%s %d of %d, op %q: %s %s", m.Subject(), meta.Sequence.Stream, meta.Sequence.Consumer,
			m.Headers().Get("KV-Operation"), data, cause(err))
		left = meta.NumPending
	}
}
