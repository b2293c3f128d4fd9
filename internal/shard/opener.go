package shard

import (
	"sync"

	"surprisal/internal/score"
	"surprisal/internal/shard/pq"
	"surprisal/internal/store"
)

// Opener opens the rows of many jobs and keeps the footers of the inputs that are not
// local: a file's jobs come one after another, and a footer can have as many bytes as
// a tenth of a job's text. The zero value is ready; several goroutines may use one.
type Opener struct{ footers footerCache }

const (
	keptFooters      = 4
	keptFooterChunks = 1 << 18 // of all of them
)

type footerCache struct {
	mu      sync.Mutex
	entries []cachedFooter // newest last
}

type cachedFooter struct {
	in   score.Input
	foot *pq.Footer // readers do not change it
}

func (c *footerCache) get(in score.Input) *pq.Footer {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		if e.in == in {
			return e.foot
		}
	}
	return nil
}

func (c *footerCache) put(in score.Input, f *pq.Footer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = append(c.entries, cachedFooter{in, f})
	sum := 0
	for _, e := range c.entries {
		sum += e.foot.Chunks()
	}
	for len(c.entries) > keptFooters || len(c.entries) > 0 && sum > keptFooterChunks {
		sum -= c.entries[0].foot.Chunks()
		c.entries = append(c.entries[:0:0], c.entries[1:]...)
	}
}

// footer reads an input's footer, or takes it from the job before.
func (o *Opener) footer(s store.File, in score.Input, size int64) (*pq.Footer, error) {
	if s.Local() {
		return pq.ReadFooter(s, size)
	}
	if f := o.footers.get(in); f != nil {
		return f, nil
	}
	f, err := pq.ReadFooter(s, size)
	if err == nil {
		o.footers.put(in, f)
	}
	return f, err
}
