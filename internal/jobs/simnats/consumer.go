package simnats

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// consumer is the server's side of a consumer. It follows nats-server's consumer.go, and
// has the names of its fields.
type consumer struct {
	st   *stream
	name string
	cfg  jetstream.ConsumerConfig
	made time.Time

	sseq    uint64   // next of the stream
	skip    []uint64 // the newest of each subject, to deliver before sseq
	dseq    uint64   // deliveries so far
	seen    uint64   // highest of the stream that was delivered
	pending map[uint64]*pend
	rdc     map[uint64]uint64 // redeliveries
	rdq     []uint64          // to redeliver
	waiting []*pull
	timer   *time.Timer
	used    time.Time
	paused  time.Time
}

// pend is a message that was delivered and not acked.
type pend struct {
	since time.Time
	dseq  uint64
}

// pull is a request for messages.
type pull struct {
	c     *Conn
	gen   int
	left  int
	until time.Time
	// noWait: it is refused if there is no message, and does not expire.
	noWait bool
	in     chan inbound
	gone   bool // the client no longer listens
}

// inbound is what a fetching client receives: a message, or how its request ended.
type inbound struct {
	msg *message
	err error
}

func (st *stream) consumer(name string) (*consumer, error) {
	k := st.consumers[name]
	if k != nil && k.cfg.InactiveThreshold > 0 && len(k.waiting) == 0 && time.Since(k.used) > k.cfg.InactiveThreshold {
		delete(st.consumers, name)
		k = nil
	}
	if k == nil {
		return nil, jetstream.ErrConsumerNotFound
	}
	return k, nil
}

func (st *stream) filters(cfg jetstream.ConsumerConfig) []string {
	if len(cfg.FilterSubjects) > 0 {
		return cfg.FilterSubjects
	}
	return []string{cfg.FilterSubject}
}

func (st *stream) createConsumer(cfg jetstream.ConsumerConfig) (*consumer, error) {
	name := cfg.Durable
	if name == "" {
		name = cfg.Name
	}
	if name == "" {
		st.s.made++
		name = fmt.Sprint("eph", st.s.made)
	}
	if st.consumers[name] != nil {
		return nil, jetstream.ErrConsumerExists
	}
	if st.cfg.Retention == jetstream.WorkQueuePolicy {
		for _, other := range st.consumers {
			for _, a := range st.filters(other.cfg) {
				for _, b := range st.filters(cfg) {
					if a == "" || b == "" {
						return nil, apiError(400, 10099, "multiple non-filtered consumers not allowed on workqueue "+
							"stream")
					}
					if matches(a, b) || matches(b, a) {
						return nil, apiError(400, 10100, "filtered consumer not unique on workqueue stream")
					}
				}
			}
		}
	}
	cfg.Name = name
	k := &consumer{
		st: st, name: name, cfg: cfg, made: time.Now(), used: time.Now(), sseq: 1,
		pending: map[uint64]*pend{}, rdc: map[uint64]uint64{},
	}
	switch cfg.DeliverPolicy {
	case jetstream.DeliverByStartSequencePolicy:
		k.sseq = cfg.OptStartSeq
	case jetstream.DeliverLastPerSubjectPolicy:
		for subject, of := range st.bySubject {
			if k.wants(subject) {
				k.skip = append(k.skip, of[len(of)-1])
			}
		}
		slices.Sort(k.skip)
		k.sseq = st.last + 1
	}
	st.consumers[name] = k
	return k, nil
}

func (k *consumer) wants(subject string) bool {
	return slices.ContainsFunc(k.st.filters(k.cfg), func(f string) bool { return matches(f, subject) })
}

// numPending is the number of messages not delivered yet.
func (k *consumer) numPending() (n uint64) {
	for seq, m := range k.st.msgs {
		if seq >= k.sseq && k.wants(m.subject) || slices.Contains(k.skip, seq) {
			n++
		}
	}
	return n
}

func (k *consumer) info() *jetstream.ConsumerInfo {
	i := &jetstream.ConsumerInfo{
		Stream: k.st.cfg.Name, Name: k.name, Created: k.made, Config: k.cfg, NumAckPending: len(k.pending),
		NumWaiting: len(k.waiting), NumPending: k.numPending(), TimeStamp: time.Now(),
	}
	i.NumRedelivered = len(k.rdc)
	if i.Delivered.Consumer, i.Delivered.Stream = k.dseq, k.seen; k.dseq == 0 {
		i.Delivered.Stream = k.sseq - 1
	}
	if left := time.Until(k.paused); left > 0 {
		i.Paused, i.PauseRemaining = true, left
	}
	return i
}

// next is the next message to deliver, and the number of this delivery.
func (k *consumer) next() (*stored, uint64) {
	for len(k.rdq) > 0 {
		seq := k.rdq[0]
		k.rdq = k.rdq[1:]
		k.rdc[seq]++
		dc := k.rdc[seq] + 1
		if k.cfg.MaxDeliver > 0 && dc > uint64(k.cfg.MaxDeliver) {
			k.st.s.advise(k, seq, dc-1)
			delete(k.pending, seq)
			continue
		}
		if m := k.st.msgs[seq]; m != nil {
			return m, dc
		}
	}
	if k.cfg.AckPolicy != jetstream.AckNonePolicy && k.cfg.MaxAckPending > 0 && len(k.pending) >= k.cfg.MaxAckPending {
		return nil, 0
	}
	for len(k.skip) > 0 {
		m := k.st.msgs[k.skip[0]]
		k.skip = k.skip[1:]
		if m != nil {
			return m, 1
		}
	}
	for seq := k.sseq; seq <= k.st.last; seq++ {
		if m := k.st.msgs[seq]; m != nil && k.wants(m.subject) {
			k.sseq = seq + 1
			return m, 1
		}
	}
	return nil, 0
}

// serve delivers messages to waiting requests.
func (k *consumer) serve() {
	k.st.expire()
	for {
		k.waiting = slices.DeleteFunc(k.waiting, func(p *pull) bool {
			return p.gone || p.gen != p.c.gen || !time.Now().Before(p.until)
		})
		if len(k.waiting) == 0 || time.Now().Before(k.paused) || !k.st.s.n.up {
			return
		}
		m, dc := k.next()
		if m == nil {
			return
		}
		p := k.waiting[0]
		k.waiting = k.waiting[1:]
		if p.left--; p.left > 0 {
			k.waiting = append(k.waiting, p)
		}
		k.deliver(p, m, dc)
	}
}

func (k *consumer) deliver(p *pull, m *stored, dc uint64) {
	k.dseq++
	k.seen = max(k.seen, m.seq)
	k.used = time.Now()
	if k.cfg.AckPolicy != jetstream.AckNonePolicy {
		if was := k.pending[m.seq]; was != nil {
			was.since = time.Now() // and its dseq stays
		} else {
			k.pending[m.seq] = &pend{time.Now(), k.dseq}
		}
		k.arm()
	}
	msg := &message{c: p.c, stream: k.st.cfg.Name, consumer: k.name, m: m, meta: jetstream.MsgMetadata{
		Sequence:     jetstream.SequencePair{Consumer: k.dseq, Stream: m.seq},
		NumDelivered: dc, NumPending: k.numPending(), Timestamp: m.at, Stream: k.st.cfg.Name, Consumer: k.name,
	}}
	n := k.st.s.n
	f := n.fate(p.c.name, "deliver", m.subject)
	if f.hit(n.faults.Delivery) {
		n.note(p.c.name, "deliver", m.subject, "lost")
		return
	}
	n.note(p.c.name, "deliver", m.subject, fmt.Sprint("delivery ", dc))
	p.send(f.way(n.faults), inbound{msg: msg})
	if p.left == 0 {
		p.gone = true
	}
}

// send sends something to the client, if its connection lasts.
func (p *pull) send(way time.Duration, what inbound) {
	time.AfterFunc(p.c.in(way), func() {
		p.c.n.mu.Lock()
		defer p.c.n.mu.Unlock()
		if p.gen == p.c.gen {
			p.in <- what // has room for all that one request brings
		}
	})
}

// ask takes a request for messages.
func (k *consumer) ask(p *pull) {
	k.used = time.Now()
	n := k.st.s.n
	if most := k.cfg.MaxRequestBatch; most > 0 && p.left > most {
		p.send(n.fate(p.c.name, "refuse", "").way(n.faults), inbound{err: fmt.Errorf("nats: Exceeded "+
			"MaxRequestBatch of %d", most)})
		return
	}
	if p.noWait {
		if k.numPending() == 0 && len(k.rdq) == 0 {
			p.send(n.fate(p.c.name, "none", "").way(n.faults), inbound{err: jetstream.ErrNoMessages})
			return
		}
		p.until = time.Now().Add(time.Minute) // or until the client no longer listens
		k.waiting = append(k.waiting, p)
		k.serve()
		return
	}
	k.waiting = append(k.waiting, p)
	time.AfterFunc(n.at(time.Until(p.until)), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if i := slices.Index(k.waiting, p); i >= 0 {
			k.waiting = slices.Delete(k.waiting, i, i+1)
			p.send(n.fate(p.c.name, "expire", "").way(n.faults), inbound{err: nats.ErrTimeout})
		}
	})
	k.serve()
}

// ack removes a message from the queue, whichever delivery it is for: it is not a fence.
func (k *consumer) ack(seq uint64) {
	if seq >= k.sseq && !slices.Contains(k.skip, seq) && k.pending[seq] == nil && k.rdc[seq] == 0 {
		if seq > k.st.last {
			return
		}
	}
	k.forget(seq)
	if k.st.cfg.Retention == jetstream.WorkQueuePolicy {
		k.st.remove(seq)
	}
	k.serve()
}

// forget drops all state of a message.
func (k *consumer) forget(seq uint64) {
	delete(k.pending, seq)
	delete(k.rdc, seq)
	k.unqueue(seq)
}

func (k *consumer) unqueue(seq uint64) {
	k.rdq = slices.DeleteFunc(k.rdq, func(s uint64) bool { return s == seq })
}

// progress restarts AckWait.
func (k *consumer) progress(seq uint64) {
	if p := k.pending[seq]; p != nil {
		p.since = time.Now()
		k.arm()
	}
}

// nak redelivers the message after delay; 0: at once.
func (k *consumer) nak(seq uint64, delay time.Duration) {
	p := k.pending[seq]
	if p == nil {
		return
	}
	if delay > 0 {
		k.unqueue(seq)
		p.since = time.Now().Add(delay - k.cfg.AckWait)
		k.arm()
		return
	}
	if !slices.Contains(k.rdq, seq) {
		k.rdq = append(k.rdq, seq)
	}
	k.serve()
}

// pause stops deliveries until then.
func (k *consumer) pause(until time.Time) {
	k.paused = until
	n := k.st.s.n
	if left := time.Until(until); left > 0 {
		time.AfterFunc(n.at(left), func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.up {
				k.serve()
			}
		})
	}
	k.serve()
}

func (k *consumer) disarm() {
	if k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
}

// arm sets the timer to the first AckWait that ends.
func (k *consumer) arm() {
	k.disarm()
	first := time.Duration(-1)
	for seq, p := range k.pending {
		if slices.Contains(k.rdq, seq) {
			continue
		}
		if d := max(0, time.Until(p.since.Add(k.cfg.AckWait))); first < 0 || d < first {
			first = d
		}
	}
	if first < 0 {
		return
	}
	n := k.st.s.n
	k.timer = time.AfterFunc(n.at(first), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.up && n.srv == k.st.s {
			k.check()
		}
	})
}

// check queues messages whose AckWait is over for redelivery.
func (k *consumer) check() {
	now := time.Now()
	for _, seq := range slices.Sorted(maps.Keys(k.pending)) {
		p := k.pending[seq]
		if now.Sub(p.since) < k.cfg.AckWait || slices.Contains(k.rdq, seq) {
			continue
		}
		// One less than the deliveries made: usually the next request finds that a message
		// has reached MaxDeliver, not the timer.
		if dc := max(k.rdc[seq], 1); k.cfg.MaxDeliver > 0 && dc >= uint64(k.cfg.MaxDeliver) {
			k.st.s.advise(k, seq, k.rdc[seq]+1)
			delete(k.pending, seq)
			k.rdc[seq] = dc
			continue
		}
		k.st.s.n.note("server", "ack wait over", k.st.msgs[seq].subject, "")
		k.rdq = append(k.rdq, seq)
	}
	k.serve()
	k.arm()
}
