package pq

import (
	"encoding/binary"
	"math"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"
)

// scalarKind tells what a column's values are, 0 for one that is no scalar or
// whose bytes mean something else than they seem to (dates, decimals, uint64).
func (e *Element) scalarKind() (k Kind, unsigned bool) {
	if e.Leaf == nil || e.Repeated() || e.Leaf.MaxRep > 0 {
		return 0, false
	}
	return e.ValueKind()
}

// ValueKind is scalarKind, also of a list's element.
func (e *Element) ValueKind() (k Kind, unsigned bool) {
	if e.Leaf == nil {
		return 0, false
	}
	plain, text := e.se.LogicalType.Value == nil && !e.se.ConvertedType.Valid, false
	switch v := e.se.LogicalType.Value.(type) {
	case *format.StringType, *format.EnumType, *format.JsonType:
		text = true
	case *format.IntType:
		plain, unsigned = true, !v.IsSigned
	}
	if e.se.LogicalType.Value == nil && e.se.ConvertedType.Valid {
		switch e.se.ConvertedType.V {
		case deprecated.UTF8, deprecated.Enum, deprecated.Json:
			text = true
		case deprecated.Uint8, deprecated.Uint16, deprecated.Uint32, deprecated.Uint64:
			plain, unsigned = true, true
		case deprecated.Int8, deprecated.Int16, deprecated.Int32, deprecated.Int64:
			plain = true
		}
	}
	switch kind := e.Leaf.Kind; {
	case kind == parquet.ByteArray && (plain || text):
		return Text, false
	case !plain:
		return 0, false
	case kind == parquet.Int32, kind == parquet.Int64 && !unsigned:
		return Int, unsigned
	case kind == parquet.Float, kind == parquet.Double:
		return Float, false
	case kind == parquet.Boolean:
		return Bool, false
	}
	return 0, false
}

func intValue(b []byte, unsigned bool) int64 {
	switch len(b) {
	case 8:
		return int64(binary.LittleEndian.Uint64(b))
	case 4:
		if unsigned {
			return int64(binary.LittleEndian.Uint32(b))
		}
		return int64(int32(binary.LittleEndian.Uint32(b)))
	case 1:
		return int64(b[0])
	}
	return 0 // null
}

func floatValue(b []byte) float64 {
	switch len(b) {
	case 8:
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	case 4:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return 0 // null
}

// Int is the value of an integer or a boolean, 0 if it is null.
func (e Entry) Int(unsigned bool) int64 { return intValue(e.Val, unsigned) }

// Float is the value of a float or a double, 0 if it is null.
func (e Entry) Float() float64 { return floatValue(e.Val) }
