"""What runs on the executors: a part of the first pass, and the second pass of a group of shards.

An error of ours is a result and no exception: Spark would try the task three more times, and then
tell of it inside a Java stack trace. The driver raises it, as it would be raised on one machine;
where it may pass, the stage is tried again. Not for the driver (`cluster`). Tested in
tests/production/spark.
"""

import functools
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipelines.contracts.code_identity import project_digest
from pipelines.contracts.errors import ConfigurationError, HomefeedError, as_ours
from pipelines.recipes.own_functions import source_digest
from pipelines.snapshot.kernel import build_shard
from pipelines.snapshot.plan import SnapshotPlan, shard_name
from pipelines.snapshot.shard import ShardSummary, write_shard
from pipelines.snapshot.spark.placing import ShardPlace
from pipelines.snapshot.spark.travel import Block, BlocksByShard, gathered, open_pin_index
from pipelines.snapshot.spill import (
    HeldRows,
    SpillSummary,
    SpillTask,
    deal_out,
    deal_rows,
    merge_summaries,
)

Value = TypeVar("Value")
MOST_GROUPS = 1024
"""Into so many streams a task deals its rows, at most: with few rows in each, streams would cost
more than rows. Of more shards than that several travel together."""
HELD_BYTES = 1 << 30
"""Of a group's rows; more wait on the executor's disk until their shard is built."""


@dataclass(frozen=True)
class Refusal:
    """An error of ours, and the number of the task or shard that it is about."""

    number: int
    error: HomefeedError


def shards_together(plan: SnapshotPlan) -> int:
    """Return how many shards, one after another, are a group."""
    return -(-plan.config.num_shards // MOST_GROUPS)


@dataclass(frozen=True)
class Job:
    """What every task knows; it crosses to the executors once for each task, and is small."""

    plan: SnapshotPlan
    code: Mapping[str, str]  # of the driver, as `code_of` says
    pins: str = ""  # name of the archive with the pins and what was counted about them
    place: ShardPlace | None = None  # of the shards


def code_of(plan: SnapshotPlan) -> dict[str, str]:
    """Return digests of the code that makes a snapshot's bytes, by what it is."""
    own = {each.name: source_digest(each.name) for each in plan.numeric if each.is_own}
    return {"this project": project_digest(), **own}


def read_part(
    job: Job, parts: Iterable[tuple[int, SpillTask]]
) -> Iterator[tuple[int, Block | SpillSummary | Refusal]]:
    """Do a part of the first pass.

    Args:
        job: what every task knows.
        parts: one as a rule: the number of the partition in which what was found comes together
            with that of other parts, and what is read.

    Gives:
        Blocks of rows with the number of their group, and what was found with its partition's.
    """
    for collector, task in parts:
        sink = BlocksByShard()
        deal = functools.partial(deal_out, task, sink.put, shards_together(job.plan))
        found = or_refusal(job, task.number, deal)
        yield from sink.take()
        yield collector, found


def merge_found(found: Iterable[SpillSummary | Refusal]) -> SpillSummary | Refusal:
    """Return what several tasks found, or the first task's refusal."""
    parts, refusals = list[SpillSummary](), list[Refusal]()
    for each in found:
        refusals.append(each) if isinstance(each, Refusal) else parts.append(each)
    return min(refusals, key=lambda each: each.number) if refusals else merge_summaries(parts)


def build_group(
    job: Job, group: int, pairs: Iterable[tuple[int, Block]]
) -> Iterator[tuple[str, ShardSummary] | Refusal]:
    """Do the second pass of a group's shards, whose rows come in any order.

    Gives:
        Which attempt at a shard it was, and the shard.
    """
    together = shards_together(job.plan)
    first, end = group * together, min((group + 1) * together, job.plan.config.num_shards)
    with tempfile.TemporaryDirectory() as spilled:
        held = HeldRows(Path(spilled), HELD_BYTES if together > 1 else sys.maxsize)

        def put_all() -> None:
            for table, rows in gathered(block for _, block in pairs):
                deal_rows(table, rows, job.plan, held.keep)

        if refused := or_refusal(job, first, put_all):
            yield refused
            return
        for shard in range(first, end):
            yield or_refusal(job, shard, functools.partial(_build, job, shard, held))


def _build(job: Job, shard: int, held: HeldRows) -> tuple[str, ShardSummary]:
    from pyspark import SparkFiles

    assert job.place is not None  # in the second pass
    pins = open_pin_index(Path(SparkFiles.get(job.pins)), job.plan)
    built = build_shard(held.take(shard), pins, job.plan)
    name = shard_name(shard)
    attempt = f"{name}-{uuid.uuid4().hex}"
    with job.place.receive(attempt) as folder:
        return attempt, write_shard(folder, name, built, job.plan)


def or_refusal(job: Job, number: int, act: Callable[[], Value]) -> Value | Refusal:
    """Return what an act returns, or its error where it is one of ours.

    An executor whose code may make other bytes than the driver's is refused.

    Raises:
        Exception: what is unforeseen; Spark gives it to the driver in the end.
    """
    try:
        here = code_of(job.plan)
        for name, digest in job.code.items():
            if here.get(name) != digest:
                raise ConfigurationError(
                    f"an executor of the Spark cluster has other code of {name} than the driver: "
                    f"digest {here.get(name, '')[:12]}, the driver's is {digest[:12]}; expected "
                    f"the same everywhere, because a snapshot's bytes depend on it; install the "
                    f"driver's version on the cluster's machines, and name its Python in "
                    f"PYSPARK_PYTHON"
                )
        return act()
    except Exception as error:
        if (ours := as_ours(error)) is None:
            raise
        return Refusal(number, ours)
