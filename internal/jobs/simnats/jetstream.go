package simnats

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// js is a process's jetstream.JetStream.
type js struct {
	jetstream.JetStream
	c *Conn
}

func (j *js) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	return j.streamOf(ctx, "stream info", name, func(s *server) (*stream, error) { return s.stream(name) })
}

func (j *js) CreateStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	return j.streamOf(ctx, "create stream", cfg.Name, func(s *server) (*stream, error) { return s.create(cfg) })
}

func (j *js) streamOf(
	ctx context.Context, op, name string, do func(*server) (*stream, error),
) (jetstream.Stream, error) {
	i, err := request(ctx, j.c, op, name, func(s *server) (*jetstream.StreamInfo, error) {
		st, err := do(s)
		if err != nil {
			return nil, err
		}
		return st.info(), nil
	})
	if err != nil {
		return nil, err
	}
	return &clientStream{j: j, name: name, info: i}, nil
}

func (j *js) DeleteStream(ctx context.Context, name string) error {
	_, err := request(ctx, j.c, "delete stream", name, func(s *server) (struct{}, error) {
		_, err := s.stream(name)
		delete(s.streams, name)
		return struct{}{}, err
	})
	return err
}

func (j *js) Consumer(ctx context.Context, of, name string) (jetstream.Consumer, error) {
	return j.consumerOf(ctx, "consumer info", of, name, func(st *stream) (*consumer, error) {
		return st.consumer(name)
	})
}

func (j *js) CreateConsumer(ctx context.Context, of string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	return j.consumerOf(ctx, "create consumer", of, cfg.Durable, func(st *stream) (*consumer, error) {
		return st.createConsumer(cfg)
	})
}

func (j *js) UpdateConsumer(ctx context.Context, of string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	return j.consumerOf(ctx, "update consumer", of, cfg.Durable, func(st *stream) (*consumer, error) {
		k, err := st.consumer(cfg.Durable)
		if err == nil {
			cfg.Name, k.cfg = k.name, cfg
			k.serve()
		}
		return k, err
	})
}

func (j *js) PauseConsumer(
	ctx context.Context, of, name string, until time.Time,
) (*jetstream.ConsumerPauseResponse, error) {
	return j.pause(ctx, "pause consumer", of, name, until)
}

func (j *js) ResumeConsumer(ctx context.Context, of, name string) (*jetstream.ConsumerPauseResponse, error) {
	return j.pause(ctx, "resume consumer", of, name, time.Time{})
}

func (j *js) pause(
	ctx context.Context, op, of, name string, until time.Time,
) (*jetstream.ConsumerPauseResponse, error) {
	k, err := j.consumerOf(ctx, op, of, name, func(st *stream) (*consumer, error) {
		k, err := st.consumer(name)
		if err == nil {
			k.pause(until)
		}
		return k, err
	})
	if err != nil {
		return nil, err
	}
	i := k.CachedInfo()
	return &jetstream.ConsumerPauseResponse{Paused: i.Paused, PauseUntil: until, PauseRemaining: i.PauseRemaining}, nil
}

func (j *js) DeleteConsumer(ctx context.Context, of, name string) error {
	_, err := request(ctx, j.c, "delete consumer", of, func(s *server) (struct{}, error) {
		st, err := s.stream(of)
		if err != nil {
			return struct{}{}, err
		}
		k := st.consumers[name]
		if k == nil {
			return struct{}{}, jetstream.ErrConsumerNotFound
		}
		k.disarm()
		for _, p := range k.waiting {
			p.send(s.n.fate(p.c.name, "consumer deleted", "").way(s.n.faults),
				inbound{err: jetstream.ErrConsumerDeleted})
		}
		delete(st.consumers, name)
		return struct{}{}, nil
	})
	return err
}

func (j *js) consumerOf(
	ctx context.Context, op, of, key string, do func(*stream) (*consumer, error),
) (jetstream.Consumer, error) {
	i, err := request(ctx, j.c, op, of+"/"+key, func(s *server) (*jetstream.ConsumerInfo, error) {
		st, err := s.stream(of)
		if err != nil {
			return nil, err
		}
		k, err := do(st)
		if err != nil {
			return nil, err
		}
		return k.info(), nil
	})
	if err != nil {
		return nil, err
	}
	return &clientConsumer{j: j, stream: of, name: i.Name, info: i}, nil
}

func (j *js) Publish(
	ctx context.Context, subject string, data []byte, _ ...jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
	m := nats.NewMsg(subject)
	m.Data = slices.Clone(data)
	return j.publish(ctx, m)
}

func (j *js) PublishMsg(ctx context.Context, m *nats.Msg, _ ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	return j.publish(ctx, m)
}

func (j *js) publish(ctx context.Context, m *nats.Msg) (*jetstream.PubAck, error) {
	return request(ctx, j.c, "publish", m.Subject, func(s *server) (*jetstream.PubAck, error) { return s.publish(m) })
}

// asyncTimeout is of one publish, as package jobs sets it.
const asyncTimeout = 10 * time.Second

func (j *js) PublishMsgAsync(m *nats.Msg, _ ...jetstream.PublishOpt) (jetstream.PubAckFuture, error) {
	if err := j.c.step(); err != nil {
		return nil, err
	}
	answers, err := ask(j.c, "publish async", m.Subject, func(s *server) (*jetstream.PubAck, error) {
		return s.publish(m)
	})
	if err != nil {
		return nil, err
	}
	f := &future{msg: m, ok: make(chan *jetstream.PubAck, 1), err: make(chan error, 1), done: make(chan struct{})}
	n := j.c.n
	n.mu.Lock()
	j.c.futures = append(slices.DeleteFunc(j.c.futures, (*future).over), f)
	timer := time.NewTimer(n.at(asyncTimeout))
	n.mu.Unlock()
	go func() {
		defer timer.Stop()
		var a answer[*jetstream.PubAck]
		select {
		case a = <-answers:
		case <-timer.C:
			a.err = jetstream.ErrAsyncPublishTimeout
		case <-f.done:
			return
		case <-n.end:
			return
		}
		if err := j.c.step(); err != nil {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		f.end(a)
	}()
	return f, nil
}

// future is a PubAckFuture. Net.mu guards its end.
type future struct {
	msg  *nats.Msg
	ok   chan *jetstream.PubAck
	err  chan error
	done chan struct{}
}

func (f *future) Ok() <-chan *jetstream.PubAck { return f.ok }
func (f *future) Err() <-chan error            { return f.err }
func (f *future) Msg() *nats.Msg               { return f.msg }
func (f *future) fail(err error)               { f.end(answer[*jetstream.PubAck]{err: err}) }

func (f *future) over() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

func (f *future) end(a answer[*jetstream.PubAck]) {
	if f.over() {
		return
	}
	close(f.done)
	if a.err != nil {
		f.err <- a.err
	} else {
		f.ok <- a.v
	}
}

// clientStream is a jetstream.Stream.
type clientStream struct {
	jetstream.Stream
	j    *js
	name string
	info *jetstream.StreamInfo
}

func (s *clientStream) CachedInfo() *jetstream.StreamInfo { return s.info }

// Info also counts the messages of the subjects asked for.
func (s *clientStream) Info(ctx context.Context, opts ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	filter := ""
	for _, o := range opts {
		v, err := optionOf(o)
		if err != nil {
			return nil, err
		}
		filter = v.FieldByName("SubjectFilter").String()
	}
	return onStream(ctx, s, "stream info", filter, func(st *stream) (*jetstream.StreamInfo, error) {
		i := st.info()
		if filter != "" {
			i.State.Subjects = map[string]uint64{}
			for subject, of := range st.bySubject {
				if matches(filter, subject) {
					i.State.Subjects[subject] = uint64(len(of))
				}
			}
		}
		return i, nil
	})
}

func (s *clientStream) Consumer(ctx context.Context, name string) (jetstream.Consumer, error) {
	return s.j.Consumer(ctx, s.name, name)
}

func (s *clientStream) CreateConsumer(ctx context.Context, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	return s.j.CreateConsumer(ctx, s.name, cfg)
}

func (s *clientStream) DeleteConsumer(ctx context.Context, name string) error {
	return s.j.DeleteConsumer(ctx, s.name, name)
}

func onStream[T any](ctx context.Context, s *clientStream, op, key string, do func(*stream) (T, error)) (T, error) {
	return request(ctx, s.j.c, op, s.name+" "+key, func(srv *server) (v T, err error) {
		st, err := srv.stream(s.name)
		if err != nil {
			return v, err
		}
		return do(st)
	})
}

func (s *clientStream) GetMsg(
	ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt,
) (*jetstream.RawStreamMsg, error) {
	filter := ""
	for _, o := range opts {
		v, err := optionOf(o)
		if err != nil {
			return nil, err
		}
		filter = v.FieldByName("NextFor").String()
	}
	return onStream(ctx, s, "get message", "", func(st *stream) (*jetstream.RawStreamMsg, error) {
		return st.get(seq, filter)
	})
}

func (s *clientStream) GetLastMsgForSubject(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	return onStream(ctx, s, "get last", subject, func(st *stream) (*jetstream.RawStreamMsg, error) {
		return st.lastOf(subject)
	})
}

func (s *clientStream) DeleteMsg(ctx context.Context, seq uint64) error {
	_, err := onStream(ctx, s, "delete message", "", func(st *stream) (struct{}, error) {
		if st.msgs[seq] == nil { // not ErrMsgNotFound, unlike get
			return struct{}{}, fmt.Errorf("%w: no message found", jetstream.ErrMsgDeleteUnsuccessful)
		}
		st.remove(seq)
		return struct{}{}, nil
	})
	return err
}

func (s *clientStream) Purge(ctx context.Context, opts ...jetstream.StreamPurgeOpt) error {
	var r jetstream.StreamPurgeRequest
	for _, o := range opts {
		if err := o(&r); err != nil {
			return err
		}
	}
	_, err := onStream(ctx, s, "purge", r.Subject, func(st *stream) (struct{}, error) {
		st.purge(r.Subject)
		return struct{}{}, nil
	})
	return err
}

func (s *clientStream) ListConsumers(ctx context.Context) jetstream.ConsumerInfoLister {
	list, err := onStream(ctx, s, "list consumers", "", func(st *stream) ([]*jetstream.ConsumerInfo, error) {
		var list []*jetstream.ConsumerInfo
		for _, name := range slices.Sorted(maps.Keys(st.consumers)) {
			if k, err := st.consumer(name); err == nil {
				list = append(list, k.info())
			}
		}
		return list, nil
	})
	l := &lister{infos: make(chan *jetstream.ConsumerInfo, len(list)), err: err}
	for _, i := range list {
		l.infos <- i
	}
	close(l.infos)
	return l
}

type lister struct {
	infos chan *jetstream.ConsumerInfo
	err   error
}

func (l *lister) Info() <-chan *jetstream.ConsumerInfo { return l.infos }
func (l *lister) Err() error                           { return l.err }
