//go:build cuda

package gpu

import (
	"cmp"
	"fmt"
	"slices"

	"gorgonia.org/cu"

	"surprisal/internal/score"
)

// recurrence launches the kernels of kernels/gdn2_*.cu, which docs/kernels/gdn2_api.md
// describes. Documents run in groups whose chunks fit the workspace: a batch of a usual
// mix is one group, a batch of single tokens is many.
type recurrence struct {
	chunked                     bool
	projected                   bool // prepare computes its operands from the projections
	simple, prepare, walk, gate cu.Function
	prepareShared               int
	walkShared, walkBlock       int
	slice                       int // values of a head per block of the walk
	maxChunks                   int // of a group
	keyBytes, valueBytes        int64
	keyRecords, valueRecords    cu.DevicePtr // [maxChunks, H] and [maxChunks, HV] records
	raw                         cu.DevicePtr // [rows, HV, V] fp32, for V = 256
	groups                      []group
}

const (
	chunk       = score.SplitMultiple
	moreChunks  = 512 // of a group, beyond those of one long document
	chunkStarts = 128 // as in kernels/gdn2_recurrence.cuh
)

// walkShared is the walk's dynamic shared memory by K and the slice of V.
var walkShared = map[[2]int]int{{128, 128}: 226432, {128, 64}: 177280, {64, 128}: 177280, {64, 64}: 128128}

// group is the documents whose recurrences run together, and their tables on the
// device.
type group struct {
	docs, chunks                       int
	cuSeqlens, table, docChunks, order cu.DevicePtr
	states                             cu.DevicePtr // 0 when no document has one
}

// linkRecurrence finds the kernels: the chunked ones on compute capability 9.0, elsewhere
// the simple one.
func (e *Engine) linkRecurrence(suffix string) error {
	r, c := &e.rec, e.model
	var err error
	if r.simple, err = e.mod.fn(fmt.Sprintf("gdn2_simple_k%d_%s", c.K, suffix)); err != nil {
		return err
	}
	r.slice = min(c.V, 128)
	walk := fmt.Sprintf("gdn2_walk_k%d_v%d_%s", c.K, r.slice, suffix)
	r.chunked = !e.opt.simple && e.dev.info.Major == 9 && e.mod.has(walk)
	r.maxChunks = e.cfg.MaxTokens // set once the budget is known
	if !r.chunked {
		return nil
	}
	r.prepareShared, r.keyBytes = 98304, 57856
	if c.K == 64 {
		r.prepareShared, r.keyBytes = 81920, 33024
	}
	r.valueBytes = 128 * int64(c.V)
	prepare := "gdn2_prepare"
	if r.projected = !e.opt.stored; r.projected {
		prepare = "gdn2_prepare_projected"
	}
	if r.prepare, err = e.mod.withShared(fmt.Sprintf("%s_k%d_%s", prepare, c.K, suffix), r.prepareShared); err != nil {
		return err
	}
	r.walkShared = walkShared[[2]int{c.K, r.slice}]
	r.walkBlock = 2*r.slice + 256
	if r.walk, err = e.mod.withShared(walk, r.walkShared); err != nil {
		return err
	}
	r.gate, err = e.mod.fn("gdn2_norm_gate")
	return err
}

func (e *Engine) recordBytes() int64 {
	return int64(e.model.Heads)*e.rec.keyBytes + int64(e.model.VHeads)*e.rec.valueBytes
}

// recurrenceBytesPerToken and recurrenceFixedBytes are the memory that planRecurrence allocates.
func (e *Engine) recurrenceBytesPerToken() int64 {
	n := e.recordBytes()/chunk + 1
	if e.model.V > 128 {
		n += 4 * int64(e.model.VHeads*e.model.V)
	}
	return n
}

func (e *Engine) recurrenceFixedBytes() int64 { return moreChunks * e.recordBytes() }

func (e *Engine) planRecurrence() {
	r := &e.rec
	r.maxChunks = e.rows/chunk + moreChunks
	if !r.chunked {
		return
	}
	r.keyRecords = e.mem.alloc("the recurrence's key records", int64(r.maxChunks)*int64(e.model.Heads)*r.keyBytes)
	r.valueRecords = e.mem.alloc("the recurrence's value records",
		int64(r.maxChunks)*int64(e.model.VHeads)*r.valueBytes)
	if e.model.V > 128 {
		r.raw = e.mem.alloc("the recurrence's raw output", 4*int64(e.rows)*int64(e.model.VHeads*e.model.V))
	}
}

// tables divides the batch into groups and writes their tables.
func (e *Engine) tables(b *score.Batch, m *metaWriter) {
	r := &e.rec
	r.groups = r.groups[:0]
	n := len(b.States)
	for first := 0; first < n; {
		last, chunks := first, 0
		for last < n {
			c := (int(b.CuSeqlens[last+1]-b.CuSeqlens[last]) + chunk - 1) / chunk
			if last > first && chunks+c > r.maxChunks {
				break
			}
			chunks += c
			last++
		}
		r.groups = append(r.groups, e.group(b, m, first, last, chunks))
		first = last
	}
}

func (e *Engine) group(b *score.Batch, m *metaWriter, first, last, chunks int) group {
	n := last - first
	g := group{docs: n, chunks: chunks}
	var bounds, table, docChunks, order []int32
	bounds, g.cuSeqlens = m.ints(n + 1)
	copy(bounds, b.CuSeqlens[first:last+1])
	table, g.table = m.ints(2 * chunks)
	docChunks, g.docChunks = m.ints(n + 1)
	order, g.order = m.ints(n)
	carried := false
	at := 0
	for i := range n {
		order[i] = int32(i)
		docChunks[i] = int32(at)
		for t := bounds[i]; t < bounds[i+1]; t += chunk {
			table[2*at], table[2*at+1] = t, min(chunk, bounds[i+1]-t)
			if t == bounds[i] {
				table[2*at+1] |= chunkStarts
			}
			at++
		}
		carried = carried || b.States[first+i] != nil
	}
	docChunks[n] = int32(at)
	slices.SortFunc(order, func(i, j int32) int {
		return cmp.Or(cmp.Compare(bounds[j+1]-bounds[j], bounds[i+1]-bounds[i]), cmp.Compare(i, j))
	})
	if carried {
		var states []uint64
		states, g.states = m.words(n)
		for i := range n {
			states[i] = 0
			if s := b.States[first+i]; s != nil {
				states[i] = uint64(s.(*state).p)
			}
		}
	}
	return g
}

// recur runs a layer's recurrence over the batch, from the projections or the gates'
// output to o.
func (e *Engine) recur(l int, d batch) error {
	r, c, b, y := &e.rec, e.model, &e.buf, &e.w.layers[l]
	h, hv := uint64(c.Heads), uint64(c.VHeads)
	offset := uint64(l) * uint64(c.VHeads*c.K*c.V)
	scale, eps := f32(e.cfg.QueryScale), f32(c.NormEps)
	for i := range r.groups {
		g := &r.groups[i]
		if !r.chunked {
			err := e.dev.launch(r.simple, [3]int{c.VHeads, g.docs, 1}, c.V, 0,
				uint64(b.q), uint64(b.k), uint64(b.bk), uint64(b.wv), uint64(b.g), uint64(b.z), uint64(y.outNorm),
				uint64(b.o), uint64(g.cuSeqlens), uint64(g.states), uint64(g.states), offset, h, hv, scale, eps)
			if err != nil {
				return err
			}
			continue
		}
		e.mark("gdn2 prepare")
		from := []uint64{uint64(b.q), uint64(b.k), uint64(b.bk), uint64(b.wv), uint64(b.g)}
		to := []uint64{uint64(g.table), uint64(r.keyRecords), uint64(r.valueRecords), h, hv, uint64(c.V), scale}
		if r.projected {
			from = []uint64{uint64(b.p), uint64(b.f), uint64(y.rate), uint64(y.dtBias)}
			to = append(to,
				uint64(e.cols.total), uint64(e.cols.b), uint64(e.cols.v), uint64(e.cols.w), uint64(e.cols.eta),
				uint64(y.convW), uint64(y.convB), uint64(y.etaBias), uint64(b.seqOf), uint64(d.hist),
				e.historyOffset(l), uint64(e.channels()), e.gateFlags(), f32(c.KaczmarzEps))
		}
		grid := [3]int{c.Heads, g.chunks, 1}
		if err := e.dev.launch(r.prepare, grid, 256, r.prepareShared, append(from, to...)...); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		e.mark("gdn2 walk")
		err := e.dev.launch(r.walk, [3]int{c.VHeads * c.V / r.slice, g.docs, 1}, r.walkBlock, r.walkShared,
			uint64(r.keyRecords), uint64(r.valueRecords), uint64(b.z), uint64(y.outNorm), uint64(b.o), uint64(r.raw),
			uint64(g.cuSeqlens), uint64(g.docChunks), uint64(g.order), uint64(g.states), uint64(g.states), offset,
			h, hv, uint64(c.V), eps)
		if err != nil {
			return fmt.Errorf("walk: %w", err)
		}
	}
	return nil
}

// gateOutput applies the gated norm for heads that are wider than one slice of the walk.
func (e *Engine) gateOutput(l, t int) error {
	if !e.rec.chunked || e.model.V <= 128 {
		return nil
	}
	rows := t * e.model.VHeads
	return e.dev.launch(e.rec.gate, [3]int{(rows + 7) / 8, 1, 1}, 256, 0,
		uint64(e.rec.raw), uint64(e.buf.z), uint64(e.w.layers[l].outNorm), uint64(e.buf.o), uint64(rows),
		uint64(e.model.V), f32(e.model.NormEps))
}
