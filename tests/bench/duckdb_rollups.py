"""The three roll-ups of `bench collector` by DuckDB, on one thread: prints CPU seconds and what came out as one JSON object.

Named `once` second, events are told apart by their ids first, as shards do."""

import json
import resource
import sys

import duckdb


def cpu_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


FIGURES = "count(*) AS n, sum(d) AS sum, min(d) AS min, max(d) AS max, avg(d) AS avg, approx_count_distinct(user_id) AS users"

db = duckdb.connect()
db.execute("SET threads = 1; SET preserve_insertion_order = false")
before_s = cpu_s()
once = sys.argv[2:] == ["once"]
# Only what the roll-ups need is read.
db.execute(
    f"""CREATE TABLE events AS SELECT {"DISTINCT ON (event_id)" if once else ""}
    "timestamp" // 60000 AS minute, user_id, page, country, properties.duration_ms AS d
    FROM read_ndjson('{sys.argv[1]}', columns = {{{"'event_id': 'VARCHAR'," if once else ""} 'timestamp': 'BIGINT', 'user_id': 'VARCHAR',
    'page': 'VARCHAR', 'country': 'VARCHAR', 'properties': 'STRUCT(duration_ms BIGINT)'}})"""
)
read_s = cpu_s() - before_s
for name, keys in [("total", "minute"), ("country", "minute, country"), ("page", "minute, page")]:
    db.execute(f"CREATE TABLE by_{name} AS SELECT {keys}, {FIGURES} FROM events GROUP BY {keys}")
told = {"cpu_s": round(cpu_s() - before_s, 2), "read_cpu_s": round(read_s, 2), "version": duckdb.__version__}
for name in ["total", "country", "page"]:
    told[f"{name}_cells"], told[f"{name}_events"] = db.execute(f"SELECT count(*), sum(n)::BIGINT FROM by_{name}").fetchone()
print(json.dumps(told))
