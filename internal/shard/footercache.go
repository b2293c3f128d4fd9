package shard

import (
	"sync"

	"surprisal/internal/score"
)

// recentFooters are those of inputs that are not local: a file's jobs come one
// after another, and a footer can have as many bytes as a tenth of a job's text.
var recentFooters footerCache

const (
	keptFooters      = 4
	keptFooterChunks = 1 << 18 // of all of them
)

type footerCache struct {
	sync.Mutex
	entries []cachedFooter // newest last
}

type cachedFooter struct {
	in   score.Input
	foot *footer // not changed by who reads it
}

func (f *footer) chunkCount() int { return len(f.groups) * len(f.leaves) }

func (c *footerCache) get(in score.Input) *footer {
	c.Lock()
	defer c.Unlock()
	for _, e := range c.entries {
		if e.in == in {
			return e.foot
		}
	}
	return nil
}

func (c *footerCache) put(in score.Input, f *footer) {
	c.Lock()
	defer c.Unlock()
	c.entries = append(c.entries, cachedFooter{in, f})
	sum := 0
	for _, e := range c.entries {
		sum += e.foot.chunkCount()
	}
	for len(c.entries) > keptFooters || len(c.entries) > 0 && sum > keptFooterChunks {
		sum -= c.entries[0].foot.chunkCount()
		c.entries = append(c.entries[:0:0], c.entries[1:]...)
	}
}

// footer reads an input's footer, or takes it from the job before.
func (s source) footer(in score.Input, size int64) (*footer, error) {
	if s.Object == nil || s.Local() {
		return readFooter(s, size)
	}
	if f := recentFooters.get(in); f != nil {
		return f, nil
	}
	f, err := readFooter(s, size)
	if err == nil {
		recentFooters.put(in, f)
	}
	return f, err
}
