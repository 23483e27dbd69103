"""The builder of snapshots against DuckDB, and over workers and sizes.

    snapshot_vs_duckdb           a point-in-time join that writes each example's last 100 actions
    snapshot_2_vs_1              two workers and one, 10 M rows
    snapshot_50m                 5 M, 20 M and 50 M actions: linear time within a budget of memory
    snapshot_incremental_vs_full the stage a fortnight later, and the same stage from nothing

DuckDB answers one question of many: which actions each example's user did last. It computes no
labels and no features, checks nothing, and copies up to 100 actions for each example, where a
snapshot points to them. It gets its rows in memory, and its time is that of the query alone; ours
begins at the event log's files. Every run is a process of its own with two threads. `SIZES` in the
environment ("5,20") names the sizes in millions, `PARTS` ("duckdb sizes") the rows that are
measured, `REPETITIONS` how often. Seconds of the cores are told besides: a busy machine leaves them
as they are. The generated logs lie below .homefeed/bench and are deleted afterwards.
"""

import contextlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from record import Row, row
from sample import HOME, event_log_uri, make_run
from synthetic import SEED, LogShape, write_log
from timed import Ran, call, in_turns

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.config import RunConfig
from pipelines.event_log.log_files import open_event_log
from pipelines.recipes import completejourney, world
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.spill import files_read
from pipelines.stages.build_snapshot import build_snapshot

FOLDER = HOME / "bench"
AS_OF, GENERATED_AS_OF = datetime(2017, 12, 25, tzinfo=UTC), datetime(2026, 1, 29, tzinfo=UTC)
TRAINING_DAYS = 134
"""With as many, the sample's last snapshot holds about a million examples."""
SIZES = tuple(int(size) for size in os.environ.get("SIZES", "5,20,50").split(","))
REPETITIONS = int(os.environ.get("REPETITIONS", "3"))
ACTIONS_OF_SCALING = 6
"""Millions of actions of the log for two workers and one, with two thirds as many impressions."""
BUDGET_GIB = 3.0
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


def measure() -> list[Row]:
    """Return the rows of all parts, or of those that `PARTS` names."""
    parts = {"duckdb": _duckdb, "workers": _workers, "sizes": _sizes, "incremental": _incremental}
    FOLDER.mkdir(parents=True, exist_ok=True)
    event_log_uri()
    return [parts[name]() for name in os.environ.get("PARTS", " ".join(parts)).split()]


def _duckdb() -> Row:
    """Run ours and the peer in turns on the sample."""
    runs = [(_run("sample"), _run("duckdb")) for _ in range(REPETITIONS)]
    ours, theirs = zip(*runs, strict=True)
    our_s, peer_s = _median(ours), _median(theirs)
    our_cpu_s, peer_cpu_s = (statistics.median(each.cpu_s for each in s) for s in (ours, theirs))
    num_examples = ours[0].told["num_examples"]
    return row(
        "snapshot_vs_duckdb",
        num_examples / our_s,
        "examples/s",
        ratio=peer_s / our_s,
        peer=f"DuckDB {duckdb.__version__}, ASOF join with lists of 100 actions, 2 threads",
        spread=_turns(theirs, ours),
        rows=num_examples,
        note=f"ours {our_s:.2f} s from the files, with all checks, features and labels; the peer "
        f"{peer_s:.2f} s; of the cores, with start and reading: {our_cpu_s:.1f} s and "
        f"{peer_cpu_s:.1f} s; goal: >= 40",
    )


def _workers() -> Row:
    """Run two workers and one in turns on a generated log."""
    with generated(ACTIONS_OF_SCALING) as (log, num_rows):
        runs = [
            [_run("generated", log, str(ACTIONS_OF_SCALING), workers) for workers in ("1", "2")]
            for _ in range(REPETITIONS)
        ]
    ones, twos = zip(*runs, strict=True)
    one, two = _median(ones), _median(twos)
    return row(
        "snapshot_2_vs_1",
        num_rows / two,
        "rows/s",
        ratio=one / two,
        peer="one worker",
        spread=_turns(ones, twos),
        rows=num_rows,
        seed=str(SEED),
        note=f"{one:.1f} s and {two:.1f} s; goal: >= 1.7",
    )


def _sizes() -> Row:
    """Build snapshots of growing logs; the figure is the largest one's rows per second."""
    said, per_row = [], []
    for millions in SIZES:
        with generated(millions) as (log, num_rows):
            ran = _run("generated", log, str(millions), "2", budget_gib=BUDGET_GIB)
        seconds = ran.told["seconds"]
        per_row.append(seconds / num_rows)
        said.append(
            f"{millions} M actions: {seconds:.1f} s, {ran.cpu_s:.1f} s of the cores, "
            f"{ran.peak_mib / 1024:.2f} GiB"
        )
    return row(
        f"snapshot_{SIZES[-1]}m",
        1 / per_row[-1],
        "rows/s",
        ratio=per_row[-1] / per_row[0],
        peer=f"the time of a row at {SIZES[0]} M actions",
        spread="one run of each size",
        rows=num_rows,
        seed=str(SEED),
        note=f"{'; '.join(said)}; goals: ratio <= 1.1, memory of all processes <= "
        f"{BUDGET_GIB} GiB, without mapped files, which the kernel takes back at need; two "
        f"thirds as many impressions as actions",
    )


def _incremental() -> Row:
    """Run the stage a fortnight after another one in its workspace, and in an empty one, in turns.

    The stage judges the event log's days and builds the snapshot.
    """
    runs, first = [], AS_OF - timedelta(days=14)
    for _ in range(REPETITIONS):
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            _run("stage", f"{folder}/known", first.isoformat())
            runs.append([_run("stage", f"{folder}/{name}", AS_OF.isoformat())
                         for name in ("empty", "known")])  # fmt: skip
    fulls, nexts = zip(*runs, strict=True)
    full_s, next_s = _median(fulls), _median(nexts)
    return row(
        "snapshot_incremental_vs_full",
        next_s,
        "s",
        ratio=next_s / full_s,
        peer="build_snapshot from nothing, the same fortnight",
        spread=_turns(nexts, fulls),
        rows=fulls[0].told["num_examples"],
        note=f"of {TRAINING_DAYS} days of training, 14 are new: {full_s:.1f} s and {next_s:.1f} s "
        f"with the judgement of the log and the start of its libraries; goal: <= 0.5",
    )


def _median(runs: tuple[Ran, ...]) -> float:
    return statistics.median(each.told["seconds"] for each in runs)


def _turns(over: tuple[Ran, ...], under: tuple[Ran, ...]) -> str:
    pairs = zip(over, under, strict=True)
    return in_turns([one.told["seconds"] / other.told["seconds"] for one, other in pairs])


@contextlib.contextmanager
def generated(millions: int) -> Iterator[tuple[str, int]]:
    """Give four weeks with so many actions, two thirds as many impressions, and its rows."""
    shape = LogShape(
        num_impressions=millions * 2_000_000 // 3,
        actions_per_impression=1.5,
        num_users=max(1, millions * 5_000),
        num_pins=200_000,
        num_days=28,
        candidates=10,
        files_per_day=4,
    )
    log = FOLDER / f"snapshot_{millions}m"
    try:
        yield str(log), write_log(log, shape)
    finally:
        shutil.rmtree(log)


def _run(*arguments: str, budget_gib: float = 0.0) -> Ran:
    """Run `main` in a process; memory is seen only where there is a budget of it."""
    variables = {}
    if budget_gib:  # A builder takes half of what its stage has.
        resources = {"build_snapshot": {"cpus": 1, "memory_gib": 2 * budget_gib}}
        variables["HOMEFEED_STAGE_RESOURCES"] = json.dumps(resources)
    where = ("bench_snapshot", "main")
    return call(*where, *arguments, environment=variables, sees_memory=budget_gib > 0)


def sample_config() -> RunConfig:
    """Return the sample's recipe with a training window of about a million examples."""
    base = completejourney()
    snapshot = base.snapshot.model_copy(update={"training_days": TRAINING_DAYS})
    return base.model_copy(update={"snapshot": snapshot})


def generated_config(millions: int) -> RunConfig:
    """Return a recipe for a generated log, with shards of about half a million rows."""
    base = world()
    days = {"training_days": 20, "embargo_days": 1, "holdout_days": 3, "history_days": 28}
    update = days | {"num_shards": max(8, 2 * millions), "embedding_version": LogShape.version}
    return base.model_copy(update={"snapshot": base.snapshot.model_copy(update=update)})


def build(run: ResolvedRun, num_workers: int, make: Any = write_snapshot) -> dict[str, float]:
    """Build a snapshot, or run the whole stage, which judges the log first; return seconds."""
    started = time.perf_counter()
    with mock.patch("pipelines.snapshot.build.usable_cores", lambda: num_workers):
        snapshot = make(run)
    return {"seconds": time.perf_counter() - started, "num_examples": snapshot.num_examples}


def run_duckdb(run: ResolvedRun, folder: Path) -> dict[str, float]:
    """Return the seconds of the query alone."""
    plan, log = plan_of(run.config, run.as_of), open_event_log(run.event_log_uri)
    impressions, actions, _ = files_read(log, plan)
    names = {"user_id": "u", "pin_id": "c", "impressed_at": "ts"}
    shown = ds.dataset([file.path for file in impressions]).to_table(columns=list(names))
    shown = shown.rename_columns(list(names.values()))
    inside = [
        (pc.field("ts") >= window.start_ms) & (pc.field("ts") < window.end_ms)
        for window in plan.windows.values()
    ]
    shown = shown.filter(inside[0] | inside[1])
    shown = shown.add_column(0, "i", pa.array(np.arange(len(shown))))
    names = {"user_id": "u", "pin_id": "p", "action_type": "k", "known_at": "ts"}
    acted = ds.dataset([file.path for file in actions]).to_table(columns=list(names))
    with duckdb.connect() as connection:
        connection.execute("set threads = 2")
        for name, rows in (("x", shown), ("a", acted.rename_columns(list(names.values())))):
            connection.register("rows", rows)
            connection.execute(f"create table {name} as select * from rows")
        started = time.perf_counter()
        connection.execute(DUCKDB.format(path=folder / "asof.parquet"))
        return {"seconds": time.perf_counter() - started}


def main(what: str, *arguments: str) -> dict[str, float]:
    """Return one measurement: of ours on the sample or a generated log, or of the peer."""
    if what == "stage":
        folder, as_of = arguments
        when = datetime.fromisoformat(as_of)
        run = make_run(sample_config(), when, Path(folder), event_log_uri())
        return build(run, 2, build_snapshot)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        if what == "generated":
            log, millions, workers = arguments
            config = generated_config(int(millions))
            run = make_run(config, GENERATED_AS_OF, Path(folder), storage.to_uri(Path(log)))
            return build(run, int(workers))
        run = make_run(sample_config(), AS_OF, Path(folder), event_log_uri())
        return build(run, 2) if what == "sample" else run_duckdb(run, Path(folder))
