"""Writes the parquet files that the Go tests read, with pyarrow.

    python3 make_fixtures.py        # into the folder that it lies in

Text and ids are functions of the row's index, which fixtures_test.go repeats.
"""

import datetime
import decimal
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
ROWS = 250


def text(i):
    return f"row {i} ü\n" * (i % 5)


def texts(nullable):
    return [None if nullable and i % 11 == 5 else text(i) for i in range(ROWS)]


def ids():
    return [f"doc-{i:05d}" for i in range(ROWS)]


def write(name, table, **kw):
    kw.setdefault("compression", "zstd")
    kw.setdefault("row_group_size", 100)
    kw.setdefault("data_page_size", 512)
    kw.setdefault("write_batch_size", 16)
    kw.setdefault("use_dictionary", False)
    pq.write_table(table, HERE / f"{name}.parquet", **kw)


def encodings():
    for codec in ["none", "snappy", "gzip", "zstd", "lz4", "brotli"]:
        for version in ["1.0", "2.0"]:
            for enc in ["plain", "dict", "delta_length_byte_array", "delta_byte_array"]:
                if codec not in ("none", "zstd") and enc.startswith("delta"):
                    continue
                kw = {"column_encoding": enc.upper()}
                if enc == "dict":
                    kw = {"use_dictionary": True}
                table = pa.table({"id": ids(), "text": texts(True)})
                write(f"enc-{enc}-{codec}-v{version[0]}", table, compression=codec, data_page_version=version, **kw)


def shapes():
    write("large-string", pa.table({"id": ids(), "text": pa.array(texts(True), pa.large_string())}))
    write("binary", pa.table({"id": ids(), "text": pa.array([t.encode() for t in texts(False)], pa.binary())}))
    write("indexed", pa.table({"id": ids(), "text": texts(True)}), write_page_index=True, use_dictionary=True)
    write("checksummed", pa.table({"id": ids(), "text": texts(True)}), write_page_checksum=True)
    write("tiny-groups", pa.table({"id": ids(), "text": texts(True)}), row_group_size=3, data_page_size=1)
    schema = pa.schema([pa.field("id", pa.string(), False), pa.field("text", pa.string(), False)])
    write("required", pa.table({"id": ids(), "text": texts(False)}, schema=schema))
    write("counted", pa.table({"text": texts(False), "token_count": pa.array([7 * (i % 13) for i in range(ROWS)], pa.int32())}))
    write("empty", pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}))
    write("nulls", pa.table({"id": ids(), "text": pa.array([None] * ROWS, pa.string())}))


def token_ids():
    def row(i):
        if i % 9 == 4:
            return None
        return [(i * 31 + k) % 49152 for k in range(i % 6)]

    def bad(i):
        if i == 3:
            return [1, None, 3]
        if i == 7:
            return [1, 1 << 40]
        return row(i)

    n = range(ROWS)
    table = pa.table(
        {
            "id": ids(),
            "ids32": pa.array([row(i) for i in n], pa.list_(pa.int32())),
            "ids64": pa.array([bad(i) for i in n], pa.large_list(pa.int64())),
            "idsfull": pa.array([row(i) or [] for i in n], pa.list_(pa.field("element", pa.int64(), False))),
        }
    )
    for version in ["1.0", "2.0"]:
        write(f"ids-v{version[0]}", table, data_page_version=version, use_dictionary=["ids32"])
        write(f"ids-indexed-v{version[0]}", table, data_page_version=version, write_page_index=True)


def kinds():
    """Every sort of column that can be kept."""
    n = range(ROWS)
    day = datetime.date(2020, 2, 29)
    now = datetime.datetime(2021, 3, 4, 5, 6, 7, 891011)

    def maybe(f):
        return [None if i % 7 == 3 else f(i) for i in n]

    cols = {
        "id": pa.array(ids()),
        "text": pa.array(texts(True)),
        "bool": pa.array(maybe(lambda i: i % 3 == 0)),
        "i8": pa.array(maybe(lambda i: i - 125), pa.int8()),
        "u16": pa.array(maybe(lambda i: 65535 - i), pa.uint16()),
        "i32": pa.array(maybe(lambda i: -i * 9999), pa.int32()),
        "u32": pa.array(maybe(lambda i: 4294967295 - i), pa.uint32()),
        "i64": pa.array(maybe(lambda i: -(i << 40)), pa.int64()),
        "u64": pa.array(maybe(lambda i: (1 << 64) - 1 - i), pa.uint64()),
        "f16": pa.array(maybe(lambda i: i / 4), pa.float16()),
        "f32": pa.array(maybe(lambda i: i / 3), pa.float32()),
        "f64": pa.array(maybe(lambda i: i / 7), pa.float64()),
        "bin": pa.array(maybe(lambda i: bytes([i % 256, 0, 255])), pa.binary()),
        "fixed": pa.array(maybe(lambda i: bytes([i % 256] * 5)), pa.binary(5)),
        "large": pa.array(maybe(text), pa.large_string()),
        "dict": pa.array(maybe(lambda i: f"kind {i % 4}")).dictionary_encode(),
        "date": pa.array(maybe(lambda i: day + datetime.timedelta(i))),
        "time": pa.array(maybe(lambda i: 1000 * i), pa.time64("us")),
        "ts": pa.array(maybe(lambda i: now + datetime.timedelta(i)), pa.timestamp("us")),
        "tsz": pa.array(maybe(lambda i: now + datetime.timedelta(i)), pa.timestamp("ms", "Europe/Zurich")),
        "tsns": pa.array(maybe(lambda i: 10**18 + i), pa.timestamp("ns")),
        "dur": pa.array(maybe(lambda i: i), pa.duration("us")),
        "dec9": pa.array(maybe(lambda i: decimal.Decimal(i) / 100), pa.decimal128(9, 2)),
        "dec38": pa.array(maybe(lambda i: decimal.Decimal(-i) / 1000), pa.decimal128(38, 3)),
        "none": pa.nulls(ROWS),
        "list": pa.array(maybe(lambda i: [None if k == 2 else k for k in range(i % 4)]), pa.list_(pa.int64())),
        "deep": pa.array(
            maybe(lambda i: [{"a": [f"{k}"] * (k % 3), "b": None if k else i} for k in range(i % 3)]),
            pa.list_(pa.struct([("a", pa.list_(pa.string())), ("b", pa.int32())])),
        ),
        "meta": pa.array(
            maybe(lambda i: {"text": f"t{i}", "n": None if i % 2 else i, "in": {"x": i / 2}}),
            pa.struct([("text", pa.string()), ("n", pa.int64()), ("in", pa.struct([("x", pa.float64())]))]),
        ),
        "map": pa.array(maybe(lambda i: [(f"k{k}", k) for k in range(i % 3)]), pa.map_(pa.string(), pa.int32())),
    }
    table = pa.table(cols).replace_schema_metadata({"made-by": "make_fixtures.py"})
    write("kinds", table, use_dictionary=["dict", "i64"], write_page_index=True)
    write("kinds-bare", table.drop_columns(["dur"]), store_schema=False, data_page_version="2.0", use_dictionary=True)
    split = {"f32": "BYTE_STREAM_SPLIT", "f64": "BYTE_STREAM_SPLIT", "i32": "DELTA_BINARY_PACKED", "i64": "DELTA_BINARY_PACKED",
             "fixed": "BYTE_STREAM_SPLIT", "bin": "DELTA_LENGTH_BYTE_ARRAY", "bool": "RLE", "u64": "DELTA_BINARY_PACKED"}
    write("kinds-split", table.select(["id", "text", *split]), column_encoding={**split, "id": "PLAIN", "text": "PLAIN"})
    write("int96", pa.table({"id": ids(), "text": texts(False), "when": cols["tsns"]}), use_deprecated_int96_timestamps=True)


if __name__ == "__main__":
    encodings()
    shapes()
    token_ids()
    kinds()
