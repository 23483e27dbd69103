"""What the builder of snapshots is held against, and the logs that are generated for it.

DuckDB and Polars answer one question of many: which actions each example's user did last. They
compute no labels and no features, check nothing, and copy up to 100 actions for each example, where
a snapshot points to them.
"""

import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from synthetic import embeddings, same, start_ms

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, PINS, USERS
from pipelines.contracts.time import DAY_MS
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
SEED, VERSION = 1, "generated-1"
NUM_DAYS, CANDIDATES, FILES_PER_DAY, NUM_PINS = 28, 10, 4, 200_000
ACTIONS_PER_USER = 200
FIRST = date(2026, 1, 1)
GENERATED_AS_OF = datetime(2026, 1, 29, tzinfo=UTC)


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


def write_log(folder: Path, num_actions: int) -> int:
    """Write a log of four weeks; return the rows of impressions and actions."""
    shutil.rmtree(folder, ignore_errors=True)
    rng, written, num_users = (
        np.random.default_rng(SEED),
        0,
        max(1, num_actions // ACTIONS_PER_USER),
    )
    for number in range(NUM_DAYS * FILES_PER_DAY):
        day = FIRST + timedelta(days=number // FILES_PER_DAY)
        of_file = num_actions // (NUM_DAYS * FILES_PER_DAY)
        shown = _impressions(rng, number, day, of_file * 2 // 3 // CANDIDATES, num_users)
        acted = _actions(rng, shown, of_file, num_users)
        for table, rows in (("impressions", shown), ("actions", acted)):
            _write(folder / table / f"day={day}" / f"part-{number % FILES_PER_DAY}.parquet", rows)
            written += len(rows)
    pins = [np.arange(NUM_PINS), same(VERSION, NUM_PINS), embeddings(rng, NUM_PINS)]
    _write(folder / "pins" / "part-0.parquet", pa.table(pins, schema=PINS))
    times = np.full(num_users, start_ms(FIRST))
    users = [np.arange(num_users), times, embeddings(rng, num_users), same("core", num_users)]
    users = pa.table([*users, pa.nulls(num_users, pa.string())], schema=USERS)
    _write(folder / "users" / "part-0.parquet", users)
    an_hour_ago = time.time() - 3600  # as of a log whose files nobody is writing
    for path in folder.rglob("*.parquet"):
        os.utime(path, (an_hour_ago, an_hour_ago))
    return written


def _impressions(
    rng: np.random.Generator, number: int, day: date, num_requests: int, num_users: int
) -> pa.Table:
    count = num_requests * CANDIDATES
    request = np.repeat(np.arange(num_requests), CANDIDATES)
    names = pa.array(np.char.add(f"{number:05d}-", np.arange(num_requests).astype(str)))
    at = start_ms(day) + rng.integers(0, DAY_MS - 3_600_000, num_requests)[request]
    columns = {
        "request_id": names.take(pa.array(request)),
        "user_id": rng.integers(0, num_users, num_requests)[request],
        "pin_id": rng.integers(0, NUM_PINS, count),
        "impressed_at": at,
        "known_at": at + rng.integers(0, 600_000, num_requests)[request],
        "position": np.tile(np.arange(CANDIDATES, dtype=np.int16), num_requests),
        "surface": same("homefeed", count),
        "is_exploration": (rng.random(num_requests) < 0.05)[request],
        "propensity": pa.nulls(count, pa.float32()),
    }
    return pa.table(columns, schema=IMPRESSIONS)


def _actions(
    rng: np.random.Generator, shown: pa.Table, num_actions: int, num_users: int
) -> pa.Table:
    """Return actions, a third of them on what was shown and with its request."""
    named = rng.integers(0, len(shown), num_actions // 3)
    others = num_actions - len(named)
    chosen = shown.take(pa.array(named))
    start_ms = int(np.asarray(shown["impressed_at"])[0]) // DAY_MS * DAY_MS
    at = np.concatenate([
        np.asarray(chosen["impressed_at"]) + rng.integers(1000, 1_700_000, len(named)),
        start_ms + rng.integers(0, DAY_MS - 1, others),
    ])  # fmt: skip
    users, pins = rng.integers(0, num_users, others), rng.integers(0, NUM_PINS, others)
    kinds = pa.array(["click", "repin", "hide"])
    columns = {
        "user_id": np.concatenate([np.asarray(chosen["user_id"]), users]),
        "pin_id": np.concatenate([np.asarray(chosen["pin_id"]), pins]),
        "action_type": kinds.take(pa.array(rng.integers(0, 3, num_actions))),
        "acted_at": at,
        "known_at": at + rng.integers(0, 600_000, num_actions),
        "request_id": pa.chunked_array(
            [*chosen["request_id"].chunks, pa.nulls(others, pa.string())]
        ),
    }
    return pa.table(columns, schema=ACTIONS)


def _write(path: Path, rows: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)
