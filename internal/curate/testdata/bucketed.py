"""Compares buckets by dump, as a column and as folders, with DuckDB's.

    python3 bucketed.py OUT CORPUS COLUMN FOLDERS
"""

import sys

import duckdb

out, corpus, column, folders = sys.argv[1:]
db = duckdb.connect()
db.execute(f"""CREATE TABLE want AS WITH s AS (
  SELECT d.id, d.dump, s.perplexity FROM '{corpus}/*.parquet' d JOIN '{out}/*/rows-*.parquet' s USING (id)),
 q AS (SELECT dump, quantile_cont(perplexity, 0.3) a, quantile_cont(perplexity, 0.6) b FROM s GROUP BY dump)
 SELECT id, CASE WHEN perplexity IS NULL THEN NULL WHEN perplexity < a THEN 'head' WHEN perplexity < b THEN 'middle' ELSE 'tail' END AS bucket
 FROM s JOIN q USING (dump)""")
union = " UNION ALL ".join(f"SELECT id, {v} AS bucket FROM '{folders}/{f}/*.parquet'" for f, v in
                           [("head", "'head'"), ("middle", "'middle'"), ("tail", "'tail'"), ("unscored", "NULL")])
for name, got in ("column", f"SELECT id, bucket FROM '{column}/*.parquet'"), ("folders", union):
    a = db.execute("SELECT * FROM want ORDER BY ALL").fetchall()
    b = db.execute(f"SELECT * FROM ({got}) ORDER BY ALL").fetchall()
    if a != b:
        sys.exit(f"{name}: {len(b)} rows, want {len(a)}; {sorted(set(a) ^ set(b), key=str)[:5]}")
