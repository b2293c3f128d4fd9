//go:build cuda

package gpu

import "gorgonia.org/cu"

// head computes the product with the vocabulary and the rows' NLL. On Hopper one kernel
// keeps the logits in registers and another joins its tiles; elsewhere the logits are
// written in slices, fp32.
type head struct {
	fused                 bool
	product, join         cu.Function // fused
	loss                  cu.Function // not fused
	maps, part, goal, log cu.DevicePtr
}

const (
	headShared = 198656
	headTile   = 256 // logits that the kernel reduces together
)

func (e *Engine) linkHead() error {
	var err error
	h := &e.hd
	if h.loss, err = e.mod.fn("nll_rows"); err != nil {
		return err
	}
	if h.fused = e.ownProducts("head_nll"); h.fused {
		if h.product, err = e.mod.withShared("head_nll", headShared); err == nil {
			h.join, err = e.mod.fn("nll_join")
		}
	}
	return err
}

func (e *Engine) headTiles() int { return (e.model.VocabSize + headTile - 1) / headTile }

// headBytes is the memory that planHead allocates for a number of rows.
func (e *Engine) headBytes(rows int) int64 {
	if e.hd.fused {
		return 8 * int64(rows) * int64(e.headTiles()+1)
	}
	return 4 * int64(min(rows, headRows)) * int64(headColumns(e.model))
}

func (e *Engine) planHead() error {
	h, c := &e.hd, e.model
	if !h.fused {
		h.log = e.mem.alloc("logits", e.headBytes(e.rows))
		return e.mem.err
	}
	h.part = e.mem.alloc("the head's tiles", 8*int64(e.rows)*int64(e.headTiles()))
	h.goal = e.mem.alloc("the targets' logits", 8*int64(e.rows))
	var err error
	h.maps, err = e.tensorMaps([]matrix{{p: e.buf.y, rows: e.rows, columns: c.Width, box: 128},
		{p: e.w.head, rows: headColumns(c), columns: c.Width, box: 128}})
	return err
}

// head scores the rows that have a target.
func (e *Engine) head(d batch) error {
	if d.scored == 0 {
		return nil
	}
	e.mark("norm")
	if err := e.norm(e.w.lnF, d.rows, d.scored); err != nil {
		return err
	}
	e.mark("product head")
	if e.hd.fused {
		if err := e.headProduct(roundUp(d.scored, rowTile), d); err != nil {
			return err
		}
		e.mark("loss")
		return e.joinTiles(d)
	}
	for r := 0; r < d.scored; r += headRows {
		n := min(headRows, d.scored-r)
		x := e.buf.y + cu.DevicePtr(2*r*e.model.Width)
		if err := e.product(e.gemm.head, roundUp(n, rowTile), operands{x, e.w.head, e.hd.log, 0}); err != nil {
			return err
		}
		e.mark("loss")
		if err := e.lossOf(n, d.rows+cu.DevicePtr(4*r), d.targets); err != nil {
			return err
		}
		e.mark("product head")
	}
	return nil
}

// headProduct reduces the logits of rows of y, a multiple of rowTile. The first
// d.scored of them have targets.
func (e *Engine) headProduct(rows int, d batch) error {
	h, c := &e.hd, e.model
	return e.dev.launch(h.product, e.productGrid(rows, c.VocabSize), productBlock, headShared,
		uint64(h.maps), uint64(h.part), uint64(h.goal), uint64(d.rows), uint64(d.targets), uint64(d.scored),
		uint64(rows/rowTile), uint64(c.VocabSize), uint64(c.Width))
}

func (e *Engine) joinTiles(d batch) error {
	h := &e.hd
	return e.dev.launch(h.join, [3]int{(d.scored + 7) / 8, 1, 1}, 256, 0,
		uint64(e.buf.nll), uint64(e.buf.top1), uint64(h.part), uint64(h.goal), uint64(d.rows), uint64(d.targets),
		uint64(d.scored), uint64(roundUp(d.scored, rowTile)), uint64(e.headTiles()))
}

// lossOf computes nll and top1 of n rows of logits.
func (e *Engine) lossOf(n int, rows, targets cu.DevicePtr) error {
	return e.dev.launch(e.hd.loss, [3]int{n, 1, 1}, 512, 0,
		uint64(e.buf.nll), uint64(e.buf.top1), uint64(e.hd.log), uint64(rows), uint64(targets),
		uint64(e.model.VocabSize), uint64(headColumns(e.model)))
}
