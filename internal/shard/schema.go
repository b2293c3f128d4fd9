package shard

import (
	_ "embed"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/score"
	"surprisal/internal/shard/pq"
	"surprisal/internal/shard/pq/arrow"
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
	var kept []string
	for _, e := range c.elements {
		kept = append(kept, e.Name())
	}
	return arrow.Join(c.arrow, c.names, kept, ownArrowSchema, o.Columns())
}

// ownNodes are the score file's own columns, in the order of Options.Columns.
func ownNodes(o score.Options) []*pq.Node {
	text := parquet.String().Type()
	n := []*pq.Node{
		pq.LeafNode("row", parquet.Int64Type, format.Required),
		pq.LeafNode("n_tokens", parquet.Int64Type, format.Required),
		pq.LeafNode("n_bytes", parquet.Int64Type, format.Optional),
		pq.LeafNode("sum_nll", parquet.DoubleType, format.Required),
		pq.LeafNode("perplexity", parquet.DoubleType, format.Optional),
		pq.LeafNode("bits_per_byte", parquet.DoubleType, format.Optional),
		pq.LeafNode("n_top1", parquet.Int64Type, format.Required),
		pq.LeafNode("truncated", parquet.BooleanType, format.Required),
		pq.LeafNode("error", text, format.Optional),
	}
	if o.Conditional() {
		n = append(n, pq.LeafNode("n_context_tokens", parquet.Int64Type, format.Required),
			pq.LeafNode("greedy", parquet.BooleanType, format.Optional))
	}
	if o.PerToken {
		n = append(n, pq.ListNode("token_ids", parquet.Int32Type), pq.ListNode("token_nll", parquet.FloatType))
	}
	return n
}

// outputSchema is the kept columns with the input's types, then our own.
func outputSchema(cols *Columns, opt score.Options) (*pq.Node, error) {
	return pq.NewSchema(cols.elements, ownNodes(opt)...)
}
