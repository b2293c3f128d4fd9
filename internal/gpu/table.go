//go:build cuda

package gpu

import (
	"errors"

	"gorgonia.org/cu"
)

func (e *Engine) tableBytes() int64 { return 2 * int64(e.model.VocabSize) * int64(e.cols.total) }

// buildTable computes the first layer's projections of every token, with the kernels and
// the algorithm of a forward pass, so that a row has the same bits. If the memory is no
// longer free, there is no table.
func (e *Engine) buildTable() error {
	if e.opt.noTable {
		return nil
	}
	table := e.mem.alloc("the first layer's table", e.tableBytes())
	if errors.Is(e.mem.err, cu.OutOfMemory) {
		e.mem.err = nil
		return nil
	}
	ids := viewOf[int32](e.host.meta)[:e.rows]
	for i := range ids {
		ids[i] = int32(i)
	}
	err := errors.Join(e.mem.err, cu.MemcpyHtoDAsync(e.buf.meta, e.host.meta.p, int64(4*e.rows), e.dev.stream))
	b, d, c := &e.buf, e.model.Width, e.cols.total
	for first := 0; first < e.model.VocabSize && err == nil; first += e.rows {
		n := min(e.rows, e.model.VocabSize-first)
		err = errors.Join(
			e.embedRows(e.w.embedding+cu.DevicePtr(2*first*d), b.meta, n),
			e.normIn(0, n),
			e.productIn(0, roundUp(n, rowTile)),
			cu.MemcpyDtoDAsync(table+cu.DevicePtr(2*first*c), b.p, int64(2*n*c), e.dev.stream))
	}
	if err == nil {
		e.table = table
	}
	return err
}

// gather computes y [n, ld] = table[ids].
func (e *Engine) gather(y, table, ids cu.DevicePtr, n, ld int) error {
	return e.dev.launch(e.k.gather, [3]int{(n + 7) / 8, 1, 1}, 256, 0, uint64(y), uint64(table), uint64(ids), uint64(n),
		uint64(ld))
}
