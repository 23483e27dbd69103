"""`build_snapshot`: the immutable, content-addressed training and holdout set of one run.

Two passes: the event log is read once, checked and dealt out by shard (`snapshot_spill`); then one
kernel (`snapshot_kernel`) builds each shard from its users' rows. Both run over a pool of
processes here; the bytes do not depend on how many. Not for judging the data: the data gate does.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.contracts.artifacts import ResolvedRun, ShardStats, Snapshot
from pipelines.contracts.base import digest_of
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.contracts.schemas import label_column
from pipelines.contracts.snapshot_files import open_table
from pipelines.event_log.reader import EventLog, check_nothing_from_the_future, open_event_log
from pipelines.snapshot.features import trailing_popularity
from pipelines.snapshot.kernel import PinIndex, ShardRows, build_shard
from pipelines.snapshot.pins import read_pins
from pipelines.snapshot.plan import SnapshotPlan, make_plan, shard_name
from pipelines.snapshot.pool import choose_num_workers, run_all
from pipelines.snapshot.spill import (
    SpillSummary,
    SpillTask,
    make_tasks,
    merge_summaries,
    read_spilled,
    run_task,
)
from pipelines.snapshot.tables import write_arrow
from pipelines.storage import (
    exclusive_lock,
    exists,
    join,
    publish_folder,
    read_model,
    scratch_folder,
    translated_errors,
    write_model,
)

log = logging.getLogger(__name__)

PUBLISH_PATIENCE_S = 600.0
_POPULARITY = "popularity.arrow"


@dataclass(frozen=True)
class ShardTask:
    """One shard for one worker."""

    shard: int
    plan: SnapshotPlan
    spilled: Path
    out: Path


@dataclass(frozen=True)
class ShardSummary:
    """What was counted in one shard."""

    stats: ShardStats
    num_duplicate_impressions: int
    num_positives: tuple[int, int]  # target head: training, holdout


def build_snapshot(run: ResolvedRun, num_workers: int | None = None) -> Snapshot:
    """Build and publish the snapshot of a run; the same content is published once.

    The result depends on the event log's rows known before as_of, on `config.features` and
    `config.snapshot`, and on as_of; not on the number of workers, the machine or the time of day.

    Args:
        run: what was resolved.
        num_workers: processes; None takes the machine's cores, or one where the log is small.

    Returns:
        The published snapshot, at `<workspace>/snapshots/<first 16 digits of its digest>`.

    Raises:
        DataContractError: the event log is missing or breaks its contract, the windows are empty
            or hold no positives.
        ConfigurationError: the workspace cannot be written.
        TransientStorageError: the storage failed or is full.
    """
    plan = make_plan(run)
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
        tasks = make_tasks(event_log, plan, spilled)
        workers = num_workers or choose_num_workers(tasks)
        found = _deal_out(tasks, event_log, plan, workers)
        num_pins = _write_pins(event_log, found, plan, spilled, out)
        shard_tasks = [ShardTask(n, plan, spilled, out) for n in range(plan.config.num_shards)]
        shards = list(run_all(build_shard_files, shard_tasks, workers, "shards"))
        _check_positives(shards, plan)
        snapshot = _describe(snapshots_uri, plan, out, (found, shards, num_pins))
        return _publish(snapshot, out)


def check_covered(event_log: EventLog, plan: SnapshotPlan) -> None:
    """Check that both windows touch days that the log covers.

    Raises:
        DataContractError: a window lies outside; the message says what the log covers.
    """
    first, last = event_log.span("impressions")
    for name, window in (("training", plan.training), ("holdout", plan.holdout)):
        if not event_log.files_between("impressions", window.start_ms, window.end_ms):
            raise DataContractError(
                f"no impressions in the {name} window [{window.start:%Y-%m-%d %H:%M}, "
                f"{window.end:%Y-%m-%d %H:%M}) of as_of {plan.as_of:%Y-%m-%d}: the event log at "
                f"{event_log.uri} covers {first} to {last}; choose an as_of whose windows lie in "
                f"it, or ingest newer data"
            )


def build_shard_files(task: ShardTask) -> ShardSummary:
    """Build one shard from its spilled rows and write its files.

    Raises:
        DataContractError: see `build_shard`.
    """
    tables = ("impressions", "actions", "users")
    rows = ShardRows(*(read_spilled(task.spilled, task.shard, table) for table in tables))
    popularity = open_table(task.spilled, _POPULARITY)
    pins = PinIndex(
        pin_ids=np.asarray(open_table(task.out, "pins.arrow")["pin_id"]),
        popularity_keys=np.asarray(popularity["key"]),
        popularity_totals=np.asarray(popularity["total"]),
    )
    built = build_shard(rows, pins, task.plan)
    folder = task.out / shard_name(task.shard)
    folder.mkdir()
    for name in ("timeline", "requests", "examples", "users"):
        write_arrow(folder / f"{name}.arrow", getattr(built, name))
    label = np.asarray(built.examples[label_column(task.plan.features.head_names[0])])
    is_holdout = np.repeat(
        np.asarray(built.requests["split"]), np.asarray(built.requests["num_examples"])
    )
    stats = ShardStats(
        name=shard_name(task.shard),
        num_users=len(np.unique(np.asarray(built.requests["user_id"]))),
        num_actions=len(built.timeline),
        num_requests=len(built.requests),
        num_examples=len(built.examples),
    )
    positives = (int(label[is_holdout == 0].sum()), int(label[is_holdout == 1].sum()))
    return ShardSummary(stats, built.num_duplicate_impressions, positives)


def _deal_out(
    tasks: list[SpillTask], event_log: EventLog, plan: SnapshotPlan, num_workers: int
) -> SpillSummary:
    """Run the first pass and check that both windows have impressions."""
    found = merge_summaries(list(run_all(run_task, tasks, num_workers, "event log parts")))
    counts = (
        ("training", plan.training, found.num_training_impressions),
        ("holdout", plan.holdout, found.num_holdout_impressions),
    )
    for name, window, count in counts:
        if count == 0:
            first, last = event_log.span("impressions")
            raise DataContractError(
                f"no impressions known before as_of {plan.as_of:%Y-%m-%d} in the {name} window "
                f"[{window.start:%Y-%m-%d %H:%M}, {window.end:%Y-%m-%d %H:%M}): the event log at "
                f"{event_log.uri} covers {first} to {last}; choose another as_of or check known_at"
            )
    return found


def _write_pins(
    event_log: EventLog, found: SpillSummary, plan: SnapshotPlan, spilled: Path, out: Path
) -> int:
    """Write pins.arrow and, for the kernel, each pin's popularity per day; return the pin count.

    The Arrow schema of pins.arrow carries what the codes, columns and windows mean. So the
    digest over the files is also a digest over their meaning: two configurations never share a
    snapshot by accident of equal bytes.
    """
    pins = read_pins(event_log, found.pin_ids, plan.config.embedding_version, plan.features)
    meaning = {
        "as_of": plan.as_of.isoformat(),
        "features": plan.features.model_dump(mode="json"),
        "snapshot": plan.config.model_dump(mode="json"),
    }
    described = pins.replace_schema_metadata({"meaning": digest_of(meaning)})
    write_arrow(out / "pins.arrow", described)
    keys, totals = trailing_popularity(
        found.wanted_actions, found.pin_ids, plan.request_days, plan.config.popularity_days
    )
    spilled.mkdir(exist_ok=True)
    write_arrow(spilled / _POPULARITY, pa.table({"key": keys, "total": totals}))
    return len(pins)


def _check_positives(shards: list[ShardSummary], plan: SnapshotPlan) -> None:
    head = plan.features.heads[0]
    for index, (name, window) in enumerate(
        (("training", plan.training), ("holdout", plan.holdout))
    ):
        if sum(shard.num_positives[index] for shard in shards) == 0:
            raise DataContractError(
                f"no impression in the {name} window [{window.start:%Y-%m-%d %H:%M}, "
                f"{window.end:%Y-%m-%d %H:%M}) got a {head.action_type!r} within "
                f"{plan.config.label_window_hours} h; expected some positives of the target head "
                f"{head.name!r}; check that actions carry the request_id, user_id and pin_id of "
                f"their impressions"
            )


def _describe(
    snapshots_uri: str,
    plan: SnapshotPlan,
    out: Path,
    counts: tuple[SpillSummary, list[ShardSummary], int],
) -> Snapshot:
    found, shards, num_pins = counts
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
        num_pins=num_pins,
        files=files,
        num_duplicate_impressions=sum(shard.num_duplicate_impressions for shard in shards),
        num_immature_impressions=found.num_immature_impressions,
    )


def _publish(snapshot: Snapshot, out: Path) -> Snapshot:
    """Publish the folder, then its manifest; or return what somebody published before.

    Two builders of the same content take turns: the second one finds the first one's manifest. A
    folder without a manifest was left by a killed builder and is replaced.
    """
    manifest_uri = snapshot_manifest_uri(snapshot.uri)
    purpose = f"publishing snapshot {snapshot.digest[:16]}"
    with exclusive_lock(snapshot.uri, purpose, PUBLISH_PATIENCE_S):
        if exists(manifest_uri):
            log.info("snapshot %s is already published", snapshot.digest[:16])
            return read_model(manifest_uri, Snapshot)
        publish_folder(out, snapshot.uri)
        write_model(manifest_uri, snapshot)
        log.info("published %s: %d examples", snapshot.uri, snapshot.num_examples)
        return snapshot
