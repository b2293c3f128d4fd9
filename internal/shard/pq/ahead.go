package pq

import (
	"context"
	"io"
	"slices"
	"sync"
)

// How a file that is not local is read ahead.
const (
	aheadBytes   = 32 << 20 // held and under way at most, but for what is asked for now
	aheadFetches = 6        // under way at once
	fetchBytes   = 4 << 20  // of one request
	// smallChunk is read whole, where finding the pages needed in it would take
	// more requests.
	smallChunk = 256 << 10
	// nearGap is read along, where two chunks that are needed lie so near.
	nearGap = 8 << 10
)

// piece is a range of a file that one column reads from its start to its end.
type piece struct {
	off, end int64
	group    int
	at       float64 // where in the group's rows it is needed, from 0
}

// ahead reads a file's column chunks before they are asked for, in the order in
// which rows need them, several requests at once, in bounded memory. What no
// piece holds is read when it is asked for.
type ahead struct {
	r      io.ReaderAt
	last   int64 // the last row that will be read
	cancel context.CancelFunc
	ctx    context.Context // of the reader
	wg     sync.WaitGroup

	mu      sync.Mutex
	fetches []*fetch // by offset
	queue   []*fetch // not begun, by need
	held    int64
	running int
}

// fetch is one request: a piece, or several that lie beside each other.
type fetch struct {
	piece
	parts []piece
	begun bool
	done  chan struct{}
	buf   []byte
	err   error
	gone  bool // read to its end, or passed: its bytes are let go
}

// Remote is a file of which each read may be a request over a network.
type Remote interface {
	io.ReaderAt
	// Local reports whether reads cost no request.
	Local() bool
	// Reader gives the file's bytes until ctx ends.
	Reader(ctx context.Context) io.ReaderAt
}

// ReadAhead gives a reader of the leaves' chunks for rows first to last, and what
// ends it. For a file that is not Remote, or local, it is the file.
func (f *Footer) ReadAhead(ctx context.Context, file io.ReaderAt, leaves []*Leaf, first, last int64) (io.ReaderAt,
	func()) {
	r, ok := file.(Remote)
	if !ok || r.Local() {
		return file, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{r: r.Reader(ctx), last: last, ctx: ctx, cancel: cancel}
	var pieces []piece
	for i := range f.groups {
		g := &f.groups[i]
		if g.rows == 0 || last < g.first || first >= g.first+g.rows {
			continue
		}
		for _, l := range leaves {
			c := &g.chunks[l.Index]
			if c.encrypted || c.elsewhere {
				continue
			}
			if first > g.first && c.end-c.start > smallChunk {
				continue // column.seek finds where it begins
			}
			pieces = append(pieces, piece{c.start, likelyEnd(c.start, c.end, g.rows, last-g.first+1), i, 0})
		}
	}
	a.want(pieces)
	return a, a.close
}

// likelyEnd guesses where the pages of the first n of rows end in a chunk. It
// rather stops too early: what is missing is read when it is asked for.
func likelyEnd(start, end, rows, n int64) int64 {
	if n >= rows || end-start <= smallChunk {
		return end
	}
	return start + int64(float64(end-start)*0.95*float64(n)/float64(rows))
}

// begin tells that a column, placed by a search, reads on from off, left rows
// before its chunk's end.
func (a *ahead) begin(off, end, left int64, group int, row int64) {
	if end = likelyEnd(off, end, left, a.last-row+1); end > off {
		a.want([]piece{{off, end, group, 0}})
	}
}

// want adds pieces to what is read ahead.
func (a *ahead) want(pieces []piece) {
	var cut []piece
	for _, p := range pieces {
		size := float64(p.end - p.off)
		for off := p.off; off < p.end; off += fetchBytes {
			cut = append(cut, piece{off, min(off+fetchBytes, p.end), p.group, float64(off-p.off) / size})
		}
	}
	slices.SortFunc(cut, func(x, y piece) int {
		if x.group != y.group {
			return x.group - y.group
		}
		return int(min(max(x.off-y.off, -1), 1))
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	var last *fetch
	for _, p := range cut {
		if a.overlaps(p) {
			continue // chunks of a hostile footer: read when they are asked for
		}
		if last != nil && last.group == p.group && p.off >= last.end && p.off-last.end <= nearGap &&
			p.end-last.off <= fetchBytes {
			last.end, last.at = p.end, min(last.at, p.at)
			last.parts = append(last.parts, p)
			continue
		}
		last = &fetch{piece: p, parts: []piece{p}, done: make(chan struct{})}
		i, _ := slices.BinarySearchFunc(a.fetches, p.off,
			func(f *fetch, off int64) int { return int(min(max(f.off-off, -1), 1)) })
		a.fetches = slices.Insert(a.fetches, i, last)
		a.queue = append(a.queue, last)
	}
	slices.SortStableFunc(a.queue, func(x, y *fetch) int {
		switch {
		case x.group != y.group:
			return x.group - y.group
		case x.at < y.at:
			return -1
		case x.at > y.at:
			return 1
		}
		return 0
	})
	a.pump()
}

func (a *ahead) overlaps(p piece) bool {
	i, _ := slices.BinarySearchFunc(a.fetches, p.off, func(f *fetch, off int64) int {
		if f.end <= off {
			return -1
		}
		return 1
	})
	return i < len(a.fetches) && a.fetches[i].off < p.end
}

// pump begins what there is room for. The lock is held.
func (a *ahead) pump() {
	for len(a.queue) > 0 && a.running < aheadFetches && a.held+a.queue[0].end-a.queue[0].off <= aheadBytes {
		f := a.queue[0]
		a.queue = a.queue[1:]
		a.start(f)
	}
}

func (a *ahead) start(f *fetch) {
	f.begun = true
	a.running++
	a.held += f.end - f.off
	a.wg.Go(func() {
		buf := make([]byte, f.end-f.off)
		_, err := a.r.ReadAt(buf, f.off)
		if err == io.EOF {
			err = nil // it reaches the file's end
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.running--
		f.buf, f.err = buf, err
		close(f.done)
		a.pump()
	})
}

// ReadAt gives bytes that were read ahead, or reads them now.
func (a *ahead) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		m, err := a.readSome(p[n:], off+int64(n))
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (a *ahead) readSome(p []byte, off int64) (int, error) {
	f, next := a.find(off)
	if f == nil {
		if next > off && int64(len(p)) > next-off {
			p = p[:next-off]
		}
		return a.r.ReadAt(p, off)
	}
	select {
	case <-f.done:
	case <-a.ctx.Done():
		return 0, context.Cause(a.ctx)
	}
	if f.err != nil {
		return 0, f.err
	}
	n := copy(p, f.buf[off-f.off:])
	a.used(f, off+int64(n))
	return n, nil
}

// find gives the fetch that off is in, begun, or the offset of the one after it.
func (a *ahead) find(off int64) (f *fetch, next int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i, _ := slices.BinarySearchFunc(a.fetches, off, func(f *fetch, off int64) int {
		if f.end <= off {
			return -1
		}
		return 1
	})
	for ; i < len(a.fetches) && a.fetches[i].gone; i++ {
		if a.fetches[i].off <= off && off < a.fetches[i].end {
			return nil, a.fetches[i].end
		}
	}
	if i == len(a.fetches) {
		return nil, 0
	}
	if f = a.fetches[i]; f.off > off {
		return nil, f.off
	}
	if !f.begun {
		a.queue = slices.DeleteFunc(a.queue, func(q *fetch) bool { return q == f })
		a.start(f)
	}
	return f, 0
}

// used lets go what was read to its end, and what lies two row groups back:
// columns are read side by side.
func (a *ahead) used(f *fetch, to int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f.parts = slices.DeleteFunc(f.parts, func(p piece) bool { return p.end <= to && p.off < to && to <= p.end })
	if len(f.parts) == 0 {
		a.drop(f)
	}
	for _, g := range a.fetches {
		if g.group < f.group-1 {
			a.drop(g)
		}
	}
	a.fetches = slices.DeleteFunc(a.fetches, func(g *fetch) bool { return g.gone && g.group < f.group-1 })
	a.pump()
}

func (a *ahead) drop(f *fetch) {
	if f.gone {
		return
	}
	select {
	case <-f.done:
		a.held -= f.end - f.off
		f.gone, f.buf = true, nil
	default:
		if !f.begun {
			f.gone = true
			a.queue = slices.DeleteFunc(a.queue, func(q *fetch) bool { return q == f })
		}
	}
}

// close ends what is under way and waits for it.
func (a *ahead) close() {
	a.cancel()
	a.wg.Wait()
}
