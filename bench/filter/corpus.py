"""What benchfilter needs of Python: the corpus, DuckDB's side, what tells rows apart.

    corpus.py make DIR FILES ROWS
    corpus.py filter DIR DEST WHERE THREADS
    corpus.py digest DIR
"""

import glob
import os
import re
import sys


def make(folder, files, rows):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    os.makedirs(folder)
    words = np.array([f"w{i:x}" for i in range(20000)])
    for f in range(int(files)):
        r, n, per = np.random.default_rng(f), int(rows), 100_000
        with pq.ParquetWriter(f"{folder}/{f:03d}.parquet", schema(pa)) as w:
            for first in range(0, n, per):
                k = min(per, n - first)
                lengths = r.geometric(1 / 40, k)
                flat = words[np.minimum(r.zipf(1.3, lengths.sum()), len(words)) - 1]
                ends = np.cumsum(lengths)
                text = [" ".join(flat[a:b]) for a, b in zip(ends - lengths, ends)]
                w.write_table(pa.table({
                    "text": text,
                    "id": [f"<urn:{f}:{first + i}>" for i in range(k)],
                    "dump": [f"CC-MAIN-20{20 + f % 5}-{i % 3:02d}" for i in range(k)],
                    "url": [f"https://example.org/{f}/{first + i}" for i in range(k)],
                    "language": ["en"] * k,
                    "language_score": r.random(k),
                    "token_count": lengths,
                    "tags": [[f"t{i % 7}", f"t{i % 11}"] for i in range(k)],
                }, schema(pa)), row_group_size=per)


def schema(pa):
    return pa.schema([
        ("text", pa.string()), ("id", pa.string()), ("dump", pa.string()), ("url", pa.string()), ("language", pa.string()),
        ("language_score", pa.float64()), ("token_count", pa.int64()), ("tags", pa.list_(pa.string())),
    ])


def filter(folder, dest, where, threads):
    import duckdb

    os.makedirs(dest)
    db = duckdb.connect(config={"threads": int(threads), "preserve_insertion_order": True})
    src = f"read_parquet('{folder}/*.parquet')"

    def threshold(m):
        return repr(db.execute(f"SELECT quantile_cont({m[1]}, {float(m[3]) / 100}) FROM {src}").fetchone()[0])

    where = re.sub(r"(\w+)( *[<>]=? *)p(\d+)", lambda m: m[1] + m[2] + threshold(m), where)
    drop = "row, n_tokens, n_bytes, sum_nll, perplexity, bits_per_byte, n_top1, truncated, error"
    for path in sorted(glob.glob(f"{folder}/*.parquet")):
        to = f"{dest}/{os.path.basename(path)}"
        db.execute(f"COPY (SELECT * EXCLUDE ({drop}) FROM '{path}' WHERE {where}) TO '{to}' (FORMAT parquet, COMPRESSION snappy)")


def digest(folder):
    import duckdb

    print(duckdb.execute(f"SELECT count(*), sum(hash(id, text, dump, url, language_score, token_count, tags)) FROM '{folder}/*.parquet'").fetchone())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
