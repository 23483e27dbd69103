"""The builder of snapshots against DuckDB, Polars and a plain sort, and over workers and sizes.

    snapshot_vs_duckdb           a point-in-time join that writes each example's last 100 actions
    snapshot_vs_polars           the same of Polars
    snapshot_vs_sort_and_write   reading the same columns, sorting and writing them, without a join
    snapshot_2_vs_1              two workers and one, 10 M rows
    snapshot_50m                 5 M, 20 M and 50 M actions: linear time within a budget of memory
    snapshot_50m_spark           the same by a Spark cluster (`spark_sizes`), where PySpark is
    snapshot_incremental_vs_full the stage a fortnight later, and the same stage from nothing

The peers' queries get their rows in memory, and their time is that of the query alone; ours begins
at the event log's files. Every run is a process of its own with two threads. `SIZES` in the
environment ("5,20") names the sizes in millions, `PARTS` ("duckdb sizes") the rows that are
measured, `REPETITIONS` how often. Seconds of the cores are told besides: a busy machine leaves them
as they are. The generated logs lie below .homefeed/bench and are deleted afterwards.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import snapshot_peers as peers
from record import Row, row
from sample import event_log_uri, make_run
from spark_builds import has_pyspark
from spark_sizes import measure_sizes
from synthetic import SEED, LogShape, anonymous_bytes, write_log

from pipelines import storage
from pipelines.contracts.config import RunConfig
from pipelines.contracts.run_layout import listing_uri
from pipelines.log_days.judging import judge_event_log
from pipelines.recipes import completejourney, world
from pipelines.snapshot.build import write_snapshot
from pipelines.stages.build_snapshot import list_event_log

FOLDER = Path(".homefeed") / "bench"
AS_OF = datetime(2017, 12, 25, tzinfo=UTC)
TRAINING_DAYS = 134
"""With as many, the sample's last snapshot holds about a million examples."""
SIZES = tuple(int(size) for size in os.environ.get("SIZES", "5,20,50").split(","))
REPETITIONS = int(os.environ.get("REPETITIONS", "3"))
ACTIONS_OF_SCALING = 6
"""Millions of actions of the log for two workers and one, with two thirds as many impressions."""
BUDGET_GIB = 3.0
GOAL_DUCKDB, GOAL_SORT, GOAL_WORKERS, GOAL_LINEAR, GOAL_INCREMENTAL = 40, 3, 1.7, 1.1, 0.5


def measure() -> list[Row]:
    """Return the rows of all parts, or of those that `PARTS` names."""
    parts: dict[str, Callable[[], list[Row]]] = {
        "sort": lambda: [_against("sort", "sort_and_write", f"goal: <= {GOAL_SORT} of its time")],
        "duckdb": lambda: [_against("duckdb", "duckdb", f"goal: >= {GOAL_DUCKDB}")],
        "polars": lambda: [_against("polars", "polars", "no goal")],
        "workers": lambda: [_workers()],
        "sizes": lambda: [_sizes()],
        "spark_sizes": lambda: [measure_sizes(SIZES, generated_config, FOLDER)],
        "incremental": lambda: [_incremental()],
    }
    usual = [name for name in parts if name != "spark_sizes" or has_pyspark()]
    wanted = os.environ.get("PARTS", " ".join(usual)).split()
    return [found for name in wanted for found in parts[name]()]


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


def _against(peer: str, name: str, goal: str) -> Row:
    """Run ours and a peer in turns on the sample."""
    event_log_uri()
    ours, theirs = [], []
    for _ in range(REPETITIONS):
        ours.append(_run("sample"))
        theirs.append(_run(peer))
    num_examples = ours[0]["num_examples"]
    our_s, peer_s = (statistics.median(run["seconds"] for run in runs) for runs in (ours, theirs))
    ratios = [two["seconds"] / one["seconds"] for one, two in zip(ours, theirs, strict=True)]
    our_cpu_s, peer_cpu_s = (
        statistics.median(run["cpu_s"] for run in runs) for runs in (ours, theirs)
    )
    return row(
        f"snapshot_vs_{name}",
        num_examples / our_s,
        "examples/s",
        ratio=peer_s / our_s if name != "sort_and_write" else our_s / peer_s,
        peer=peers.NAMES[peer],
        spread=f"their time over ours in turns: {min(ratios):.2f} to {max(ratios):.2f} "
        f"of {REPETITIONS}",
        rows=num_examples,
        note=f"ours {our_s:.2f} s from the files, with all checks, features and labels; "
        f"the peer {peer_s:.2f} s; of the cores, with start and reading: {our_cpu_s:.1f} s and "
        f"{peer_cpu_s:.1f} s; {goal}",
    )


def _workers() -> Row:
    """Run two workers and one in turns on a generated log."""
    log = FOLDER / "snapshot_scaling"
    num_rows = write_log(log, peers.shape_of(ACTIONS_OF_SCALING * 1_000_000))
    times: dict[int, list[float]] = {1: [], 2: []}
    try:
        for _ in range(REPETITIONS):
            for workers, found in times.items():
                found.append(
                    _run("generated", str(log), str(ACTIONS_OF_SCALING), str(workers))["seconds"]
                )
    finally:
        shutil.rmtree(log)
    ratios = [one / two for one, two in zip(times[1], times[2], strict=True)]
    one, two = (statistics.median(times[workers]) for workers in (1, 2))
    return row(
        "snapshot_2_vs_1",
        num_rows / two,
        "rows/s",
        ratio=one / two,
        peer="one worker",
        spread=f"{min(ratios):.2f} to {max(ratios):.2f} of {REPETITIONS}",
        rows=num_rows,
        seed=str(SEED),
        note=f"{one:.1f} s and {two:.1f} s; goal: >= {GOAL_WORKERS}",
    )


def _sizes() -> Row:
    """Build snapshots of growing logs; the figure is the largest one's rows per second."""
    said, per_row, peaks = [], [], []
    for millions in SIZES:
        log = FOLDER / f"snapshot_{millions}m"
        num_rows = write_log(log, peers.shape_of(millions * 1_000_000))
        try:
            run = _run("generated", str(log), str(millions), "2", budget_gib=BUDGET_GIB)
        finally:
            shutil.rmtree(log)
        per_row.append(run["seconds"] / num_rows)
        peaks.append(run["peak_gib"])
        said.append(
            f"{millions} M actions: {run['seconds']:.1f} s, {run['cpu_s']:.1f} s of the cores, "
            f"{run['peak_gib']:.2f} GiB"
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
        note=f"{'; '.join(said)}; goals: ratio <= {GOAL_LINEAR}, memory of all processes <= "
        f"{BUDGET_GIB} GiB, without mapped files, which the kernel takes back at need; two "
        f"thirds as many impressions as actions",
    )


def _incremental() -> Row:
    """Run the stage a fortnight after another one in its workspace, and in an empty one, in turns.

    The stage judges the event log's days and builds the snapshot.
    """
    fulls, nexts, first = [], [], AS_OF - timedelta(days=14)
    for _ in range(REPETITIONS):
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            _run("stage", f"{folder}/known", first.isoformat())
            nexts.append(_run("stage", f"{folder}/known", AS_OF.isoformat()))
            fulls.append(_run("stage", f"{folder}/empty", AS_OF.isoformat()))
    ratios = [two["seconds"] / one["seconds"] for one, two in zip(fulls, nexts, strict=True)]
    full_s, next_s, full_cpu_s, next_cpu_s, full_built_s, next_built_s = (
        statistics.median(run[what] for run in runs)
        for what in ("seconds", "cpu_s", "built_s")
        for runs in (fulls, nexts)
    )
    return row(
        "snapshot_incremental_vs_full",
        next_s,
        "s",
        ratio=next_s / full_s,
        peer="build_snapshot from nothing, the same fortnight",
        spread=f"{min(ratios):.2f} to {max(ratios):.2f} of {REPETITIONS}",
        rows=int(fulls[0]["num_examples"]),
        note=f"of {TRAINING_DAYS} days of training, 14 are new: {full_s:.1f} s and {next_s:.1f} s "
        f"with the judgement of the log and the start of its libraries; of the cores "
        f"{full_cpu_s:.1f} s and {next_cpu_s:.1f} s; the snapshot alone {full_built_s:.1f} s and "
        f"{next_built_s:.1f} s; goal: <= {GOAL_INCREMENTAL}",
    )


def _run(*arguments: str, budget_gib: float = 0.0) -> dict[str, float]:
    """Run this file for one measurement; return what it prints, and its peak of memory.

    Memory is asked for only where there is a budget of it: the kernel walks through all pages of
    the process to answer, on a core that the process could use.
    """
    root = Path(__file__).resolve().parents[2]
    places = os.pathsep.join(map(str, (root, root / "tests", Path(__file__).parent)))
    environment = os.environ | {"PYTHONPATH": places, "POLARS_MAX_THREADS": "2"}
    # A builder takes half of what its stage has.
    resources = {"build_snapshot": {"cpus": 1, "memory_gib": 2 * budget_gib}}
    environment["HOMEFEED_STAGE_RESOURCES"] = json.dumps(resources)
    command = [sys.executable, __file__, *arguments]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        while process.poll() is None:
            if budget_gib:
                peak = max(peak, anonymous_bytes(psutil.Process(process.pid)))
            time.sleep(0.05)
        text = process.stdout.read() if process.stdout else ""
    if process.returncode != 0:
        raise RuntimeError(f"{arguments} ended with {process.returncode}")
    return json.loads(text.splitlines()[-1]) | {"peak_gib": peak / 2**30}


def build(config: RunConfig, as_of: datetime, log_uri: str, num_workers: int) -> dict[str, float]:
    """Build a snapshot; return the seconds of it, and how many examples it has."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        run = make_run(config, as_of, Path(folder), log_uri)
        started = time.perf_counter()
        snapshot = write_snapshot(run, num_workers=num_workers)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "num_examples": snapshot.num_examples}


def stage(folder: Path, as_of: datetime) -> dict[str, float]:
    """Judge the sample's log and build its snapshot, as the stage does, in a workspace."""
    run = make_run(sample_config(), as_of, folder, event_log_uri())
    started = time.perf_counter()
    storage.write_model(listing_uri(run.run_uri), list_event_log(run))
    judge_event_log(run)
    judged = time.perf_counter()
    snapshot = write_snapshot(run)
    seconds = time.perf_counter() - started
    built_s = seconds - (judged - started)
    return {"seconds": seconds, "built_s": built_s, "num_examples": snapshot.num_examples}


def main(what: str, *arguments: str) -> dict[str, float]:
    """Return one measurement: of ours on the sample or a generated log, or of a peer."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if what == "sample":
        return build(sample_config(), AS_OF, event_log_uri(), 2)
    if what == "stage":
        folder, as_of = arguments
        return stage(Path(folder), datetime.fromisoformat(as_of))
    if what == "generated":
        log, millions, workers = arguments
        config = generated_config(int(millions))
        return build(config, peers.GENERATED_AS_OF, storage.to_uri(Path(log)), int(workers))
    run = make_run(sample_config(), AS_OF, FOLDER, event_log_uri())
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        return {"seconds": peers.PEERS[what](run, Path(folder))}


if __name__ == "__main__":
    measured = main(*sys.argv[1:])
    sys.stdout.write(json.dumps(measured | {"cpu_s": time.process_time()}) + "\n")
