package where

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Expr is an expression that was read; Bind gives its columns their types.
type Expr struct {
	Src  string
	root node
}

// node is a part of an expression that is true, false or null.
type node interface {
	eval(*binding, *Batch, []truth)
}

type (
	andNode struct{ a, b node }
	orNode  struct{ a, b node }
	notNode struct{ a node }
	// cmpNode compares: op is one of < <= > >= == !=.
	cmpNode struct {
		op   string
		a, b operand
	}
	nullNode struct{ a operand }
	boolNode struct{ a operand } // a boolean column alone
)

type operandKind uint8

const (
	oColumn operandKind = iota
	oNumber
	oText
	oBool
	oPercentile
)

type operand struct {
	kind   operandKind
	at     int
	text   string // the column's name, or the text
	num    float64
	whole  int64 // num, when isInt
	isInt  bool
	of     string // a percentile's column
	column int    // set by Bind: index of the column, or of the percentile
}

// Parse reads an expression; the error is an *Error.
func Parse(src string) (*Expr, error) {
	tokens, err := lex(src)
	if err != nil {
		return nil, err
	}
	p := &parser{src: src, tokens: tokens}
	if p.peek().kind == tEnd {
		return nil, p.errorf("an empty expression")
	}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.peek().kind != tEnd {
		return nil, p.errorf("%s where the expression should end, or and, or", p.peek().what())
	}
	return &Expr{src, n}, nil
}

type parser struct {
	src    string
	tokens []token
	i      int
	depth  int
}

const maxDepth = 200

func (p *parser) peek() token { return p.tokens[p.i] }

func (p *parser) next() token {
	t := p.tokens[p.i]
	if t.kind != tEnd {
		p.i++
	}
	return t
}

func (p *parser) errorf(format string, a ...any) error { return p.errorAt(p.peek().at, format, a...) }

func (p *parser) errorAt(at int, format string, a ...any) error {
	return &Error{p.src, at, fmt.Sprintf(format, a...)}
}

// word takes the next token if it is this keyword.
func (p *parser) word(w string) bool {
	if t := p.peek(); t.kind == tWord && strings.EqualFold(t.text, w) {
		p.next()
		return true
	}
	return false
}

func (p *parser) op(op string) bool {
	if t := p.peek(); t.kind == tOp && t.text == op {
		p.next()
		return true
	}
	return false
}

func (p *parser) or() (node, error) {
	a, err := p.and()
	for err == nil && p.word("or") {
		var b node
		b, err = p.and()
		a = orNode{a, b}
	}
	return a, err
}

func (p *parser) and() (node, error) {
	a, err := p.not()
	for err == nil && p.word("and") {
		var b node
		b, err = p.not()
		a = andNode{a, b}
	}
	return a, err
}

func (p *parser) not() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf("nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	if p.word("not") {
		a, err := p.not()
		return notNode{a}, err
	}
	if p.op("(") {
		a, err := p.or()
		if err == nil && !p.op(")") {
			err = p.errorf("%s where a ) should be", p.peek().what())
		}
		return a, err
	}
	return p.comparison()
}

var opposite = map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}

func (p *parser) comparison() (node, error) {
	a, err := p.operand()
	if err != nil {
		return nil, err
	}
	t := p.peek()
	if t.kind == tOp {
		op := map[string]string{"=": "==", "<>": "!="}[t.text]
		if op == "" {
			op = t.text
		}
		if opposite[op] != "" {
			p.next()
			b, err := p.operand()
			if err != nil {
				return nil, err
			}
			if t := p.peek(); t.kind == tOp && t.text != ")" && t.text != "," {
				return nil, p.errorf("comparisons can't be chained: write x between a and b, or two of them with and")
			}
			return p.compare(op, a, b)
		}
	}
	if p.word("is") {
		not := p.word("not")
		if !p.word("null") {
			return nil, p.errorf("%s where null should be", p.peek().what())
		}
		if a.kind != oColumn {
			return nil, p.errorAt(a.at, "only a column can be null")
		}
		return negated(nullNode{a}, not), nil
	}
	not := p.word("not")
	switch {
	case p.word("between"):
		return p.between(a, not)
	case p.word("in"):
		return p.in(a, not)
	case not:
		return nil, p.errorf("%s where between or in should be", p.peek().what())
	}
	if a.kind == oColumn {
		return boolNode{a}, nil
	}
	return nil, p.errorf("%s where a comparison should be (<, <=, >, >=, ==, !=, between, in, is null)", t.what())
}

func negated(n node, not bool) node {
	if not {
		return notNode{n}
	}
	return n
}

func (p *parser) between(a operand, not bool) (node, error) {
	lo, err := p.operand()
	if err != nil {
		return nil, err
	}
	if !p.word("and") {
		return nil, p.errorf("%s where the and of between should be", p.peek().what())
	}
	hi, err := p.operand()
	if err != nil {
		return nil, err
	}
	x, err := p.compare(">=", a, lo)
	if err != nil {
		return nil, err
	}
	y, err := p.compare("<=", a, hi)
	return negated(andNode{x, y}, not), err
}

func (p *parser) in(a operand, not bool) (node, error) {
	if !p.op("(") {
		return nil, p.errorf("%s where the ( of in should be", p.peek().what())
	}
	var all node
	for {
		b, err := p.operand()
		if err != nil {
			return nil, err
		}
		x, err := p.compare("==", a, b)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = x
		} else {
			all = orNode{all, x}
		}
		if p.op(")") {
			return negated(all, not), nil
		}
		if !p.op(",") {
			return nil, p.errorf("%s where a , or ) should be", p.peek().what())
		}
	}
}

// compare makes a comparison whose left side is a column.
func (p *parser) compare(op string, a, b operand) (node, error) {
	if a.kind != oColumn {
		a, b, op = b, a, opposite[op]
	}
	if a.kind != oColumn {
		return nil, p.errorAt(min(a.at, b.at), "a comparison needs a column on one side")
	}
	if b.kind == oPercentile {
		b.of = a.text
	}
	return cmpNode{op, a, b}, nil
}

var keywords = map[string]bool{"and": true, "or": true, "not": true, "between": true, "in": true, "is": true,
	"null": true}

func (p *parser) operand() (operand, error) {
	t := p.peek()
	o := operand{at: t.at, text: t.text}
	switch {
	case t.kind == tName:
		o.kind = oColumn
	case t.kind == tText:
		o.kind = oText
	case t.kind == tNumber, t.kind == tOp && t.text == "-":
		sign := ""
		if t.kind == tOp {
			p.next()
			if t = p.peek(); t.kind != tNumber {
				return o, p.errorf("%s where a number should be", t.what())
			}
			sign = "-"
		}
		o.kind = oNumber
		o.num, _ = strconv.ParseFloat(sign+t.text, 64) // the lexer has tried
		if i, err := strconv.ParseInt(sign+t.text, 10, 64); err == nil {
			o.whole, o.isInt = i, true
		}
	case t.kind != tWord:
		return o, p.errorf("%s where a column or a value should be", t.what())
	case isPercentile(t.text):
		o.kind = oPercentile
		n, err := strconv.ParseFloat(t.text[1:], 64)
		if err != nil || n > 100 || math.IsNaN(n) {
			return o, p.errorf("%s: percentiles go from p0 to p100 (a column of that name is written `%s`)", t.text,
				t.text)
		}
		o.num = n
	case strings.EqualFold(t.text, "true"), strings.EqualFold(t.text, "false"):
		o.kind, o.isInt = oBool, true
		if strings.EqualFold(t.text, "true") {
			o.whole = 1
		}
	case strings.EqualFold(t.text, "null"):
		return o, p.errorf("null is not compared: write x is null, or x is not null")
	case keywords[strings.ToLower(t.text)]:
		return o, p.errorf("%s where a column or a value should be", t.text)
	default:
		o.kind = oColumn
	}
	p.next()
	return o, nil
}
