"""Compares copies of some rows with their input, by pyarrow and DuckDB.

    python3 copyback.py INPUT (COPY ROWS)... [--scores SCORES]

ROWS is a file with the rows' numbers, one a line. SCORES is the input's whole
score file; its columns and bucket, "odd" in odd rows and null in others, are
then behind the input's.
"""

import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

source, rest, scores = sys.argv[1], sys.argv[2:], None
if "--scores" in rest:
    rest, scores = rest[:-2], pq.read_table(rest[-1])
a, pa_, db = pq.read_table(source), pq.ParquetFile(source), duckdb.connect()
copy = ""


def readable(path):
    """Tells whether DuckDB reads a file at all; some encodings it does not know."""
    try:
        db.execute("CREATE OR REPLACE TABLE c AS SELECT * FROM read_parquet(?)", [path])
        return True
    except duckdb.Error:
        return False


def check(ok, *what):
    if not ok:
        sys.exit("copyback: " + " ".join(map(str, (copy, *what))))


def check_statistics(path, f):
    """Holds the statistics of each column without nesting to its values."""
    counted = 0
    for g in range(f.metadata.num_row_groups):
        table = f.read_row_group(g)
        for i in range(f.metadata.num_columns):
            c = f.metadata.row_group(g).column(i)
            name, stats = c.path_in_schema, c.statistics
            if stats is None or "." in name or name not in table.schema.names:
                continue
            column = plain(table.column(name))
            if stats.has_null_count:
                check(stats.null_count == column.null_count, name, "has nulls", column.null_count, "not", stats.null_count)
            if not stats.has_min_max or pa.types.is_nested(column.type):
                continue
            values = [v for v in column.to_pylist() if v is not None and v == v]
            check(values or column.null_count == 0 or stats.null_count != column.null_count, name, "has bounds of nothing")
            low, high = stats.min, stats.max
            if pa.types.is_decimal(column.type) or not values or type(low) is not type(values[0]):
                continue
            check(low <= min(values), name, "minimum", low, "of", min(values))
            check(high >= max(values), name, "maximum", high, "of", max(values))
            if getattr(stats, "is_min_value_exact", None):
                check(low == min(values), name, "exact minimum", low, "of", min(values))
            if getattr(stats, "is_max_value_exact", None):
                check(high == max(values), name, "exact maximum", high, "of", max(values))
            counted += 1
    return counted


def check_filters(path, table, name):
    """DuckDB prunes row groups by statistics: each value is still found."""
    values = table.column(name).to_pylist()
    for v in [values[0], values[len(values) // 2], values[-1]]:
        if v is None:
            n = db.execute(f'SELECT count(*) FROM read_parquet(?) WHERE "{name}" IS NULL', [path]).fetchone()[0]
        else:
            n = db.execute(f'SELECT count(*) FROM read_parquet(?) WHERE "{name}" = ?', [path, v]).fetchone()[0]
        check(n == values.count(v), "DuckDB finds", n, "rows with", name, "=", v)
    low, high = db.execute(f'SELECT min("{name}"), max("{name}") FROM read_parquet(?)', [path]).fetchone()
    present = [v for v in values if v is not None]
    if present:
        check((low, high) == (min(present), max(present)), "DuckDB's least and greatest", name, low, high)


def plain(column):
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.combine_chunks()


for copy, rows in zip(rest[::2], rest[1::2]):
    rows = [int(x) for x in open(rows)]
    b, pb = pq.read_table(copy), pq.ParquetFile(copy)
    check(b.schema.names[: len(a.schema.names)] == a.schema.names, "columns are", b.schema.names)
    want = a.take(pa.array(rows, pa.int64()))
    for name in a.schema.names:
        check(b.schema.field(name).type == a.schema.field(name).type, name, "is", b.schema.field(name))
        check(plain(b.column(name)).equals(plain(want.column(name))), name, "differs")
    borders, first = [], 0
    for g in range(pa_.metadata.num_row_groups):
        n = pa_.metadata.row_group(g).num_rows
        kept = sum(first <= r < first + n for r in rows)
        first += n
        if kept:
            borders.append(kept)
    got = [pb.metadata.row_group(g).num_rows for g in range(pb.metadata.num_row_groups)]
    check(got == borders, "row groups are", got, "not", borders)
    for i in range(len(pa_.schema)):
        x, y = pa_.schema.column(i), pb.schema.column(i)
        check(str(x) == str(y), "schema:", y, "not", x)
    counted = check_statistics(copy, pb)
    check(counted or not rows or "int96" in source or len(a.schema.names) < 2, "has no statistics at all")
    if not readable(source):
        continue
    check(readable(copy), "DuckDB reads the input but not the copy")
    n = db.execute("SELECT count(*) FROM c").fetchone()[0]
    check(n == len(rows), "DuckDB reads", n, "rows of", len(rows))
    if "id" in a.schema.names:
        x = db.execute("SELECT id FROM c").fetchall()
        check([str(v[0]) for v in x] == [str(v) for v in want.column("id").to_pylist()], "DuckDB reads other ids")
    for name in ("id", "text"):
        if rows and name in a.schema.names and not pa.types.is_nested(a.schema.field(name).type):
            check_filters(copy, b, name)
    if scores is None:
        continue
    s = scores.take(pa.array(rows, pa.int64()))
    names = b.schema.names[len(a.schema.names) :]
    check(names == s.schema.names + ["bucket"], "columns added are", names)
    for name in names[:-1]:
        check(plain(b.column(name)).equals(plain(s.column(name))), name, "differs from the score")
        check(b.schema.field(name).type == s.schema.field(name).type, name, "is", b.schema.field(name).type)
    bucket = b.column("bucket").to_pylist()
    check(bucket == ["odd" if r % 2 else None for r in rows], "buckets are", bucket[:10])
