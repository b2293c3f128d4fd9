package where

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"

	"surprisal/internal/shard/pq"
)

// truth is what a condition comes to for a row.
type truth uint8

const (
	no truth = iota
	yes
	null
)

// Percentile is one that an expression names.
type Percentile struct {
	Column string
	P      float64 // 0 to 100
}

// Condition is an expression whose columns are known.
type Condition struct {
	Src         string
	Columns     []string     // that it reads
	Percentiles []Percentile // that it needs
	root        node
	kinds       map[string]pq.Kind
}

// Batch is some rows' values.
type Batch struct {
	N       int
	Columns []*pq.Values // of Condition.Columns
	Group   []int        // of each row
	// Thresholds [percentile][group]; NaN where a group has no value.
	Thresholds [][]float64
}

type binding struct {
	src         string
	columns     []string
	percentiles []Percentile
	kinds       map[string]pq.Kind
	bufs        [][]truth
}

// Columns are the names that an expression uses, in order of first use, and the
// place of each.
func (e *Expr) Columns() (names []string, at []int) {
	e.walk(func(o *operand) {
		if o.kind == oColumn && !slices.Contains(names, o.text) {
			names, at = append(names, o.text), append(at, o.at)
		}
	})
	return names, at
}

// walk calls do for each operand.
func (e *Expr) walk(do func(*operand)) {
	var visit func(n node)
	visit = func(n node) {
		switch n := n.(type) {
		case andNode:
			visit(n.a)
			visit(n.b)
		case orNode:
			visit(n.a)
			visit(n.b)
		case notNode:
			visit(n.a)
		case cmpNode:
			do(&n.a)
			do(&n.b)
		case nullNode:
			do(&n.a)
		case boolNode:
			do(&n.a)
		}
	}
	visit(e.root)
}

// Bind checks the expression against the columns' kinds; the error is an *Error.
func (e *Expr) Bind(kinds map[string]pq.Kind) (*Condition, error) {
	b := &binding{src: e.Src, kinds: kinds}
	b.columns, _ = e.Columns()
	root, err := b.bind(e.root)
	if err != nil {
		return nil, err
	}
	return &Condition{Src: e.Src, Columns: b.columns, Percentiles: b.percentiles, root: root, kinds: kinds}, nil
}

func (b *binding) bind(n node) (node, error) {
	var err error
	switch n := n.(type) {
	case andNode:
		if n.a, err = b.bind(n.a); err != nil {
			return nil, err
		}
		n.b, err = b.bind(n.b)
		return n, err
	case orNode:
		if n.a, err = b.bind(n.a); err != nil {
			return nil, err
		}
		n.b, err = b.bind(n.b)
		return n, err
	case notNode:
		n.a, err = b.bind(n.a)
		return n, err
	case nullNode:
		n.a.column, err = b.column(n.a)
		return n, err
	case boolNode:
		if n.a.column, err = b.column(n.a); err == nil && b.kinds[n.a.text] != pq.Bool {
			err = &Error{b.src, n.a.at, fmt.Sprintf("column %s is of type %s: compare it with something", n.a.text,
				b.kinds[n.a.text])}
		}
		return n, err
	case cmpNode:
		return b.comparison(n)
	}
	return nil, fmt.Errorf("unknown node %T", n)
}

func (b *binding) column(o operand) (int, error) {
	if b.kinds[o.text] == 0 {
		return 0, &Error{b.src, o.at, fmt.Sprintf("there is no column %q", o.text)}
	}
	return slices.Index(b.columns, o.text), nil
}

func (b *binding) comparison(n cmpNode) (node, error) {
	var err error
	if n.a.column, err = b.column(n.a); err != nil {
		return nil, err
	}
	kind := b.kinds[n.a.text]
	number := kind == pq.Int || kind == pq.Float
	fits := false
	switch n.b.kind {
	case oColumn:
		if n.b.column, err = b.column(n.b); err != nil {
			return nil, err
		}
		other := b.kinds[n.b.text]
		fits = other == kind || (number && (other == pq.Int || other == pq.Float))
	case oNumber:
		fits = number
	case oPercentile:
		fits = number
		p := Percentile{n.b.of, n.b.num}
		if n.b.column = slices.Index(b.percentiles, p); n.b.column < 0 {
			n.b.column = len(b.percentiles)
			b.percentiles = append(b.percentiles, p)
		}
	case oText:
		fits = kind == pq.Text
	case oBool:
		fits = kind == pq.Bool && (n.op == "==" || n.op == "!=")
	}
	if !fits {
		with := "a boolean by " + n.op
		switch n.b.kind {
		case oColumn:
			with = fmt.Sprintf("column %s, which is of type %s", n.b.text, b.kinds[n.b.text])
		case oNumber:
			with = "a number"
		case oPercentile:
			with = "a percentile"
		case oText:
			with = fmt.Sprintf("a text (for a column, write `%s`)", n.b.text)
		}
		return nil, &Error{b.src, n.b.at, fmt.Sprintf("column %s is of type %s and can't be compared with %s", n.a.text,
			kind, with)}
	}
	return n, nil
}

// Evaluator evaluates a condition on batches; it is for one goroutine.
type Evaluator struct {
	root node
	b    binding
	out  []truth
}

// Evaluator makes one.
func (c *Condition) Evaluator() *Evaluator { return &Evaluator{root: c.root} }

// Pass calls keep for each row of a batch for which the condition is true.
func (e *Evaluator) Pass(batch *Batch, keep func(i int)) {
	e.out = slices.Grow(e.out[:0], batch.N)[:batch.N]
	e.root.eval(&e.b, batch, e.out)
	for i, t := range e.out {
		if t == yes {
			keep(i)
		}
	}
}

func (b *binding) buffer(n int) []truth {
	if k := len(b.bufs); k > 0 {
		buf := b.bufs[k-1]
		b.bufs = b.bufs[:k-1]
		return slices.Grow(buf[:0], n)[:n]
	}
	return make([]truth, n)
}

func (n andNode) eval(b *binding, batch *Batch, out []truth) {
	n.a.eval(b, batch, out)
	other := b.buffer(len(out))
	n.b.eval(b, batch, other)
	for i, y := range other {
		switch x := out[i]; {
		case x == no || y == no:
			out[i] = no
		case x == null || y == null:
			out[i] = null
		}
	}
	b.bufs = append(b.bufs, other)
}

func (n orNode) eval(b *binding, batch *Batch, out []truth) {
	n.a.eval(b, batch, out)
	other := b.buffer(len(out))
	n.b.eval(b, batch, other)
	for i, y := range other {
		switch x := out[i]; {
		case x == yes || y == yes:
			out[i] = yes
		case x == null || y == null:
			out[i] = null
		}
	}
	b.bufs = append(b.bufs, other)
}

func (n notNode) eval(b *binding, batch *Batch, out []truth) {
	n.a.eval(b, batch, out)
	for i, x := range out {
		if x != null {
			out[i] = 1 - x
		}
	}
}

func (n nullNode) eval(_ *binding, batch *Batch, out []truth) {
	v := batch.Columns[n.a.column]
	for i, isNull := range v.Null {
		out[i] = no
		if isNull || (v.Kind == pq.Float && math.IsNaN(v.Floats[i])) {
			out[i] = yes
		}
	}
}

func (n boolNode) eval(_ *binding, batch *Batch, out []truth) {
	v := batch.Columns[n.a.column]
	for i, isNull := range v.Null {
		if out[i] = truth(v.Ints[i]); isNull {
			out[i] = null
		}
	}
}

// outcomes are what an operator makes of less, equal and more.
var outcomes = map[string][3]truth{
	"<": {yes, no, no}, "<=": {yes, yes, no}, "==": {no, yes, no}, "!=": {yes, no, yes}, ">=": {no, yes, yes}, ">": {no,
		no, yes},
}

func (n cmpNode) eval(_ *binding, batch *Batch, out []truth) {
	v := batch.Columns[n.a.column]
	when := outcomes[n.op]
	var w *pq.Values
	if n.b.kind == oColumn {
		w = batch.Columns[n.b.column]
	}
	for i, isNull := range v.Null {
		out[i] = null
		if isNull || (w != nil && w.Null[i]) {
			continue
		}
		c, ok := n.order(v, w, batch, i)
		if !ok {
			continue
		}
		out[i] = when[c+1]
	}
}

// order compares the two sides in row i; ok is false where one is not a number.
func (n *cmpNode) order(v, w *pq.Values, batch *Batch, i int) (c int, ok bool) {
	switch v.Kind {
	case pq.Text:
		if w != nil {
			return bytes.Compare(v.Texts[i], w.Texts[i]), true
		}
		return cmp.Compare(string(v.Texts[i]), n.b.text), true
	case pq.Int, pq.Bool:
		if w != nil && w.Kind != pq.Float {
			return cmp.Compare(v.Ints[i], w.Ints[i]), true
		}
		if n.b.isInt {
			return cmp.Compare(v.Ints[i], n.b.whole), true
		}
	}
	x := number(v, i)
	y := n.b.num
	switch {
	case w != nil:
		y = number(w, i)
	case n.b.kind == oPercentile:
		y = batch.Thresholds[n.b.column][batch.Group[i]]
	}
	return cmp.Compare(x, y), !math.IsNaN(x) && !math.IsNaN(y)
}

func number(v *pq.Values, i int) float64 {
	if v.Kind == pq.Float {
		return v.Floats[i]
	}
	return float64(v.Ints[i])
}
