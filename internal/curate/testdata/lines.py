"""JSON lines, as DuckDB and pyarrow read them, beside the parquet files that they were made of.

    lines.py make CORPUS DIR SUFFIX     writes CORPUS's rows as lines, with text, dump and language in an object
    lines.py kept DIR KEPT PARQUET …    each KEPT has whole lines of DIR, those of the ids that are in its PARQUET
    lines.py scored KEPT PARQUET NAMES  KEPT's lines have the fields NAMES too, of PARQUET's values
"""

import glob
import gzip
import io
import json
import os
import sys

import duckdb
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq


def stem(path):
    return os.path.basename(path).split(".")[0]


def make(corpus, folder, suffix):
    os.makedirs(folder)
    for path in sorted(glob.glob(f"{corpus}/*.parquet")):
        out = io.BytesIO()
        for i, row in enumerate(pq.read_table(path).to_pylist()):
            row["meta"] = {k: row.pop(k) for k in ("text", "dump", "language")}
            space = " " * (i % 3)
            # Orders, blanks and escapes as writers differ in them.
            line = json.dumps(row, ensure_ascii=i % 2 == 0, default=str).replace('{"', "{" + space + '"', 1)
            out.write((space + line + ("\r\n" if i % 5 == 0 else "\n") + ("  \n" if i % 50 == 7 else "")).encode())
        body = out.getvalue().rstrip(b"\r\n ")  # the last line has no end
        name = f"{folder}/{stem(path)}{suffix}"
        if suffix.endswith(".gz"):
            body = gzip.compress(body)
        if suffix.endswith(".zst"):
            body = pa.compress(body, codec="zstd", asbytes=True)
        with open(name, "wb") as f:
            f.write(body)


def unpack(path):
    if path.endswith(".gz") or path.endswith(".zst"):
        with pa.input_stream(path, compression="gzip" if path.endswith(".gz") else "zstd") as f:
            return f.read()
    return open(path, "rb").read()


def ids(parquet):
    return {stem(p): pq.read_table(p, columns=["id"]).column("id").to_pylist() for p in glob.glob(f"{parquet}/*.parquet")}


def kept(folder, *pairs):
    for dest, parquet in zip(pairs[::2], pairs[1::2]):
        one(folder, dest, ids(parquet))


def one(folder, dest, want):
    total = 0
    paths = sorted(p for p in glob.glob(f"{folder}/*"))
    for path in paths:
        lines = [x for x in unpack(path).splitlines(keepends=True) if x.strip()]
        by_id = {json.loads(x)["id"]: x for x in lines}
        expect = b"".join(by_id[i] for i in want[stem(path)])
        got = unpack(f"{dest}/{os.path.basename(path)}")
        if got != expect:
            sys.exit(f"{path}: {len(got)} bytes kept, want {len(expect)}")
        total += len(want[stem(path)])
        if got:
            read = duckdb.execute("SELECT id FROM read_json(?, format='newline_delimited')", [f"{dest}/{os.path.basename(path)}"]).fetchall()
            if [x[0] for x in read] != want[stem(path)]:
                sys.exit(f"{path}: DuckDB reads other ids")
    print(total)


def scored(dest, parquet, names):
    names = names.split(",")
    for path in sorted(glob.glob(f"{dest}/*.jsonl*")):
        want = pq.read_table(f"{parquet}/{stem(path)}.parquet").select(["id"] + names)
        read = pyarrow.json.read_json(io.BytesIO(unpack(path)), parse_options=pyarrow.json.ParseOptions(newlines_in_values=False),
                                      read_options=pyarrow.json.ReadOptions(block_size=64 << 20))
        got = read.select(["id"] + names).cast(want.schema)
        if not got.equals(want):
            for n in ["id"] + names:
                if not got.column(n).equals(want.column(n)):
                    sys.exit(f"{path}: pyarrow reads another {n}: {got.column(n).slice(0, 5)} {want.column(n).slice(0, 5)}")
        columns = ", ".join(n + "::FLOAT[]" if n == "token_nll" else n for n in names)
        a = duckdb.execute(f"SELECT id, {columns} FROM read_json(?, format='newline_delimited', maximum_object_size=67108864)", [path]).fetchall()
        if a != duckdb.execute(f"SELECT id, {columns} FROM read_parquet(?)", [f"{parquet}/{stem(path)}.parquet"]).fetchall():
            sys.exit(f"{path}: DuckDB reads other values")


globals()[sys.argv[1]](*sys.argv[2:])
