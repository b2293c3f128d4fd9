"""Writes own_schema.arrow: the Arrow schema of a score file's own columns, and of bucket."""

import pathlib

import pyarrow as pa

FIELDS = [
    pa.field("row", pa.int64(), False),
    pa.field("n_tokens", pa.int64(), False),
    pa.field("n_bytes", pa.int64()),
    pa.field("sum_nll", pa.float64(), False),
    pa.field("perplexity", pa.float64()),
    pa.field("bits_per_byte", pa.float64()),
    pa.field("n_top1", pa.int64(), False),
    pa.field("truncated", pa.bool_(), False),
    pa.field("error", pa.string()),
    pa.field("n_context_tokens", pa.int64(), False),
    pa.field("greedy", pa.bool_()),
    pa.field("token_ids", pa.list_(pa.field("element", pa.int32()))),
    pa.field("token_nll", pa.list_(pa.field("element", pa.float32()))),
    pa.field("bucket", pa.string()),
]
pathlib.Path(__file__).parent.parent.joinpath("own_schema.arrow").write_bytes(pa.schema(FIELDS).serialize().to_pybytes())
