"""What Spark's executors do to a log, measured on one core: no cluster is needed for these.

    spark_map_256, spark_map_4096, spark_map_65536    the first pass: rows of a core, bytes of a row
    spark_group_65536                                 the second pass's dealing, of one group

The generated log lies below .homefeed/bench and is deleted afterwards.
"""

import time
from collections import defaultdict
from pathlib import Path
from unittest import mock

import pyarrow as pa
from bench_snapshot import GENERATED_AS_OF, SEED, generated, generated_config
from record import Row, row
from timed import call

from pipelines import storage
from pipelines.event_log.log_files import open_event_log
from pipelines.snapshot.plan import SnapshotPlan, plan_of
from pipelines.snapshot.spark import executor
from pipelines.snapshot.spark.executor import Job, build_group, code_of, read_part
from pipelines.snapshot.spark.travel import Block
from pipelines.snapshot.spill import HeldRows, make_tasks

ACTIONS = 6
"""Millions of actions of the log, with two thirds as many impressions."""
SHARDS = (256, 4096, 65536)


def measure() -> list[Row]:
    """Return a row for each number of shards, and one for the second pass of the most."""
    with generated(ACTIONS) as (log, _):
        found = [call("bench_spark", "main", log, str(shards)).told for shards in SHARDS]
    rows = [
        row(
            f"spark_map_{shards}",
            told["rows_per_s"],
            "rows/s of a core (goal at 65,536 shards: >= 600,000)",
            ratio=told["rows_per_s"] / found[0]["rows_per_s"],
            peer="256 shards",
            spread=f"{told['bytes_per_row']:.1f} bytes a row (goal: <= 40), one run",
            rows=told["num_rows"],
            seed=str(SEED),
        )
        for shards, told in zip(SHARDS, found, strict=True)
    ]
    last = found[-1]
    return [
        *rows,
        row(
            f"spark_group_{SHARDS[-1]}",
            last["dealt_per_s"],
            "rows/s of a core that a group deals to its shards before they are built",
            spread="one group, one run",
            rows=last["num_dealt"],
            seed=str(SEED),
        ),
    ]


def main(log: str, shards: str) -> dict[str, float]:
    """Read the log as an executor does, and deal the largest group's rows to its shards."""
    plan = _plan(int(shards))
    tasks = make_tasks(open_event_log(storage.to_uri(Path(log))), plan)
    sent, job = defaultdict[int, list[tuple[int, Block]]](list), Job(plan, code_of(plan))
    started = time.process_time()
    for number, made in read_part(job, [(-1, task) for task in tasks]):
        sent[number].append((number, made))
    seconds = time.process_time() - started
    del sent[-1]  # What was counted.
    contents = [content for blocks in sent.values() for _, (_, content) in blocks]
    num_rows = sum(len(pa.ipc.open_stream(each).read_all()) for each in contents)
    num_bytes = sum(map(len, contents))
    group = max(sent, key=lambda number: sum(len(content) for _, (_, content) in sent[number]))
    dealt = [0]

    def count(job: Job, shard: int, held: HeldRows) -> None:
        dealt[0] += sum(len(rows) for rows in vars(held.take(shard)).values() if rows)

    with mock.patch.object(executor, "_build", count):
        started = time.process_time()
        list(build_group(job, group, sent[group]))
        dealt_s = time.process_time() - started
    return {
        "rows_per_s": num_rows / seconds,
        "bytes_per_row": num_bytes / num_rows,
        "num_rows": num_rows,
        "dealt_per_s": dealt[0] / dealt_s,
        "num_dealt": dealt[0],
    }


def _plan(shards: int) -> SnapshotPlan:
    config = generated_config(ACTIONS)
    snapshot = config.snapshot.model_copy(update={"num_shards": shards})
    return plan_of(config.model_copy(update={"snapshot": snapshot}), GENERATED_AS_OF)
