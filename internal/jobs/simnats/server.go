package simnats

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// server is the streams. Its methods are called with Net.mu held.
type server struct {
	n       *Net
	streams map[string]*stream
	made    int // consumers, for their names
}

func newServer(n *Net) *server { return &server{n: n, streams: map[string]*stream{}} }

func (s *server) stream(name string) (*stream, error) {
	st := s.streams[name]
	if st == nil {
		return nil, jetstream.ErrStreamNotFound
	}
	st.expire()
	return st, nil
}

func (s *server) create(cfg jetstream.StreamConfig) (*stream, error) {
	if st := s.streams[cfg.Name]; st != nil {
		return nil, jetstream.ErrStreamNameAlreadyInUse
	}
	st := &stream{
		s: s, cfg: cfg, created: time.Now(), msgs: map[uint64]*stored{}, bySubject: map[string][]uint64{},
		ids: map[string]seen{}, consumers: map[string]*consumer{},
	}
	s.streams[cfg.Name] = st
	return st, nil
}

// publish stores a message in the stream of its subject.
func (s *server) publish(m *nats.Msg) (*jetstream.PubAck, error) {
	for _, name := range slices.Sorted(maps.Keys(s.streams)) {
		st := s.streams[name]
		for _, subject := range st.cfg.Subjects {
			if matches(subject, m.Subject) {
				st.expire()
				return st.store(m)
			}
		}
	}
	return nil, jetstream.ErrNoStreamResponse
}

// stop ends the server: requests for messages end, and what was in memory is lost.
func (s *server) stop() {
	for _, st := range s.streams {
		for name, k := range st.consumers {
			k.waiting = nil
			k.disarm()
			if k.cfg.MemoryStorage {
				delete(st.consumers, name)
			}
		}
	}
}

// resume continues with the store that was kept.
func (s *server) resume() {
	for _, name := range slices.Sorted(maps.Keys(s.streams)) {
		st := s.streams[name]
		for _, k := range slices.Sorted(maps.Keys(st.consumers)) {
			st.consumers[k].arm()
		}
	}
}

// stream is a stream's store.
type stream struct {
	s         *server
	cfg       jetstream.StreamConfig
	created   time.Time
	last      uint64
	msgs      map[uint64]*stored
	bySubject map[string][]uint64 // ascending
	ids       map[string]seen     // message ids of the duplicate window
	consumers map[string]*consumer
}

type stored struct {
	seq     uint64
	subject string
	header  nats.Header
	data    []byte
	at      time.Time
}

type seen struct {
	seq uint64
	at  time.Time
}

func apiError(code int, errCode jetstream.ErrorCode, text string) error {
	return &jetstream.APIError{Code: code, ErrorCode: errCode, Description: text}
}

func (st *stream) store(m *nats.Msg) (*jetstream.PubAck, error) {
	now := time.Now()
	id := m.Header.Get(jetstream.MsgIDHeader)
	if id != "" && st.cfg.Duplicates > 0 {
		if was, ok := st.ids[id]; ok && now.Sub(was.at) < st.cfg.Duplicates {
			return &jetstream.PubAck{Stream: st.cfg.Name, Sequence: was.seq, Duplicate: true}, nil
		}
	}
	of := st.bySubject[m.Subject]
	if want := m.Header.Get(jetstream.ExpectedLastSubjSeqHeader); want != "" {
		have := uint64(0)
		if len(of) > 0 {
			have = of[len(of)-1]
		}
		if want != fmt.Sprint(have) {
			return nil, apiError(400, jetstream.JSErrCodeStreamWrongLastSequence, fmt.Sprintf("wrong last sequence: %d",
				have))
		}
	}
	if most := st.cfg.MaxMsgsPerSubject; most > 0 && int64(len(of)) >= most {
		if st.cfg.Discard == jetstream.DiscardNew && st.cfg.DiscardNewPerSubject {
			return nil, apiError(503, 10077, "maximum messages per subject exceeded")
		}
		st.remove(of[0])
	}
	st.last++
	st.msgs[st.last] = &stored{st.last, m.Subject, m.Header, m.Data, now}
	st.bySubject[m.Subject] = append(st.bySubject[m.Subject], st.last)
	if id != "" {
		st.ids[id] = seen{st.last, now}
	}
	ack := &jetstream.PubAck{Stream: st.cfg.Name, Sequence: st.last}
	if st.s.n.stored != nil {
		st.s.n.stored(st.cfg.Name, m.Subject, m.Data)
	}
	for _, name := range slices.Sorted(maps.Keys(st.consumers)) {
		st.consumers[name].serve()
	}
	return ack, nil
}

// remove deletes a message from the stream and from its consumers.
func (st *stream) remove(seq uint64) {
	m := st.msgs[seq]
	if m == nil {
		return
	}
	delete(st.msgs, seq)
	left := slices.DeleteFunc(st.bySubject[m.subject], func(s uint64) bool { return s == seq })
	if st.bySubject[m.subject] = left; len(left) == 0 {
		delete(st.bySubject, m.subject)
	}
	for _, k := range st.consumers {
		k.forget(seq)
	}
}

func (st *stream) expire() {
	if st.cfg.MaxAge > 0 {
		for seq, m := range st.msgs {
			if time.Since(m.at) >= st.cfg.MaxAge {
				st.remove(seq)
			}
		}
	}
}

// get is the first message from seq on whose subject matches, as the server's get by
// sequence and next_by_subj.
func (st *stream) get(seq uint64, filter string) (*jetstream.RawStreamMsg, error) {
	for ; seq <= st.last; seq++ {
		m := st.msgs[seq]
		if m != nil && (filter == "" || matches(filter, m.subject)) {
			return m.raw(), nil
		}
		if filter == "" {
			break
		}
	}
	return nil, jetstream.ErrMsgNotFound
}

func (st *stream) lastOf(subject string) (*jetstream.RawStreamMsg, error) {
	of := st.bySubject[subject]
	if len(of) == 0 {
		return nil, jetstream.ErrMsgNotFound
	}
	return st.msgs[of[len(of)-1]].raw(), nil
}

func (m *stored) raw() *jetstream.RawStreamMsg {
	return &jetstream.RawStreamMsg{Subject: m.subject, Sequence: m.seq, Header: m.header, Data: m.data, Time: m.at}
}

func (st *stream) info() *jetstream.StreamInfo {
	i := &jetstream.StreamInfo{Config: st.cfg, Created: st.created}
	i.State.LastSeq, i.State.FirstSeq = st.last, st.last+1
	for seq, m := range st.msgs {
		i.State.Msgs++
		i.State.Bytes += uint64(len(m.data))
		if seq < i.State.FirstSeq {
			i.State.FirstSeq, i.State.FirstTime = seq, m.at
		}
	}
	if st.last == 0 {
		i.State.FirstSeq = 0
	}
	i.State.Consumers = len(st.consumers)
	return i
}

func (st *stream) purge(filter string) {
	for _, seq := range slices.Sorted(maps.Keys(st.msgs)) {
		if filter == "" || matches(filter, st.msgs[seq].subject) {
			st.remove(seq)
		}
	}
	for _, k := range st.consumers {
		if slices.Contains(st.filters(k.cfg), filter) {
			k.sseq = st.last + 1
		}
	}
}

// matches reports whether a subject matches a filter.
func matches(filter, subject string) bool {
	if filter == "" || filter == subject || filter == ">" {
		return true
	}
	f, s := strings.Split(filter, "."), strings.Split(subject, ".")
	for i, t := range f {
		if t == ">" {
			return len(s) > i
		}
		if i >= len(s) || t != "*" && t != s[i] {
			return false
		}
	}
	return len(f) == len(s)
}

// advise publishes the advisory for a message that reached MaxDeliver.
func (s *server) advise(k *consumer, seq, deliveries uint64) {
	subject := "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + k.st.cfg.Name + "." + k.name
	if f := s.n.fate("server", "advisory", subject); f.hit(s.n.faults.Advisory) {
		s.n.note("server", "advisory", fmt.Sprint(seq), "lost")
		return
	}
	data, _ := json.Marshal(map[string]any{ // strings and numbers
		"stream": k.st.cfg.Name, "consumer": k.name, "stream_seq": seq, "deliveries": deliveries,
	})
	m := nats.NewMsg(subject)
	m.Data = data
	_, _ = s.publish(m) // nobody may be there to keep it
}
