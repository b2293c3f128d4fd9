package pq

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
)

// Value makes the value that the parquet writer takes for an entry of the
// output's column i. Bytes are copied: they outlive their page.
func (l *Leaf) Value(e Entry, i int) parquet.Value {
	var v parquet.Value
	if e.Def == l.MaxDef {
		switch b := e.Val; l.Kind {
		case parquet.Boolean:
			v = parquet.BooleanValue(b[0] != 0)
		case parquet.Int32:
			v = parquet.Int32Value(int32(binary.LittleEndian.Uint32(b)))
		case parquet.Int64:
			v = parquet.Int64Value(int64(binary.LittleEndian.Uint64(b)))
		case parquet.Int96:
			v = parquet.Int96Value(deprecated.Int96{
				binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]),
			})
		case parquet.Float:
			v = parquet.FloatValue(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		case parquet.Double:
			v = parquet.DoubleValue(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		case parquet.ByteArray:
			v = parquet.ByteArrayValue(bytes.Clone(b))
		default:
			v = parquet.FixedLenByteArrayValue(bytes.Clone(b))
		}
	}
	return v.Level(int(e.Rep), int(e.Def), i)
}
