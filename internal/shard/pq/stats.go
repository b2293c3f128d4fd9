package pq

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/shard/pq/compact"
)

// maxBound is the most bytes of a minimum or maximum; longer ones are cut.
const maxBound = 64

// bounds is what is certain about the values of a page or a chunk.
type bounds struct {
	// min and max are PLAIN, without a length. They are nil where nothing is known, and
	// where all values are null.
	min, max           []byte
	minExact, maxExact bool
	nulls              int64 // -1: unknown
	empty              bool  // there is no value but nulls
}

// unknown is of values that nothing is known of.
var unknown = bounds{nulls: -1}

// valueOrder is how a column's values compare.
type valueOrder uint8

const (
	noOrder valueOrder = iota // no order is defined, or known here
	signedOrder
	unsignedOrder
	floatOrder
	bytesOrder // unsigned bytes
	textOrder  // bytesOrder of UTF-8
)

// order tells how values compare by the format's rules for the column's type.
func (e *Element) order() valueOrder {
	plain, signed := bytesOrder, signedOrder
	if v := e.se.LogicalType.Value; v != nil {
		switch v := v.(type) {
		case *format.StringType, *format.EnumType, *format.JsonType:
			plain = textOrder
		case *format.IntType:
			if !v.IsSigned {
				signed = unsignedOrder
			}
		case *format.BsonType, *format.UUIDType, *format.DateType, *format.TimeType, *format.TimestampType:
		case *format.DecimalType:
			plain = noOrder
		default:
			return noOrder
		}
	} else if e.se.ConvertedType.Valid {
		switch e.se.ConvertedType.V {
		case deprecated.UTF8, deprecated.Enum, deprecated.Json:
			plain = textOrder
		case deprecated.Uint8, deprecated.Uint16, deprecated.Uint32, deprecated.Uint64:
			signed = unsignedOrder
		case deprecated.Decimal:
			plain = noOrder
		case deprecated.Interval:
			return noOrder
		}
	}
	switch e.Leaf.Kind {
	case parquet.Boolean:
		return unsignedOrder
	case parquet.Int32, parquet.Int64:
		return signed
	case parquet.Float, parquet.Double:
		return floatOrder
	case parquet.ByteArray, parquet.FixedLenByteArray:
		return plain
	}
	return noOrder
}

// compare orders two values, neither of them NaN.
func (o valueOrder) compare(a, b []byte) int {
	switch {
	case o == signedOrder && len(a) == 4:
		return cmp.Compare(int32(binary.LittleEndian.Uint32(a)), int32(binary.LittleEndian.Uint32(b)))
	case o == signedOrder:
		return cmp.Compare(int64(binary.LittleEndian.Uint64(a)), int64(binary.LittleEndian.Uint64(b)))
	case o == floatOrder:
		return cmp.Compare(floatValue(a), floatValue(b))
	case o == unsignedOrder && len(a) == 4:
		return cmp.Compare(binary.LittleEndian.Uint32(a), binary.LittleEndian.Uint32(b))
	case o == unsignedOrder && len(a) == 8:
		return cmp.Compare(binary.LittleEndian.Uint64(a), binary.LittleEndian.Uint64(b))
	}
	return bytes.Compare(a, b)
}

// boundsMaker finds the bounds of values that it is shown.
type boundsMaker struct {
	order    valueOrder
	min, max []byte // views of the values
	any, nan bool
}

func (m *boundsMaker) add(v []byte) {
	if m.order == noOrder || m.nan {
		return
	}
	if m.order == floatOrder && math.IsNaN(floatValue(v)) {
		m.nan = true // there is no order with NaN
		return
	}
	if !m.any {
		m.any, m.min, m.max = true, v, v
		return
	}
	if m.order.compare(v, m.min) < 0 {
		m.min = v
	} else if m.order.compare(v, m.max) > 0 {
		m.max = v
	}
}

// bounds gives copies of what was found, cut to maxBound.
func (m *boundsMaker) bounds(values int, nulls int64) bounds {
	b := bounds{nulls: nulls, empty: values == 0}
	if !m.any || m.nan {
		return b
	}
	b.min, b.max, b.minExact, b.maxExact = slices.Clone(m.min), slices.Clone(m.max), true, true
	if m.order == floatOrder { // readers must not miss the other zero
		b.min, b.max = signZero(b.min, true), signZero(b.max, false)
	}
	b.cut(m.order)
	return b
}

// signZero gives a zero the sign with which it is the lower, or the upper, bound.
func signZero(b []byte, negative bool) []byte {
	if floatValue(b) != 0 {
		return b
	}
	clear(b)
	if negative {
		b[len(b)-1] = 0x80
	}
	return b
}

// cut shortens bounds of bytes; a bound that can't be shortened goes.
func (b *bounds) cut(o valueOrder) {
	if o == textOrder && (b.min != nil && !utf8.Valid(b.min) || b.max != nil && !utf8.Valid(b.max)) {
		b.min, b.max = nil, nil
		return
	}
	if len(b.min) > maxBound {
		b.minExact = false
		if b.min = prefix(b.min, o); len(b.min) == 0 {
			b.min = nil
		}
	}
	if len(b.max) > maxBound {
		b.maxExact, b.max = false, above(prefix(b.max, o), o)
	}
	if o != bytesOrder && o != textOrder && (len(b.min) > maxBound || len(b.max) > maxBound) {
		b.min, b.max = nil, nil
	}
}

// prefix is the longest prefix of at most maxBound bytes, of text in whole characters.
func prefix(b []byte, o valueOrder) []byte {
	if len(b) <= maxBound {
		return b
	}
	n := maxBound
	if o == textOrder {
		for n > 0 && !utf8.RuneStart(b[n]) {
			n--
		}
	}
	return slices.Clone(b[:n])
}

// above gives the shortest value that is greater than all that begin with b; nil if
// there is none.
func above(b []byte, o valueOrder) []byte {
	if o != textOrder {
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] < 0xff {
				b[i]++
				return b[:i+1]
			}
		}
		return nil
	}
	for len(b) > 0 {
		r, size := utf8.DecodeLastRune(b)
		b = b[:len(b)-size]
		if r++; r >= 0xd800 && r < 0xe000 {
			r = 0xe000
		}
		if r <= utf8.MaxRune {
			return utf8.AppendRune(b, r)
		}
	}
	return nil
}

// merge gives the bounds of the values of both.
func (b bounds) merge(c bounds, o valueOrder) bounds {
	m := bounds{nulls: -1}
	if b.nulls >= 0 && c.nulls >= 0 {
		m.nulls = b.nulls + c.nulls
	}
	switch {
	case b.empty && c.empty:
		m.empty = true
	case b.empty:
		m.min, m.max, m.minExact, m.maxExact = c.min, c.max, c.minExact, c.maxExact
	case c.empty:
		m.min, m.max, m.minExact, m.maxExact = b.min, b.max, b.minExact, b.maxExact
	case o != noOrder:
		if b.min != nil && c.min != nil {
			if m.min, m.minExact = b.min, b.minExact; o.compare(c.min, b.min) < 0 {
				m.min, m.minExact = c.min, c.minExact
			}
		}
		if b.max != nil && c.max != nil {
			if m.max, m.maxExact = b.max, b.maxExact; o.compare(c.max, b.max) > 0 {
				m.max, m.maxExact = c.max, c.maxExact
			}
		}
	}
	return m
}

// fits reports whether claimed bounds can be values of the column, in order.
func (b *bounds) fits(l *Leaf, o valueOrder) bool {
	if b.min == nil || b.max == nil {
		return false
	}
	if w := kindWidth(l); l.Kind != parquet.ByteArray && (len(b.min) != w || len(b.max) != w) {
		return false
	}
	if o == floatOrder && (math.IsNaN(floatValue(b.min)) || math.IsNaN(floatValue(b.max))) {
		return false
	}
	// parquet-go cuts a maximum of 0xff bytes alone without making it greater.
	if o == bytesOrder && l.Kind == parquet.ByteArray && len(bytes.TrimLeft(b.max, "\xff")) == 0 && len(b.max) > 0 {
		return false
	}
	return o == noOrder || o.compare(b.min, b.max) <= 0
}

// wire is what the footer says of a chunk; nothing when nothing is known.
func (b *bounds) wire() (w thrift.Null[wireStatistics]) {
	var s wireStatistics
	if b.nulls >= 0 {
		s.NullCount = thrift.New(b.nulls)
	}
	if b.min != nil {
		s.MinValue, s.MinExact = thrift.New(b.min), thrift.New(b.minExact)
	}
	if b.max != nil {
		s.MaxValue, s.MaxExact = thrift.New(b.max), thrift.New(b.maxExact)
	}
	if b.nulls >= 0 || b.min != nil || b.max != nil {
		w = thrift.New(s)
	}
	return w
}

// parseStatistics reads a chunk's Statistics. The deprecated minimum and maximum, whose
// order is not defined, are passed over.
func parseStatistics(r *compact.Reader) bounds {
	b := unknown
	r.Struct(func(id int16, typ byte) bool {
		switch {
		case id == 3 && typ == compact.I64:
			b.nulls = max(r.Int64(), -1)
		case id == 5 && typ == compact.Binary:
			b.max = append([]byte{}, r.Bytes()...)
		case id == 6 && typ == compact.Binary:
			b.min = append([]byte{}, r.Bytes()...)
		case id == 7 && (typ == compact.True || typ == compact.False):
			b.maxExact = typ == compact.True
		case id == 8 && (typ == compact.True || typ == compact.False):
			b.minExact = typ == compact.True
		default:
			return false
		}
		return true
	})
	return b
}
