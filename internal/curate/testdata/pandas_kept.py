"""What pandas keeps at the 60th percentile by dump, beside what a filter kept: row ids, in order.

    python3 pandas_kept.py OUT CORPUS DEST
"""

import glob
import os
import sys

import pandas as pd

out, corpus, dest = sys.argv[1:]
rels = [os.path.basename(p).removesuffix(".parquet") for p in sorted(glob.glob(f"{corpus}/*.parquet"))]


def read(rel):
    scores = [pd.read_parquet(p, columns=["perplexity"]) for p in sorted(glob.glob(f"{out}/{rel}/rows-*.parquet"))]
    return pd.concat([pd.read_parquet(f"{corpus}/{rel}.parquet", columns=["id", "dump"]), pd.concat(scores, ignore_index=True)], axis=1)


df = pd.concat([read(rel) for rel in rels], ignore_index=True)
want = df[df.perplexity < df.groupby("dump").perplexity.transform(lambda x: x.quantile(0.6))].id.tolist()
got = pd.concat([pd.read_parquet(f"{dest}/{rel}.parquet", columns=["id"]) for rel in rels]).id.tolist()
if got != want:
    sys.exit(f"{len(got)} rows are kept, pandas keeps {len(want)}")
print(len(want))
