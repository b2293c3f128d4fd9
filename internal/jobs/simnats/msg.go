package simnats

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// message is a jetstream.Msg.
type message struct {
	jetstream.Msg
	c                *Conn
	stream, consumer string
	m                *stored
	meta             jetstream.MsgMetadata

	mu   sync.Mutex
	ackd bool
}

func (m *message) Metadata() (*jetstream.MsgMetadata, error) {
	meta := m.meta
	return &meta, nil
}

func (m *message) Data() []byte         { return m.m.data }
func (m *message) Headers() nats.Header { return m.m.header }
func (m *message) Subject() string      { return m.m.subject }

// of calls what at the consumer that delivered the message, if it still exists.
func (m *message) of(what func(*consumer)) func(*server) {
	return func(s *server) {
		if st := s.streams[m.stream]; st != nil {
			if k := st.consumers[m.consumer]; k != nil {
				what(k)
			}
		}
	}
}

// once sends the end of a delivery. It holds no lock: the process may freeze in it.
func (m *message) once(op string, what func(*consumer)) error {
	if m.acked() {
		return jetstream.ErrMsgAlreadyAckd
	}
	err := m.c.signal(op, m.m.subject, m.of(what))
	if err == nil {
		m.end()
	}
	return err
}

func (m *message) acked() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ackd
}

func (m *message) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ackd = true
}

func (m *message) Ack() error { return m.once("ack", func(k *consumer) { k.ack(m.m.seq) }) }
func (m *message) Nak() error { return m.once("nak", func(k *consumer) { k.nak(m.m.seq, 0) }) }

func (m *message) NakWithDelay(d time.Duration) error {
	return m.once("nak "+d.Round(time.Millisecond).String(), func(k *consumer) { k.nak(m.m.seq, d) })
}

func (m *message) TermWithReason(string) error {
	return m.once("term", func(k *consumer) { k.ack(m.m.seq) })
}

func (m *message) Term() error { return m.TermWithReason("") }

func (m *message) InProgress() error {
	if m.acked() {
		return jetstream.ErrMsgAlreadyAckd
	}
	return m.c.signal("in progress", m.m.subject, m.of(func(k *consumer) { k.progress(m.m.seq) }))
}

// DoubleAck also succeeds after the message was redelivered or deleted.
func (m *message) DoubleAck(ctx context.Context) error {
	if m.acked() {
		return jetstream.ErrMsgAlreadyAckd
	}
	_, err := request(ctx, m.c, "double ack", m.m.subject, func(s *server) (struct{}, error) {
		st := s.streams[m.stream]
		if st == nil || st.consumers[m.consumer] == nil {
			return struct{}{}, nats.ErrNoResponders
		}
		st.consumers[m.consumer].ack(m.m.seq)
		return struct{}{}, nil
	})
	if err == nil {
		m.end()
	}
	return err
}
