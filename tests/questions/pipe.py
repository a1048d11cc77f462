"""DuckDB behind a pipe: each line in is a JSON text, some SQL; each line out is `{"rows": […]}` or `{"error": "…"}`."""

import json
import sys

import duckdb

ROWS_MAX = 200_000

db = duckdb.connect()
db.execute("SET threads = 2; SET memory_limit = '4GB'; SET enable_progress_bar = false")
for line in sys.stdin:
    try:
        rows = db.execute(json.loads(line)).fetchmany(ROWS_MAX + 1)
        told = {"rows": rows} if len(rows) <= ROWS_MAX else {"error": f"more than {ROWS_MAX} rows"}
    except Exception as error:
        told = {"error": str(error)}
    print(json.dumps(told), flush=True)
