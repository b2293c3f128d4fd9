"""Reads score files back with pyarrow and DuckDB, as a person would.

    python3 readback.py INPUT OUTPUT FIRST LAST PER_TOKEN

The scores are those of fakeScore in write_test.go.
"""

import math
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

source, target, first, last, per_token = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "true"

OWN = {
    "row": pa.int64(), "n_tokens": pa.int64(), "n_bytes": pa.int64(), "sum_nll": pa.float64(), "perplexity": pa.float64(),
    "bits_per_byte": pa.float64(), "n_top1": pa.int64(), "truncated": pa.bool_(), "error": pa.string(),
}
if per_token:
    OWN |= {"token_ids": pa.list_(pa.field("element", pa.int32())), "token_nll": pa.list_(pa.field("element", pa.float32()))}
NULLABLE = {"n_bytes", "perplexity", "bits_per_byte", "error", "token_ids", "token_nll"}


def check(ok, *what):
    if not ok:
        sys.exit("readback: " + " ".join(map(str, what)))


def parquet_column(schema, i):
    c = schema.column(i)
    length = c.length if c.physical_type == "FIXED_LEN_BYTE_ARRAY" else None  # of others it means nothing
    return c.path, c.physical_type, str(c.logical_type), c.converted_type, length, c.max_definition_level, c.max_repetition_level


def values(column):
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)  # the order of a dictionary means nothing
    return column.combine_chunks()


rows = last - first + 1
before = pq.read_table(source).slice(first, rows)
after = pq.read_table(target)
names = after.schema.names
kept = [n for n in names if n not in OWN]
check(names == kept + list(OWN), "columns", names)
check(after.num_rows == rows, after.num_rows, "rows")

# Kept columns: the same in parquet's terms, in Arrow's, and in every value.
a, b = pq.ParquetFile(source).schema, pq.ParquetFile(target).schema
pa_in = {c[0]: c for c in (parquet_column(a, i) for i in range(len(a)))}
for c in (parquet_column(b, i) for i in range(len(b))):
    if c[0].split(".")[0] in kept:
        check(pa_in[c[0]] == c, "parquet type", pa_in[c[0]], c)
for n in kept:
    check(before.schema.field(n) == after.schema.field(n), "field", before.schema.field(n), after.schema.field(n))
    check(values(before[n]).equals(values(after[n])), "values of", n)

# Our own columns.
for n, t in OWN.items():
    f = after.schema.field(n)
    check(f.type == t, n, f.type, "not", t)
    check(f.nullable == (n in NULLABLE), n, "nullable", f.nullable)
texts = before["text"].to_pylist() if "text" in before.schema.names else [""] * rows
for k, r in enumerate(after.select(list(OWN)).to_pylist()):
    row, text = first + k, texts[k]
    if isinstance(text, str):
        text = text.encode()
    check(r["row"] == row, r)
    if text is None:
        want = dict.fromkeys(OWN) | {"row": row, "n_tokens": 0, "sum_nll": 0, "n_top1": 0, "truncated": False, "error": "the text is null"}
    else:
        n = row % 6
        nll = 1.25 * n * (row + 1)
        want = {
            "row": row, "n_tokens": n, "n_bytes": len(text), "sum_nll": nll, "perplexity": None, "bits_per_byte": None,
            "n_top1": n // 2, "truncated": row % 10 == 0, "error": None,
        }
        if n:
            ppl = r["perplexity"]
            check(math.isclose(ppl, math.exp(nll / n), rel_tol=1e-14) if nll / n < 700 else ppl == math.inf or ppl > 1e300, r)
            want["perplexity"] = ppl
        if text:
            bpb = r["bits_per_byte"]
            check(math.isclose(bpb, nll / math.log(2) / len(text), rel_tol=1e-14), r)
            want["bits_per_byte"] = bpb
        if per_token:
            want |= {"token_ids": [0] + [k * 100 for k in range(n)], "token_nll": [k / 4 for k in range(n)]}
    check(r == want, r, "want", want)

# Key-value metadata.
meta = {k.decode(): v.decode() for k, v in pq.ParquetFile(target).metadata.metadata.items()}
for k in ["run", "job", "input.path", "input.size", "input.version", "model.digest", "tokenizer.digest", "config.digest",
          "precision", "engine", "device", "program", "digest"]:
    check(meta.get("surprisal." + k), "metadata", k)
check(meta["surprisal.rows.first"] == str(first) and meta["surprisal.rows.last"] == str(last), "rows")
check(meta["surprisal.total.tokens"] == str(sum(after["n_tokens"].to_pylist())), "total.tokens")
check(all(b.column(i).path.split(".")[0] in names for i in range(len(b))), "leaves")
codecs = {pq.ParquetFile(target).metadata.row_group(0).column(i).compression for i in range(len(b))}
check(codecs == {"ZSTD"}, codecs)

# DuckDB: types, and a join to the input by id (by position without one).
db = duckdb.connect()
types = {n: t for n, t, *_ in db.execute("describe select * from read_parquet(?)", [target]).fetchall()}
for n, t in {"row": "BIGINT", "n_bytes": "BIGINT", "sum_nll": "DOUBLE", "perplexity": "DOUBLE", "truncated": "BOOLEAN", "error": "VARCHAR"}.items():
    check(types[n] == t, "duckdb", n, types[n])
if per_token:
    check(types["token_ids"] == "INTEGER[]" and types["token_nll"] == "FLOAT[]", types)
if "id" in kept:
    n, same = db.execute(
        "select count(*), count(*) filter (i.file_row_number = o.row) "
        "from read_parquet(?, file_row_number=true) i join read_parquet(?) o using (id)",
        [source, target],
    ).fetchone()
    check(n == rows and same == rows, "join:", n, same, rows)
low, high = db.execute("select min(row), max(row) from read_parquet(?) where row >= ?", [target, first]).fetchone()
check(low == first and high == last, low, high)
print("ok")
