"""Writes the immutable, content-addressed training and holdout set of one run.

There are two passes over the data. `spill` reads the event log once, checks it and deals its rows
out by shard; then `kernel` builds each shard from its users' rows. Both run over a pool of
processes here, or on a Spark cluster (`pipelines.snapshot.spark`), and the bytes depend on neither.
Not for judging the data: the data gate does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts.artifacts import EventCounts, FileDigest, ResolvedRun, Snapshot
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.time import Window
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.event_log.reader import check_nothing_from_the_future
from pipelines.snapshot.features.count import check_features
from pipelines.snapshot.kernel import build_shard
from pipelines.snapshot.pins import PinCounts, open_pin_index, write_pins
from pipelines.snapshot.plan import SnapshotPlan, WindowCounts, make_plan, shard_name
from pipelines.snapshot.pool import choose_num_workers, run_all
from pipelines.snapshot.publishing import publish
from pipelines.snapshot.shard import ShardRows, ShardSummary
from pipelines.snapshot.spark.choice import chosen_cluster
from pipelines.snapshot.spill import (
    SpillSummary,
    SpillTask,
    make_tasks,
    merge_summaries,
    read_spilled,
    run_task,
)
from pipelines.snapshot.tables import write_shard
from pipelines.storage import join, scratch_folder, translated_errors


@dataclass(frozen=True)
class ShardTask:
    """One shard for one worker."""

    shard: int
    plan: SnapshotPlan
    spilled: Path
    out: Path


def write_snapshot(
    run: ResolvedRun, num_workers: int | None = None, passed_over: tuple[str, ...] = ()
) -> Snapshot:
    """Build and publish the snapshot of a run; the same content is published once.

    The result depends on the event log's rows known before as_of, on `config.features` and
    `config.snapshot`, and on as_of. It does not depend on the number of workers, the machine or
    the time of day.

    Args:
        run: what was resolved.
        num_workers: processes; None takes the machine's cores, or one where the log is small.
        passed_over: action types beyond the recipe's that the log may have; they are left out.

    Returns:
        The published snapshot, at `<workspace>/snapshots/<first 16 digits of its digest>`.

    Raises:
        DataContractError: the event log is missing or breaks its contract, or a window is empty
            or holds no positives.
        ConfigurationError: the workspace cannot be written, or the recipe's own features are
            refused.
        TransientStorageError: the storage failed or is full.
        ProcessKilledError: a process or an executor was killed.
        SparkUnavailableError: a cluster builds snapshots here, and is out of reach.
    """
    plan = make_plan(run, passed_over)
    check_features(plan)
    event_log = open_event_log(run.event_log_uri)
    check_covered(event_log, plan)
    for table in ("impressions", "actions"):
        check_nothing_from_the_future(event_log, table, plan.as_of_ms)
    snapshots_uri = join(run.workspace_uri, "snapshots")
    with (
        scratch_folder(snapshots_uri) as scratch,
        translated_errors(snapshots_uri, "building a snapshot in"),
        chosen_cluster(snapshots_uri, scratch) as cluster,
    ):
        spilled, out = scratch / "spilled", scratch / "out"
        for folder in (spilled, out):
            folder.mkdir()
        spill_tasks = make_tasks(event_log, plan, spilled)
        engine = cluster or _ThisMachine(num_workers or choose_num_workers(spill_tasks))
        found = engine.deal_out(spill_tasks, plan)
        _check_impressions(found.num_impressions, event_log, plan)
        pins = write_pins(event_log, found, plan, out, spilled)
        shards = engine.build(plan, spilled, out)
        _check_positives(shards, plan)
        snapshot = _describe(snapshots_uri, plan, engine.digests(out), found, shards, pins)
        return publish(snapshot, out, engine.bring)


@dataclass(frozen=True)
class _ThisMachine:
    """The engine of one machine: a pool of processes. A cluster has the same methods."""

    num_workers: int

    def deal_out(self, tasks: Sequence[SpillTask], plan: SnapshotPlan) -> SpillSummary:
        """Do the first pass."""
        return merge_summaries(list(run_all(run_task, tasks, self.num_workers, "event log parts")))

    def build(self, plan: SnapshotPlan, spilled: Path, out: Path) -> Sequence[ShardSummary]:
        """Do the second pass; the shards' files are in `out`, or where `bring` finds them."""
        tasks = [ShardTask(shard, plan, spilled, out) for shard in range(plan.config.num_shards)]
        return list(run_all(build_shard_files, tasks, self.num_workers, "shards"))

    def digests(self, out: Path) -> tuple[FileDigest, ...]:
        """Return all files of the snapshot, sorted by path."""
        return digest_files(out)

    def bring(self, uri: str) -> None:
        """Bring to the snapshot what does not lie in `out`: nothing."""


def check_covered(event_log: EventLog, plan: SnapshotPlan) -> None:
    """Check that both windows touch days that the log covers.

    Raises:
        DataContractError: a window lies outside; the message says what the log covers.
    """
    first, last = event_log.span("impressions")
    for name, window in plan.windows.items():
        if not event_log.files_between("impressions", window.start_ms, window.end_ms):
            raise DataContractError(
                f"no impressions in the {_named(name, window)} of as_of {plan.as_of:%Y-%m-%d}: "
                f"the event log at {event_log.uri} covers {first} to {last}; choose an as_of "
                f"whose windows lie in it, or ingest newer data"
            )


def build_shard_files(task: ShardTask) -> ShardSummary:
    """Build one shard from its spilled rows and write its files.

    Raises:
        DataContractError: see `build_shard`.
        ConfigurationError: see `build_shard`.
    """
    tables = ("impressions", "actions", "users")
    rows = ShardRows(**{name: read_spilled(task.spilled, task.shard, name) for name in tables})
    built = build_shard(rows, open_pin_index(task.out, task.spilled, task.plan), task.plan)
    name = shard_name(task.shard)
    folder = task.out / name
    folder.mkdir()
    return write_shard(folder, name, built, task.plan)


def _check_impressions(
    num_impressions: WindowCounts, event_log: EventLog, plan: SnapshotPlan
) -> None:
    for name, window in plan.windows.items():
        if getattr(num_impressions, name) == 0:
            first, last = event_log.span("impressions")
            raise DataContractError(
                f"no impressions known before as_of {plan.as_of:%Y-%m-%d} in the "
                f"{_named(name, window)}: the event log at {event_log.uri} covers {first} to "
                f"{last}; choose another as_of or check known_at"
            )


def _check_positives(shards: Sequence[ShardSummary], plan: SnapshotPlan) -> None:
    head = plan.features.main_head
    for name, window in plan.windows.items():
        if sum(getattr(shard.num_positives, name) for shard in shards) == 0:
            raise DataContractError(
                f"no impression in the {_named(name, window)} got a {head.action_type!r} within "
                f"{plan.config.label_window_hours} h; expected some positives of the main head "
                f"{head.name!r}; check that actions carry the request_id, user_id and pin_id of "
                f"their impressions"
            )


def _named(name: str, window: Window) -> str:
    """Return a window's name and bounds, for a message."""
    return f"{name} window [{window.start:%Y-%m-%d %H:%M}, {window.end:%Y-%m-%d %H:%M})"


def _sum(parts: Sequence[EventCounts]) -> EventCounts:
    names = EventCounts.model_fields
    return EventCounts(**{name: sum(getattr(part, name) for part in parts) for name in names})


def _describe(
    snapshots_uri: str,
    plan: SnapshotPlan,
    files: tuple[FileDigest, ...],
    found: SpillSummary,
    shards: Sequence[ShardSummary],
    pins: PinCounts,
) -> Snapshot:
    """Return the manifest of the files."""
    digest = digest_of_files(files)
    return Snapshot(
        uri=join(snapshots_uri, digest[:16]),
        digest=digest,
        as_of=plan.as_of,
        training=plan.training,
        holdout=plan.holdout,
        embedding_version=plan.config.embedding_version,
        features=plan.features,
        shards=tuple(shard.stats for shard in shards),
        num_pins=pins.num_pins,
        files=files,
        num_duplicate_impressions=sum(shard.num_duplicate_impressions for shard in shards),
        num_immature_impressions=found.num_immature_impressions,
        num_cold_pins=pins.num_cold,
        event_counts=_sum([shard.event_counts for shard in shards]),
    )
