//go:build cuda

package gpu

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"gorgonia.org/cu"
)

// commonRows is the number of rows for which the algorithm is asked that the
// others must agree with. It never depends on the budget.
const commonRows = 4096

// tuneAll chooses an algorithm for each kind of product: the fastest of those
// that agree to the bit with the library's favourite for commonRows. Which is the
// fastest may differ between loads, budgets and machines of one kind; the scores
// don't. The work buffers are free for it.
func (e *Engine) tuneAll() error {
	y, g := &e.w.layers[0], e.gemm
	for _, t := range []struct {
		p    *product
		rows int
		o    operands
	}{
		{g.in, e.rows, operands{e.buf.y, y.in, e.buf.p, 0}},
		{g.decay, e.rows, operands{e.buf.p + cu.DevicePtr(2*e.cols.f), y.decay, e.buf.f, 0}},
		{g.gate, e.rows, operands{e.buf.p + cu.DevicePtr(2*e.cols.g), y.gate, e.buf.z, y.gateBias}},
		{g.out, e.rows, operands{e.buf.o, y.out, e.buf.x, 0}},
		{g.up, e.rows, operands{e.buf.y, y.up, e.buf.h, 0}},
		{g.down, e.rows, operands{e.buf.a, y.down, e.buf.x, 0}},
		{g.head, min(e.rows, headRows), operands{e.buf.y, e.w.head, e.hd.log, 0}},
	} {
		if t.o.y == 0 { // not used
			continue
		}
		if err := e.tune(t.p, t.rows, t.o); err != nil {
			return fmt.Errorf("choose an algorithm for the product %s [%d x %d]: %w", t.p.name, t.p.c.n, t.p.c.k, err)
		}
	}
	return nil
}

func (e *Engine) tune(p *product, rows int, o operands) error {
	common, err := e.lt.candidates(p, commonRows)
	if err != nil {
		return err
	}
	if len(common) == 0 {
		return fmt.Errorf("cuBLASLt %d has none that sums a row in one piece", e.lt.version)
	}
	if e.opt.untuned {
		p.algo = common[0]
		return nil
	}
	all, err := e.lt.candidates(p, rows)
	if err != nil {
		return err
	}
	all = append(common[:1:1], append(all, common[1:]...)...)

	// The reference's output, to compare with.
	tested := min(rows, commonRows)
	width := int64(2)
	if p.c.fp32_out != 0 {
		width = 4
	}
	size := int64(tested) * int64(p.c.ldy) * width
	scratch := memory{stream: e.dev.stream}
	want, count := scratch.alloc("the choice of algorithms", size), scratch.alloc("a counter", 8)
	defer func() { _ = scratch.free() }()
	if scratch.err != nil {
		return scratch.err
	}
	// x is rows of stride ldx from o.x, which may point into a row.
	if err := e.fillRandom(o.x, int64(rows-1)*int64(p.c.ldx)+int64(p.c.k), 1); err != nil {
		return err
	}
	var agree []int // of all, the library's favourite first
	var seen [][]byte
	for i := range all {
		algo := &all[i]
		raw := bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(algo)), unsafe.Sizeof(*algo)))
		if slices.ContainsFunc(seen, func(b []byte) bool { return bytes.Equal(b, raw) }) {
			continue
		}
		seen = append(seen, raw)
		if err := cu.MemsetD8Async(o.y, 0, size, e.dev.stream); err != nil {
			return err
		}
		if err := e.lt.runWith(p, algo, tested, o, e.dev.stream); err != nil {
			if i == 0 {
				return err
			}
			continue // not for so many rows
		}
		if i == 0 {
			if err := cu.MemcpyDtoDAsync(want, o.y, size, e.dev.stream); err != nil {
				return err
			}
		} else if n, err := e.differences(count, want, o.y, size/4); err != nil {
			return err
		} else if n != 0 {
			continue
		}
		if rows != tested && e.lt.runWith(p, algo, rows, o, e.dev.stream) != nil {
			if i == 0 {
				return fmt.Errorf("the library's favourite for %d rows does not take %d", commonRows, rows)
			}
			continue
		}
		agree = append(agree, i)
	}
	// In turns, several times: clocks settle under load, and fall for all alike. What
	// is far behind after the first is so after the others.
	const rounds = 6
	agreed := len(agree)
	took := make([]float64, len(all)) // all rounds together
	done := 0
	for ; done < rounds && (done == 0 || len(agree) > 1); done++ {
		for _, i := range agree {
			ms, err := e.time(func() error { return e.lt.runWith(p, &all[i], rows, o, e.dev.stream) })
			if err != nil {
				return err
			}
			took[i] += ms
		}
		if done == 0 {
			agree = contenders(agree, took)
		}
	}
	best := agree[0]
	for _, i := range agree {
		// A clear gain only: near ties go to the library's order.
		if took[i] < took[best]*0.99 {
			best = i
		}
	}
	p.algo, p.took, p.rows = all[best], took[best]/float64(done), rows
	p.what = fmt.Sprintf("%s, %d of %d agree", e.lt.describe(&p.algo), agreed, len(seen))
	return nil
}

// contenders are those of list that took no more than a tenth longer than the fastest.
func contenders(list []int, took []float64) []int {
	least := took[list[0]]
	for _, i := range list {
		least = min(least, took[i])
	}
	return slices.DeleteFunc(list, func(i int) bool { return took[i] > 1.1*least })
}

// time is the milliseconds of the second and third run of three, back to back.
func (e *Engine) time(run func() error) (float64, error) {
	var ev [2]cu.Event
	for i := range ev {
		var err error
		if ev[i], err = cu.MakeEvent(cu.DefaultEvent); err != nil {
			return 0, err
		}
		defer func() { _ = cu.DestroyEvent(&ev[i]) }()
	}
	if err := errors.Join(run(), ev[0].Record(e.dev.stream), run(), run(), ev[1].Record(e.dev.stream), ev[1].Synchronize()); err != nil {
		return 0, err
	}
	ms, err := ev[0].Elapsed(ev[1])
	return ms / 2, err
}

func (e *Engine) fillRandom(p cu.DevicePtr, n int64, seed uint64) error {
	fn, err := e.mod.fn("fill_random")
	if err != nil {
		return err
	}
	return e.dev.launch(fn, [3]int{8 * e.dev.sms, 1, 1}, 256, 0, uint64(p), uint64(n), seed, f32(1))
}

// differences counts 32-bit words that differ; count is 8 bytes of scratch.
func (e *Engine) differences(count, a, b cu.DevicePtr, n int64) (int64, error) {
	fn, err := e.mod.fn("count_differences")
	if err != nil {
		return 0, err
	}
	if err := cu.MemsetD8Async(count, 0, 8, e.dev.stream); err != nil {
		return 0, err
	}
	if err := e.dev.launch(fn, [3]int{8 * e.dev.sms, 1, 1}, 256, 0, uint64(count), uint64(a), uint64(b), uint64(n)); err != nil {
		return 0, err
	}
	if err := e.dev.stream.Synchronize(); err != nil {
		return 0, err
	}
	var out int64
	err = cu.MemcpyDtoH(unsafe.Pointer(&out), count, 8)
	return out, err
}
