package simnats

import (
	"sync"
	"time"
)

// Faults is how the network treats messages. Probabilities are for each message.
type Faults struct {
	Latency     time.Duration // the longest that most messages take
	Slow        float64       // probability of taking up to SlowLatency
	SlowLatency time.Duration
	Request     float64 // a request is lost: nothing happens, and its caller gets no answer
	Reply       float64 // an answer is lost, although the request was carried out
	Signal      float64 // an InProgress, Nak, Term or Ack is lost
	Delivery    float64 // a message to a consumer is lost
	Advisory    float64 // an advisory is not published
}

// Event is a line of the trace.
type Event struct {
	At                    time.Duration // since the beginning
	Actor, Op, Key, Comes string
}

// Net is one simulated server and the network around it.
type Net struct {
	mu     sync.Mutex
	seed   uint64
	faults Faults
	srv    *server
	up     bool
	end    chan struct{}
	over   bool
	start  time.Time
	taken  map[int64]struct{} // instants at which something happens
	counts map[string]uint64
	conns  []*Conn
	events []Event
	stored func(stream, subject string, data []byte)
}

// New makes a network with an empty server that is running.
func New(seed uint64, f Faults) *Net {
	n := &Net{
		seed: seed, faults: f, up: true, end: make(chan struct{}), start: time.Now(),
		taken: map[int64]struct{}{}, counts: map[string]uint64{},
	}
	n.srv = newServer(n)
	return n
}

// OnStored is called for each message that a stream stores, in order.
func (n *Net) OnStored(f func(stream, subject string, data []byte)) { n.stored = f }

// SetFaults changes the faults of later messages.
func (n *Net) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
}

// End makes all waiting and later calls fail.
func (n *Net) End() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.over {
		n.over = true
		close(n.end)
	}
}

// Events is the trace so far.
func (n *Net) Events() []Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.events
}

// Note adds a line to the trace.
func (n *Net) Note(actor, op, key, comes string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.note(actor, op, key, comes)
}

func (n *Net) note(actor, op, key, comes string) {
	n.events = append(n.events, Event{time.Since(n.start), actor, op, key, comes})
}

// Restart stops the server for a while. It keeps its store, or with wiped starts with an
// empty one.
func (n *Net) Restart(down time.Duration, wipe bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.note("server", "stop", "", "")
	n.up = false
	n.srv.stop()
	for _, c := range n.conns {
		c.drop()
	}
	time.AfterFunc(n.at(down), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.note("server", "start", "", map[bool]string{true: "wiped"}[wipe])
		if wipe {
			n.srv = newServer(n)
		}
		n.up = true
		n.srv.resume()
		for _, c := range n.conns {
			c.reconnectIn(time.Second)
		}
	})
}

// at gives a wait of about d that ends when nothing else happens.
func (n *Net) at(d time.Duration) time.Duration {
	now := time.Now().UnixNano()
	t := now + max(int64(d), 1)
	for {
		if _, taken := n.taken[t]; !taken {
			break
		}
		t++
	}
	if len(n.taken) > 1<<14 {
		for u := range n.taken {
			if u < now {
				delete(n.taken, u)
			}
		}
	}
	n.taken[t] = struct{}{}
	return time.Duration(t - now)
}

// fate is a source of pseudo-random numbers for one event.
type fate struct{ x uint64 }

func (n *Net) fate(actor, op, key string) *fate {
	k := actor + "\x00" + op + "\x00" + key
	n.counts[k]++
	return &fate{hash(n.seed, k) + n.counts[k]*0x9e3779b97f4a7c15}
}

// Chance gives numbers for a simulation's own decisions: the same for the same seed, name
// and number of the call.
func (n *Net) Chance(name string) func() float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fate("", "chance", name).float
}

// hash is FNV-1a with the seed in it.
func hash(seed uint64, s string) uint64 {
	h := seed*0x9e3779b97f4a7c15 ^ 14695981039346656037
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

func (f *fate) next() uint64 { // splitmix64
	f.x += 0x9e3779b97f4a7c15
	z := f.x
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (f *fate) float() float64 { return float64(f.next()>>11) / (1 << 53) }

// hit is true with probability p.
func (f *fate) hit(p float64) bool { return f.float() < p }

// way is how long a message takes.
func (f *fate) way(s Faults) time.Duration {
	slow, most := f.hit(s.Slow), s.Latency
	if slow {
		most = s.SlowLatency
	}
	return time.Duration(f.float() * float64(most))
}
