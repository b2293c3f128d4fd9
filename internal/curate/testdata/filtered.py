"""Compares what a filter kept with the same in NumPy: ids, by file, in order.

    python3 filtered.py OUT CORPUS DEST COLUMN PERCENTILE [BY]
"""

import glob
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

out, corpus, dest, column, p, by = *sys.argv[1:6], sys.argv[6] if len(sys.argv) > 6 else None
files = sorted(glob.glob(f"{corpus}/**/*.parquet", recursive=True))
rels = [os.path.relpath(f, corpus) for f in files]
inputs = [pq.read_table(f) for f in files]
scores = [pa.concat_tables([pq.read_table(s) for s in sorted(glob.glob(f"{out}/{rel.removesuffix('.parquet')}/rows-*.parquet"))]) for rel in rels]
value = [np.array(s[column].to_pylist(), dtype=float) for s in scores]
group = [np.array(t[by].to_pylist() if by else [""] * len(t)) for t in inputs]
all_value, all_group = np.concatenate(value), np.concatenate(group)
limit = {g: np.nanpercentile(all_value[all_group == g], float(p)) for g in np.unique(all_group)}
total = 0
for rel, t, v, g in zip(rels, inputs, value, group):
    keep = v < np.array([limit[x] for x in g])
    want, got = t.filter(pa.array(keep)), pq.read_table(f"{dest}/{rel}")
    total += len(want)
    if not got.select(t.schema.names).equals(want):
        sys.exit(f"{rel}: {len(got)} rows, want {len(want)}")
print(total)
