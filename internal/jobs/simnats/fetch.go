package simnats

import (
	"context"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// clientConsumer is a jetstream.Consumer.
type clientConsumer struct {
	jetstream.Consumer
	j      *js
	stream string
	name   string
	info   *jetstream.ConsumerInfo
}

func (k *clientConsumer) CachedInfo() *jetstream.ConsumerInfo { return k.info }

func (k *clientConsumer) Info(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	now, err := k.j.Consumer(ctx, k.stream, k.name)
	if err == nil {
		k.info = now.CachedInfo()
	}
	return k.info, err
}

// optionOf gives what an option sets: its type is private to package jetstream.
func optionOf(option any) (reflect.Value, error) {
	v := reflect.ValueOf(option)
	request := reflect.New(v.Type().In(0).Elem())
	err, _ := v.Call([]reflect.Value{request})[0].Interface().(error)
	return request.Elem(), err
}

// fetching is a request for messages, as FetchOpts make it.
type fetching struct {
	expires   time.Duration
	heartbeat time.Duration
	ctx       context.Context // of the request: FetchContext passes it as an option
}

func fetchingOf(opts []jetstream.FetchOpt) (fetching, error) {
	f := fetching{expires: 30 * time.Second}
	for _, o := range opts {
		v, err := optionOf(o)
		if err != nil {
			return f, err
		}
		if d := v.FieldByName("Expires").Int(); d > 0 {
			f.expires = time.Duration(d)
		}
		if d := v.FieldByName("Heartbeat").Int(); d > 0 {
			f.heartbeat = time.Duration(d)
		}
		ctx := v.FieldByName("ctx")
		if p := (*context.Context)(unsafe.Pointer(ctx.UnsafeAddr())); *p != nil {
			f.ctx = *p
		}
	}
	if f.heartbeat == 0 && f.expires >= 10*time.Second {
		f.heartbeat = 5 * time.Second
	}
	return f, nil
}

// batch is a jetstream.MessageBatch.
type batch struct {
	msgs chan jetstream.Msg
	mu   sync.Mutex
	err  error
}

func (b *batch) Messages() <-chan jetstream.Msg { return b.msgs }

func (b *batch) Error() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// Next is a Fetch of one message, as in package jetstream.
func (k *clientConsumer) Next(opts ...jetstream.FetchOpt) (jetstream.Msg, error) {
	b, err := k.fetch(1, true, opts)
	if err != nil {
		return nil, err
	}
	if m := <-b.Messages(); m != nil {
		return m, nil
	}
	if err := b.Error(); err != nil {
		return nil, err
	}
	return nil, jetstream.ErrNoMessages
}

func (k *clientConsumer) Fetch(size int, opts ...jetstream.FetchOpt) (jetstream.MessageBatch, error) {
	return k.fetch(size, false, opts)
}

// FetchNoWait takes the messages that are available.
func (k *clientConsumer) FetchNoWait(size int) (jetstream.MessageBatch, error) {
	return k.start(size, false, fetching{}, true)
}

func (k *clientConsumer) fetch(size int, timeouts bool, opts []jetstream.FetchOpt) (*batch, error) {
	f, err := fetchingOf(opts)
	if err != nil {
		return nil, err
	}
	return k.start(size, timeouts, f, false)
}

func (k *clientConsumer) start(size int, timeouts bool, f fetching, noWait bool) (*batch, error) {
	c := k.j.c
	if err := c.step(); err != nil {
		return nil, err
	}
	p := &pull{c: c, left: size, noWait: noWait, in: make(chan inbound, size+4)}
	n := c.n
	err := c.signalPull(k, p, f.expires)
	if err != nil {
		return nil, err
	}
	b := &batch{msgs: make(chan jetstream.Msg, size)}
	go func() {
		defer close(b.msgs)
		err := p.collect(b, size, f)
		//nolint:errorlint // as it was sent
		if (err == nats.ErrTimeout || err == jetstream.ErrNoMessages) && !timeouts {
			err = nil
		}
		// The server learns that the client no longer listens.
		n.mu.Lock()
		time.AfterFunc(n.at(n.fate(c.name, "unsubscribe", k.stream).way(n.faults)), func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			p.gone = true
		})
		n.mu.Unlock()
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}()
	return b, nil
}

// collect passes incoming messages on until the request has ended, as package jetstream
// does.
func (p *pull) collect(b *batch, size int, f fetching) error {
	n := p.c.n
	var done <-chan struct{}
	if f.ctx != nil {
		done = f.ctx.Done()
	}
	var beats *time.Timer
	var beat <-chan time.Time
	arm := func() {
		if f.heartbeat > 0 {
			if beats != nil {
				beats.Stop()
			}
			n.mu.Lock()
			beats = time.NewTimer(n.at(2 * f.heartbeat))
			n.mu.Unlock()
			beat = beats.C
		}
	}
	arm()
	defer func() {
		if beats != nil {
			beats.Stop()
		}
	}()
	for got := 0; got < size; {
		n.mu.Lock()
		late := time.NewTimer(n.at(f.expires + time.Second))
		n.mu.Unlock()
		var in inbound
		select {
		case in = <-p.in:
		case <-beat:
			late.Stop()
			if p.alive() {
				arm()
				continue
			}
			if err := p.c.step(); err != nil {
				return err
			}
			return jetstream.ErrNoHeartbeat
		case <-late.C:
			return p.c.step()
		case <-done:
			late.Stop()
			if err := p.c.step(); err != nil {
				return err
			}
			return f.ctx.Err()
		case <-n.end:
			late.Stop()
			return nats.ErrConnectionClosed
		}
		late.Stop()
		if err := p.c.step(); err != nil {
			return err
		}
		if in.err != nil {
			return in.err
		}
		arm()
		got++
		b.msgs <- in.msg
	}
	return nil
}

// alive reports whether the server still has the request: it sends heartbeats
// then.
func (p *pull) alive() bool {
	n := p.c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.up && p.gen == p.c.gen && !p.until.IsZero() && time.Now().Before(p.until)
}

// signalPull sends a request for messages; what may be lost is as for any other.
func (c *Conn) signalPull(k *clientConsumer, p *pull, expires time.Duration) error {
	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if !c.up {
		return nats.ErrReconnectBufExceeded
	}
	p.gen = c.gen
	fate := n.fate(c.name, "fetch", k.stream)
	lost := fate.hit(n.faults.Request)
	time.AfterFunc(c.out("fetch", fate), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if lost || !n.up || p.gen != c.gen {
			n.note(c.name, "fetch", k.stream, "lost")
			return
		}
		st, err := n.srv.stream(k.stream)
		var of *consumer
		if err == nil {
			of, err = st.consumer(k.name)
		}
		if err != nil {
			p.send(fate.way(n.faults), inbound{err: nats.ErrNoResponders})
			return
		}
		p.until = time.Now().Add(expires)
		of.ask(p)
	})
	return nil
}
