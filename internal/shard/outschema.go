package shard

import (
	_ "embed"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/score"
)

// ownArrowSchema has our own columns, those of score.OutputColumns and
// score.ConditionalColumns, and bucket;
// made by testdata/make_arrow_schema.py.
//
//go:embed own_schema.arrow
var ownArrowSchema []byte

// arrowSchema is the output's, base64 as Arrow stores it; empty when the input
// has none, or one that does not fit its columns.
func arrowSchema(c *Columns, o score.Options) string {
	return joinArrowSchema(c.arrow, c.names, c.elements, ownArrowSchema, o.Columns())
}

// ownNodes are the score file's own columns, in the order of Options.Columns.
func ownNodes(o score.Options) []*node {
	text := parquet.String().Type()
	n := []*node{
		leafNode("row", parquet.Int64Type, format.Required),
		leafNode("n_tokens", parquet.Int64Type, format.Required),
		leafNode("n_bytes", parquet.Int64Type, format.Optional),
		leafNode("sum_nll", parquet.DoubleType, format.Required),
		leafNode("perplexity", parquet.DoubleType, format.Optional),
		leafNode("bits_per_byte", parquet.DoubleType, format.Optional),
		leafNode("n_top1", parquet.Int64Type, format.Required),
		leafNode("truncated", parquet.BooleanType, format.Required),
		leafNode("error", text, format.Optional),
	}
	if o.Conditional() {
		n = append(n, leafNode("n_context_tokens", parquet.Int64Type, format.Required), leafNode("greedy", parquet.BooleanType, format.Optional))
	}
	if o.PerToken {
		n = append(n, listNode("token_ids", parquet.Int32Type), listNode("token_nll", parquet.FloatType))
	}
	return n
}

// outputSchema is the kept columns with the input's types, then our own.
func outputSchema(cols *Columns, opt score.Options) (*node, error) {
	return newSchema(cols.elements, ownNodes(opt)...)
}
