"""The driver's side: both passes as jobs of one Spark application.

The first pass is a map over parts of the event log, whose blocks Spark shuffles by group of shards.
The shuffle has a partition for each group, and more in which the parts' summaries come together.
Asking for the latter runs the map; asking for the former, when the pins are known, finds the
shuffled blocks. What a lost executor had is read again by Spark itself.

The rows never come to the driver, nor do the shards' files: an executor writes them where `placing`
says. Not for the computations, which are those of one machine (`executor`).
"""

import contextlib
import dataclasses
import functools
import logging
import math
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.contracts.artifacts import FileDigest
from pipelines.contracts.schemas import PINS_FILE
from pipelines.event_log.log_files import EventLog
from pipelines.snapshot.pins import count_pins
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import PinIndex, ShardSummary
from pipelines.snapshot.spark.executor import (
    Job,
    Refusal,
    build_group,
    code_of,
    merge_found,
    read_part,
    shards_together,
)
from pipelines.snapshot.spark.mapping import chosen_spark
from pipelines.snapshot.spark.placing import ShardPlace, place_for_shards
from pipelines.snapshot.spark.session import translated_spark_errors
from pipelines.snapshot.spark.travel import write_pin_index
from pipelines.snapshot.spill import SpillSummary, SpillTask

log = logging.getLogger(__name__)


@contextlib.contextmanager
def chosen_cluster(snapshots_uri: str, scratch: Path) -> Iterator["Cluster | None"]:
    """Give a connection to Spark if HOMEFEED_SPARK_OPTIONS has any, else None.

    It is the deployment that chooses, and neither the recipe nor the run: the bytes are the same,
    so a cycle that was begun here can be ended there. Nothing of Spark is imported where it is not
    chosen.

    Args:
        snapshots_uri: where snapshots lie.
        scratch: the driver's scratch folder.

    Raises:
        ConfigurationError: Spark is chosen, and PySpark or Java is missing.
        TransientStorageError: the cluster is out of reach.
    """
    with chosen_spark() as context:
        if context is None:
            yield None
            return
        with place_for_shards(snapshots_uri, scratch) as place:
            yield Cluster(context, place, scratch)


class Cluster:
    """A Spark application that builds one snapshot."""

    def __init__(self, context: Any, place: ShardPlace, scratch: Path) -> None:
        self._context, self._place = context, place
        # Every executor fetches the pins once, and finds them in a folder of this name.
        self._archive = scratch / f"homefeed-{uuid.uuid4().hex}.zip"
        self._shuffled: Any = None
        self._files: tuple[FileDigest, ...] = ()
        self._attempts = dict[str, str]()  # the one that counts, by shard

    def deal_out(self, tasks: Sequence[SpillTask], plan: SnapshotPlan) -> SpillSummary:
        """Do the first pass.

        Raises:
            HomefeedError: of several parts that are refused, the error of the first one.
            ProcessKilledError: executors died again and again.
            TransientStorageError: the connection to the cluster broke.
        """
        # What tasks of the same days found of a pin on a day becomes one row where it comes
        # together, and crosses to the driver once.
        num_groups, together = _num_groups(plan), max(1, math.isqrt(len(tasks)))
        # A task knows its own files only: with all of them, tasks would grow as tasks squared.
        parts = [
            (
                num_groups + task.place // together,
                dataclasses.replace(task, event_log=EventLog(task.event_log.uri, task.files)),
            )
            for task in tasks
        ]
        job = Job(plan, code_of(plan))
        log.info("%d event log parts go to Spark", len(tasks))
        with translated_spark_errors("reading the event log on Spark"):
            given = self._context.parallelize(parts, max(1, len(parts)))
            read = given.mapPartitions(functools.partial(read_part, job))
            num_partitions = num_groups + math.ceil(len(tasks) / together)
            self._shuffled = read.partitionBy(num_partitions, int)
            merged = self._shuffled.mapPartitions(lambda pairs: [merge_found(f for _, f in pairs)])
            collected = self._run(merged, range(num_groups, num_partitions))
        found = merge_found(collected)
        if isinstance(found, Refusal):
            raise found.error
        return found

    def count_pins(
        self, event_log: EventLog, found: SpillSummary, plan: SnapshotPlan, out: Path
    ) -> PinIndex:
        """Write the pins, and what the executors need of them, into the driver's folders.

        Raises:
            DataContractError: see `read_pins`.
        """
        index = count_pins(event_log, found, plan, out)
        write_pin_index(index, out / PINS_FILE, self._archive)
        return index

    def build(self, plan: SnapshotPlan, out: Path) -> Sequence[ShardSummary]:
        """Do the second pass; the shards' files are where the executors put them.

        Raises:
            HomefeedError: of several shards that are refused, the error of the first one.
            ConfigurationError: the executors do not see the driver's folder.
            ProcessKilledError: executors died again and again.
            TransientStorageError: the connection to the cluster broke.
        """
        job = Job(plan, code_of(plan), self._archive.name, self._place)
        log.info("%d shards go to Spark", plan.config.num_shards)
        with translated_spark_errors("building shards on Spark"):
            self._context.addArchive(str(self._archive))
            shards = self._shuffled.mapPartitionsWithIndex(functools.partial(build_group, job))
            built = list[ShardSummary]()
            for made in self._run(shards, range(_num_groups(plan))):
                if isinstance(made, Refusal):
                    raise made.error
                attempt, summary = made
                self._attempts[summary.stats.name] = attempt
                built.append(summary)
        self._files = tuple(file for shard in built for file in shard.files)
        return built

    def bring(self, uri: str) -> None:
        """Bring to the snapshot what does not lie in the driver's folder."""
        self._place.bring(self._files, self._attempts, uri)

    def _run(self, rdd: Any, partitions: range) -> list[Any]:
        return list(self._context.runJob(rdd, list, list(partitions)))


def _num_groups(plan: SnapshotPlan) -> int:
    return -(-plan.config.num_shards // shards_together(plan))
