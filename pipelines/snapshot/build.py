"""Writes the immutable, content-addressed training and holdout set of one run.

There are two passes over the data. `spill` reads the event log once, checks it and deals its rows
out by shard; then `kernel` builds each shard from its users' rows. Here both run over a pool of
processes, and the bytes do not depend on how many. Not for judging the data: the data gate does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.contracts.artifacts import EventCounts, ResolvedRun, ShardStats, Snapshot
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.schemas import SHARD_FILES, SPLIT_HOLDOUT, SPLIT_TRAINING, label_column
from pipelines.contracts.time import Window
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.event_log.reader import check_nothing_from_the_future
from pipelines.snapshot.features.count import check_features
from pipelines.snapshot.kernel import build_shard
from pipelines.snapshot.pins import PinCounts, count_pins
from pipelines.snapshot.plan import SnapshotPlan, WindowCounts, make_plan, shard_name
from pipelines.snapshot.pool import run_in_threads, usable_cores
from pipelines.snapshot.publishing import publish
from pipelines.snapshot.shard import PinIndex, ShardRows, ShardTables
from pipelines.snapshot.spill import (
    SpillSummary,
    make_tasks,
    merge_summaries,
    read_spilled,
    run_task,
)
from pipelines.snapshot.tables import write_arrow
from pipelines.storage import join, scratch_folder, translated_errors


@dataclass(frozen=True)
class ShardTask:
    """One shard for one worker."""

    shard: int
    plan: SnapshotPlan
    pins: PinIndex
    spilled: Path
    out: Path


@dataclass(frozen=True)
class ShardSummary:
    """What was counted in one shard."""

    stats: ShardStats
    num_duplicate_impressions: int
    num_positives: WindowCounts  # of the main head
    event_counts: EventCounts


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
    ):
        spilled, out = scratch / "spilled", scratch / "out"
        out.mkdir()
        spill_tasks = make_tasks(event_log, plan, spilled)
        workers = num_workers or usable_cores()
        found = merge_summaries(
            list(run_in_threads(run_task, spill_tasks, workers, "event log parts"))
        )
        _check_impressions(found.num_impressions, event_log, plan)
        counts, pins = count_pins(event_log, found, plan, out)
        shard_tasks = [
            ShardTask(n, plan, pins, spilled, out) for n in range(plan.config.num_shards)
        ]
        shards = list(run_in_threads(build_shard_files, shard_tasks, workers, "shards"))
        _check_positives(shards, plan)
        return publish(_describe(snapshots_uri, plan, out, found, shards, counts), out)


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
    built = build_shard(rows, task.pins, task.plan)
    folder = task.out / shard_name(task.shard)
    folder.mkdir()
    for name in SHARD_FILES:
        write_arrow(folder / f"{name}.arrow", getattr(built, name))
    stats = ShardStats(
        name=shard_name(task.shard),
        num_users=len(np.unique(np.asarray(built.requests["user_id"]))),
        num_actions=len(built.timeline),
        num_requests=len(built.requests),
        num_examples=len(built.examples),
    )
    num_positives = _count_positives(built, task.plan.features.main_head.name)
    duplicates = built.num_duplicate_impressions
    return ShardSummary(stats, duplicates, num_positives, built.event_counts)


def _count_positives(built: ShardTables, head_name: str) -> WindowCounts:
    label = np.asarray(built.examples[label_column(head_name)])
    splits, num_examples = (np.asarray(built.requests[n]) for n in ("split", "num_examples"))
    split = np.repeat(splits, num_examples)
    return WindowCounts(
        training=int(label[split == SPLIT_TRAINING].sum()),
        holdout=int(label[split == SPLIT_HOLDOUT].sum()),
    )


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
    out: Path,
    found: SpillSummary,
    shards: Sequence[ShardSummary],
    pins: PinCounts,
) -> Snapshot:
    """Return the manifest of the files in `out`."""
    files = digest_files(out)
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
