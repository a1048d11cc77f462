"""The questions of `bench query` from roll-ups by DuckDB or the ClickHouse engine: prints what they take as one JSON object.

Called with the engine, a file of `client,ms,user,page,country`, and the client that asks. Both have all cores, and are asked in their own process,
without HTTP. DuckDB has no sketch to keep: its roll-up has the finished number of users of each day and country, and can answer for no other
span; ClickHouse's has states that merge (`uniqCombined(12)`), as ours do."""

import json
import sys
import time

engine, path, client = sys.argv[1:]
ROUNDS = 40
END_DAY = 19875 + 90  # 1 June 2024 and 90 days, since 1970
HOUR = 24 * END_DAY

if engine == "duckdb":
    import duckdb

    db = duckdb.connect()

    def run(sql):
        return db.execute(sql).fetchall()

    version = duckdb.__version__
    COLUMNS = "{'client': 'VARCHAR', 'ms': 'BIGINT', 'u': 'VARCHAR', 'page': 'VARCHAR', 'country': 'VARCHAR'}"
    SOURCE = f"read_csv('{path}', header = false, columns = {COLUMNS})"
    DIVIDE, USERS, MERGED, TABLE, ORDER = "//", "approx_count_distinct(u)", "users", "CREATE TABLE {} AS", "ORDER BY {}"
else:
    import chdb
    from chdb import session

    db = session.Session()

    def run(sql):
        told = str(db.query(sql, "JSONCompactEachRow"))
        return [json.loads(line) for line in told.splitlines() if line]

    version = run("SELECT version()")[0][0]
    SOURCE = f"file('{path}', CSV, 'client String, ms Int64, u String, page String, country String')"
    DIVIDE, USERS, MERGED = "DIV", "uniqCombinedState(12)(u)", "uniqCombinedMerge(12)(users)"
    TABLE, ORDER = "CREATE TABLE {} ENGINE = MergeTree ORDER BY ({}) AS", ""


def roll_up(name, keys, figures):
    """A table of figures by keys, a list of (name, expression), in their order."""
    names = ", ".join(key for key, _ in keys)
    columns = ", ".join(f"{expression} AS {key}" for key, expression in keys)
    query = f"SELECT {columns}, {figures} FROM {SOURCE} GROUP BY {', '.join(expression for _, expression in keys)}"
    run(f"{TABLE.format(name, names)} {query} {ORDER.format(names)}")


if engine != "duckdb":
    run("CREATE DATABASE IF NOT EXISTS bench")
    run("USE bench")
CLIENT, DAY, HOURS = ("client", "client"), ("day", f"ms {DIVIDE} 86400000"), ("hour", f"ms {DIVIDE} 3600000")
began = time.perf_counter()
roll_up("country_by_day", [CLIENT, DAY, ("country", "country")], f"count(*) AS n, {USERS} AS users")
roll_up("total_by_hour", [CLIENT, HOURS], f"count(*) AS n, {USERS} AS users")
roll_up("page_by_hour", [CLIENT, HOURS, ("page", "page")], "count(*) AS n")
told = {"version": version, "rolled_up_s": round(time.perf_counter() - began, 1)}
merged = "any_value(users)" if engine == "duckdb" else MERGED
QUESTIONS = {
    "dau_country_30d": f"SELECT day, country, {merged} FROM country_by_day WHERE client = '{client}' AND day >= {END_DAY - 30} "
    "GROUP BY day, country ORDER BY day, country",
    "single_cube": f"SELECT hour, sum(n), {merged} FROM total_by_hour WHERE client = '{client}' AND hour >= {HOUR - 30} AND hour < {HOUR - 6} "
    "GROUP BY hour ORDER BY hour",
    "top10": f"SELECT page, sum(n) AS n FROM page_by_hour WHERE client = '{client}' AND hour >= {HOUR - 30} AND hour < {HOUR - 6} "
    "GROUP BY page ORDER BY n DESC, page LIMIT 10",
}
for name, question in QUESTIONS.items():
    took_ms = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        rows = run(question)
        took_ms.append((time.perf_counter() - began) * 1e3)
    told[f"{name}_ms_cold"] = round(took_ms[0], 2)
    warm = sorted(took_ms[1:])
    told[f"{name}_ms_p50"] = round(warm[len(warm) // 2], 2)
    told[f"{name}_ms_p95"] = round(warm[len(warm) * 95 // 100], 2)
    if name == "top10":
        told["top10"] = [[page, int(n)] for page, n in rows]
    else:
        told[f"{name}_rows"] = len(rows)
print(json.dumps(told))
