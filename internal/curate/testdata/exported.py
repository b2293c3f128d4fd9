"""Compares the three layouts of an export with the input and the score files.

    python3 exported.py OUT CORPUS MERGED SIDECAR DOLMA
"""

import glob
import gzip
import json
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq

out, corpus, merged, sidecar, dolma = sys.argv[1:]


def check(ok, *what):
    if not ok:
        sys.exit(" ".join(map(str, what)))


for path in sorted(glob.glob(f"{corpus}/*.parquet")):
    rel = os.path.relpath(path, corpus)
    t = pq.read_table(path)
    s = pa.concat_tables([pq.read_table(x) for x in sorted(glob.glob(f"{out}/{rel.removesuffix('.parquet')}/rows-*.parquet"))])
    side = pq.read_table(f"{sidecar}/{rel}")
    check(side.schema.names == s.schema.names and side.equals(s), rel, "sidecar", side.schema.names)
    m = pq.read_table(f"{merged}/{rel}")
    own = [n for n in s.schema.names if n != "id"]
    check(m.schema.names == t.schema.names + own, rel, "merged", m.schema.names)
    check(m.select(t.schema.names).equals(t) and m.select(own).equals(s.select(own)), rel, "merged differs")
    lines = [json.loads(x) for x in gzip.open(f"{dolma}/{rel.removesuffix('.parquet')}.jsonl.gz", "rt", encoding="utf-8")]
    check([x["id"] for x in lines] == t.column("id").to_pylist(), rel, "ids")
    for x, text, ppl, bpb in zip(lines, t.column("text").to_pylist(), s.column("perplexity").to_pylist(), s.column("bits_per_byte").to_pylist()):
        a = x["attributes"]
        for key, v in ("surprisal__fake__perplexity", ppl), ("surprisal__fake__bits_per_byte", bpb):
            check(a[key] == ([] if v is None else [[0, len(text), v]]), rel, key, a[key], v)
