package pq

import (
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// The footer as copies write it. The library's own structs always write a null count,
// and have no fields for bounds that are not exact.

type wireFooter struct {
	Version          int32                  `thrift:"1,required"`
	Schema           []format.SchemaElement `thrift:"2,required"`
	NumRows          int64                  `thrift:"3,required"`
	RowGroups        []wireGroup            `thrift:"4,required"`
	KeyValueMetadata []format.KeyValue      `thrift:"5,optional"`
	CreatedBy        string                 `thrift:"6,optional"`
	ColumnOrders     []format.ColumnOrder   `thrift:"7,optional"`
}

type wireGroup struct {
	Columns             []wireChunk `thrift:"1,required"`
	TotalByteSize       int64       `thrift:"2,required"`
	NumRows             int64       `thrift:"3,required"`
	FileOffset          int64       `thrift:"5,optional"`
	TotalCompressedSize int64       `thrift:"6,optional"`
	Ordinal             int16       `thrift:"7,optional,writezero"`
}

// wireChunk: the metadata lies in the footer alone, so FileOffset is 0.
type wireChunk struct {
	FileOffset        int64    `thrift:"2,required"`
	MetaData          wireMeta `thrift:"3,optional"`
	OffsetIndexOffset int64    `thrift:"4,optional"`
	OffsetIndexLength int32    `thrift:"5,optional"`
	ColumnIndexOffset int64    `thrift:"6,optional"`
	ColumnIndexLength int32    `thrift:"7,optional"`
}

type wireMeta struct {
	Type                  format.Type                 `thrift:"1,required"`
	Encoding              []format.Encoding           `thrift:"2,required"`
	PathInSchema          []string                    `thrift:"3,required"`
	Codec                 format.CompressionCodec     `thrift:"4,required"`
	NumValues             int64                       `thrift:"5,required"`
	TotalUncompressedSize int64                       `thrift:"6,required"`
	TotalCompressedSize   int64                       `thrift:"7,required"`
	DataPageOffset        int64                       `thrift:"9,required"`
	DictionaryPageOffset  int64                       `thrift:"11,optional"`
	Statistics            thrift.Null[wireStatistics] `thrift:"12,optional"`
}

type wireStatistics struct {
	NullCount thrift.Null[int64]  `thrift:"3,optional"`
	MaxValue  thrift.Null[[]byte] `thrift:"5,optional"`
	MinValue  thrift.Null[[]byte] `thrift:"6,optional"`
	MaxExact  thrift.Null[bool]   `thrift:"7,optional"`
	MinExact  thrift.Null[bool]   `thrift:"8,optional"`
}
