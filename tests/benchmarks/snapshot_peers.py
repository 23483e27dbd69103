"""What the builder of snapshots is held against, and the shape of the logs made for it.

DuckDB and Polars answer one question of many: which actions each example's user did last. They
compute no labels and no features, check nothing, and copy up to 100 actions for each example, where
a snapshot points to them.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from synthetic import LogShape

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS
from pipelines.event_log.log_files import open_event_log
from pipelines.snapshot.plan import make_plan
from pipelines.snapshot.spill import files_read

NAMES = {
    "duckdb": "DuckDB 2.0.1, ASOF join with lists of the last 100 actions, 2 threads",
    "polars": "Polars 2.1.0, join_asof with lists of the last 100 actions, 2 threads",
    "sort": "Arrow: read the same columns, sort by user and time, write, 2 threads",
}
DUCKDB = """
copy (
  with r as (select u, p, k, ts, row_number() over (partition by u order by ts) rn from a),
       l as (select u, list(p order by ts) ps, list(k order by ts) ks, list(ts order by ts) tss
             from a group by u)
  select i, x.u, c, x.ts,
         list_slice(ps, greatest(1, rn - 99), rn) ps,
         list_slice(ks, greatest(1, rn - 99), rn) ks,
         list_slice(tss, greatest(1, rn - 99), rn) tss
  from (select x.i, x.u, x.c, x.ts, r.rn from x asof left join r on x.u = r.u and x.ts > r.ts) x
  join l using (u)
) to '{path}' (format parquet, compression zstd);
"""
GENERATED_AS_OF = datetime(2026, 1, 29, tzinfo=UTC)


def shape_of(num_actions: int) -> LogShape:
    """Return four weeks with so many actions, two thirds as many impressions."""
    return LogShape(
        num_impressions=num_actions * 2 // 3,
        actions_per_impression=1.5,
        num_users=max(1, num_actions // 200),
        num_pins=200_000,
        num_days=28,
        candidates=10,
        files_per_day=4,
    )


def _rows(run: ResolvedRun, table: str, columns: dict[str, str]) -> pa.Table:
    """Return the rows that a snapshot reads of a table, under short names."""
    plan, log = make_plan(run), open_event_log(run.event_log_uri)
    impressions, actions, _ = files_read(log, plan)
    files = impressions if table == "impressions" else actions
    rows = ds.dataset([file.path for file in files]).to_table(columns=list(columns))
    return rows.rename_columns(list(columns.values()))


def _examples_and_actions(run: ResolvedRun) -> tuple[pa.Table, pa.Table]:
    """Return the examples of both windows, and all actions by when the log knew of them."""
    plan = make_plan(run)
    shown = _rows(run, "impressions", {"user_id": "u", "pin_id": "c", "impressed_at": "ts"})
    inside = [
        (pc.field("ts") >= window.start_ms) & (pc.field("ts") < window.end_ms)
        for window in plan.windows.values()
    ]
    shown = shown.filter(inside[0] | inside[1])
    shown = shown.add_column(0, "i", pa.array(np.arange(len(shown))))
    acted = {"user_id": "u", "pin_id": "p", "action_type": "k", "known_at": "ts"}
    return shown, _rows(run, "actions", acted)


def run_duckdb(run: ResolvedRun, folder: Path) -> float:
    """Return the seconds of the query alone."""
    import duckdb

    x, a = _examples_and_actions(run)
    with duckdb.connect() as connection:
        connection.execute("set threads = 2")
        for name, rows in (("x", x), ("a", a)):
            connection.register("rows", rows)
            connection.execute(f"create table {name} as select * from rows")
        started = time.perf_counter()
        connection.execute(DUCKDB.format(path=folder / "asof.parquet"))
        return time.perf_counter() - started


def run_polars(run: ResolvedRun, folder: Path) -> float:
    """Return the seconds of the query alone; the rows come sorted, which join_asof asks for."""
    import polars as pl

    shown, acted = _examples_and_actions(run)
    x = pl.DataFrame(shown).sort("u", "ts")
    a = pl.DataFrame(acted).sort("u", "ts")
    started = time.perf_counter()
    ranked = a.lazy().with_columns(rn=pl.int_range(1, pl.len() + 1).over("u"))
    lists = a.lazy().group_by("u", maintain_order=True).agg("p", "k", pl.col("ts").alias("tss"))
    start = (pl.col("rn") - 100).clip(0).fill_null(0)
    length = pl.col("rn").fill_null(0).clip(0, 100)
    (
        x.lazy()
        .join_asof(
            ranked.select("u", "ts", "rn"), on="ts", by="u", allow_exact_matches=False,
            check_sortedness=False,
        )
        .join(lists, on="u")
        .select(
            "i", "u", "c", "ts",
            *(pl.col(name).list.slice(start, length) for name in ("p", "k", "tss")),
        )
        .collect()
        .write_parquet(folder / "asof.parquet", compression="zstd")
    )  # fmt: skip
    return time.perf_counter() - started


def run_sort(run: ResolvedRun, folder: Path) -> float:
    """Return the seconds of reading, sorting and writing the columns that a snapshot reads."""
    pa.set_cpu_count(2)
    columns = {
        "impressions": [name for name in IMPRESSIONS.names if name != "surface"],
        "actions": ACTIONS.names,
    }
    started = time.perf_counter()
    for table, time_column in (("impressions", "impressed_at"), ("actions", "known_at")):
        rows = _rows(run, table, {name: name for name in columns[table]})
        rows = rows.sort_by([("user_id", "ascending"), (time_column, "ascending")])
        with pa.ipc.new_file(str(folder / f"{table}.arrow"), rows.schema) as writer:
            writer.write_table(rows)
    return time.perf_counter() - started


PEERS: dict[str, Callable[[ResolvedRun, Path], float]] = {
    "duckdb": run_duckdb,
    "polars": run_polars,
    "sort": run_sort,
}
