"""Opens a bundle's Parquet files with DuckDB and with pandas over pyarrow; both must read the same.

Writes, as JSON: rows and columns of each file, how many spans failed, and every text of every cell.
"""
import json
import pathlib
import sys

import duckdb
import pandas
import pyarrow.parquet

folder = pathlib.Path(sys.argv[1])
told, texts = {}, set()
for file in sorted(folder.glob("*.parquet")):
    frame = pandas.read_parquet(file, engine="pyarrow")
    table = duckdb.sql(f"SELECT * FROM read_parquet('{file}')")
    assert list(frame.columns) == table.columns, file
    assert len(frame) == table.shape[0], file
    # Each column says in the file itself what it means.
    meant = {field.name: (field.metadata or {}).get(b"description", b"").decode() for field in pyarrow.parquet.read_schema(file)}
    told[file.stem] = {"rows": len(frame), "columns": list(frame.columns), "meant": meant}
    for column in frame.select_dtypes(include=["object", "string"]):
        texts.update(str(value) for value in frame[column].unique())
failed = duckdb.sql(f"SELECT count(*) FROM read_parquet('{folder}/spans.parquet') WHERE status = 'error'").fetchall()[0][0]
print(json.dumps({"files": told, "failed_spans": failed, "texts": sorted(texts)}))
