//go:build cuda

package gpu

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"gorgonia.org/cu"
)

// commonRows is the number of rows whose favourite algorithm all others must agree
// with. It never depends on the budget.
const commonRows = 4096

// tuneAll chooses an algorithm for each kind of product: the fastest of those
// that agree to the bit with the library's favourite for commonRows. Which one is
// fastest may differ between loads, budgets and machines of one kind; the scores
// don't. It overwrites the work buffers.
func (e *Engine) tuneAll() error {
	y, g := &e.w.layers[0], e.gemm // in int8 some of a layer's matrices are elsewhere, and 0 here
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
		if t.o.y == 0 || t.o.w == 0 { // not used
			continue
		}
		if err := e.tune(t.p, t.rows, t.o); err != nil {
			return fmt.Errorf("choose an algorithm for the product %s [%d x %d]: %w", t.p.name, t.p.c.n, t.p.c.k, err)
		}
	}
	return nil
}

// tune chooses the algorithm of one product. Without tuning it is the library's
// favourite, and none runs.
func (e *Engine) tune(p *product, rows int, o operands) error {
	all, err := e.algorithms(p, rows)
	if err != nil {
		return err
	}
	if e.opt.untuned {
		p.algo = all[0]
		return nil
	}
	agree, err := e.agreeing(p, all, rows, o)
	if err != nil {
		return err
	}
	best, ms, err := e.fastest(p, agree, rows, o)
	if err != nil {
		return err
	}
	p.algo, p.took, p.rows = best, ms, rows
	p.what = fmt.Sprintf("%s, %d of %d agree", e.lt.describe(&p.algo), len(agree), len(all))
	return nil
}

// algorithms lists the library's candidates for commonRows and for rows, each once,
// its favourite for commonRows first.
func (e *Engine) algorithms(p *product, rows int) ([]algorithm, error) {
	common, err := e.lt.candidates(p, commonRows)
	if err != nil {
		return nil, err
	}
	if len(common) == 0 {
		return nil, fmt.Errorf("cuBLASLt %d has no algorithm that sums a row in one piece", e.lt.version)
	}
	if e.opt.untuned {
		return common[:1], nil
	}
	more, err := e.lt.candidates(p, rows)
	if err != nil {
		return nil, err
	}
	var all []algorithm
	for _, a := range slices.Concat(common[:1], more, common[1:]) {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all, nil
}

// agreeing runs each algorithm on random operands and returns those whose output has
// the bits of the first one's, in order; the first is among them.
func (e *Engine) agreeing(p *product, all []algorithm, rows int, o operands) ([]algorithm, error) {
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
		return nil, scratch.err
	}
	// x is rows of stride ldx from o.x, which may point into a row.
	if err := e.fillRandom(o.x, int64(rows-1)*int64(p.c.ldx)+int64(p.c.k), 1); err != nil {
		return nil, err
	}
	var agree []algorithm
	for i := range all {
		algo, reference := &all[i], i == 0
		if err := cu.MemsetD8Async(o.y, 0, size, e.dev.stream); err != nil {
			return nil, err
		}
		if err := e.lt.runWith(p, algo, tested, o, e.dev.stream); err != nil {
			if reference {
				return nil, err
			}
			continue // does not support this number of rows
		}
		if reference {
			if err := cu.MemcpyDtoDAsync(want, o.y, size, e.dev.stream); err != nil {
				return nil, err
			}
		} else if n, err := e.differences(count, want, o.y, size/4); err != nil {
			return nil, err
		} else if n != 0 {
			continue
		}
		if rows != tested && e.lt.runWith(p, algo, rows, o, e.dev.stream) != nil {
			if reference {
				return nil, fmt.Errorf("the library's favourite for %d rows does not support %d rows", commonRows, rows)
			}
			continue
		}
		agree = append(agree, *algo)
	}
	return agree, nil
}

// fastest times algorithms in turns, several times, since clocks fall under load for
// all of them alike, and returns the best and its mean milliseconds. One that is far
// behind in the first round is left out of the others. Near ties go to the library's
// order.
func (e *Engine) fastest(p *product, all []algorithm, rows int, o operands) (algorithm, float64, error) {
	const rounds = 6
	list := make([]int, len(all))
	for i := range list {
		list[i] = i
	}
	took := make([]float64, len(all)) // all rounds together
	done := 0
	for ; done < rounds && (done == 0 || len(list) > 1); done++ {
		for _, i := range list {
			ms, err := e.time(func() error { return e.lt.runWith(p, &all[i], rows, o, e.dev.stream) })
			if err != nil {
				return algorithm{}, 0, err
			}
			took[i] += ms
		}
		if done == 0 {
			list = contenders(list, took)
		}
	}
	best := list[0]
	for _, i := range list {
		if took[i] < took[best]*0.99 {
			best = i
		}
	}
	return all[best], took[best] / float64(done), nil
}

// contenders are the elements of list that took at most a tenth longer than the fastest.
func contenders(list []int, took []float64) []int {
	least := took[list[0]]
	for _, i := range list {
		least = min(least, took[i])
	}
	return slices.DeleteFunc(list, func(i int) bool { return took[i] > 1.1*least })
}

// time returns the mean milliseconds of the second and third of three runs, back to back.
func (e *Engine) time(run func() error) (float64, error) {
	var ev [2]cu.Event
	for i := range ev {
		var err error
		if ev[i], err = cu.MakeEvent(cu.DefaultEvent); err != nil {
			return 0, err
		}
		defer func() { _ = cu.DestroyEvent(&ev[i]) }()
	}
	err := errors.Join(run(), ev[0].Record(e.dev.stream), run(), run(), ev[1].Record(e.dev.stream), ev[1].Synchronize())
	if err != nil {
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
	err = e.dev.launch(fn, [3]int{8 * e.dev.sms, 1, 1}, 256, 0, uint64(count), uint64(a), uint64(b), uint64(n))
	if err != nil {
		return 0, err
	}
	if err := e.dev.stream.Synchronize(); err != nil {
		return 0, err
	}
	var out int64
	err = cu.MemcpyDtoH(unsafe.Pointer(&out), count, 8)
	return out, err
}
