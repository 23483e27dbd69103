"""Writes the immutable, content-addressed training and holdout set of one run.

There are two passes over the data. `spill` reads the event log once, checks it and deals its rows
out by shard; then `kernel` builds each shard from its users' rows. Both run over threads here, or
on a Spark cluster (`pipelines.snapshot.spark`), and the bytes depend on neither. Not for judging
the data: the data gate does.
"""

import functools
import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pipelines.contracts.artifacts import EventCounts, ResolvedRun, Snapshot
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.files import digest_file, digest_of_files, sync_file, sync_tree
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.contracts.schemas import PINS_FILE
from pipelines.contracts.snapshot_files import verify_files
from pipelines.contracts.time import Window
from pipelines.event_log.log_files import EventLog, open_event_log, unchanged_meanwhile
from pipelines.recipes.own_functions import require_unchanged
from pipelines.snapshot.features.count import contract_problems
from pipelines.snapshot.kernel import build_shard
from pipelines.snapshot.pins import count_pins
from pipelines.snapshot.plan import SnapshotPlan, plan_of, shard_name
from pipelines.snapshot.pool import (
    keeping_freed_memory,
    memory_budget_bytes,
    run_in_threads,
    usable_cores,
    workers_that_fit,
)
from pipelines.snapshot.shard import PinIndex, ShardRows, ShardSummary, write_shard
from pipelines.snapshot.spark.cluster import Cluster, chosen_cluster
from pipelines.snapshot.spill import (
    MEMORY_PER_BYTE,
    HeldRows,
    SpillSummary,
    SpillTask,
    deal_out,
    make_tasks,
    merge_as_they_come,
)
from pipelines.storage import (
    exclusive_lock,
    exists,
    join,
    local_copy,
    publish_folder,
    read_model,
    scratch_folder,
    translated_errors,
    write_model,
)

log = logging.getLogger(__name__)

_SHARE_OF_ROWS = 8
"""One part in so many of the memory may be rows that wait; the others are for working on them."""

_SHARE_KEPT_FREE = 32
"""One part in so many may be free and not given back to the kernel."""

PUBLISH_PATIENCE_S = 600.0
"""How long a builder waits for another one that publishes the same snapshot."""

_MEMORY_OF_SHARD = 4
"""Bytes of memory that building a shard takes for each byte of its rows."""


def write_snapshot(run: ResolvedRun, passed_over: tuple[str, ...] = ()) -> Snapshot:
    """Build and publish the snapshot of a run; the same content is published once.

    The result depends on the event log's rows known before as_of, on `config.features` and
    `config.snapshot`, and on as_of. It does not depend on the number of workers, on memory, the
    machine or the time of day. As many threads work as there are cores. Rows that do not fit into
    `memory_budget_bytes` wait in files, and fewer workers run at once then.

    Args:
        run: what was resolved.
        passed_over: action types beyond the recipe's that the log may have; they are left out.

    Returns:
        The published snapshot, at `<workspace>/snapshots/<first 16 digits of its digest>`.

    Raises:
        DataContractError: the event log is missing or breaks its contract, or a window is empty
            or holds no positives.
        ConfigurationError: the workspace cannot be written, or the recipe's own features are
            refused.
        TransientStorageError: the storage failed or is full, or a file was written while it was
            read.
        ProcessKilledError: a process or an executor was killed.
        TransientStorageError: a cluster builds snapshots here, and is out of reach.
    """
    plan = plan_of(run.config, run.as_of, passed_over)
    snapshots_uri = join(run.workspace_uri, "snapshots")
    return build_of(plan, run.event_log_uri, snapshots_uri)


def build_of(plan: SnapshotPlan, event_log_uri: str, snapshots_uri: str) -> Snapshot:
    """Build and publish the snapshot of a plan below a folder; see `write_snapshot`."""
    require_unchanged(plan.numeric)
    for problem in contract_problems(plan.numeric):
        raise ConfigurationError(problem)
    event_log = open_event_log(event_log_uri)
    check_covered(event_log, plan)
    memory_bytes = memory_budget_bytes()
    with (
        keeping_freed_memory(memory_bytes // _SHARE_KEPT_FREE),
        scratch_folder(snapshots_uri) as scratch,
        translated_errors(snapshots_uri, "building a snapshot in"),
        chosen_cluster(snapshots_uri, scratch) as cluster,
    ):
        spilled, out = scratch / "spilled", scratch / "out"
        for folder in (spilled, out):
            folder.mkdir()
        engine = cluster or _ThisMachine(memory_bytes, spilled)
        snapshot = _build(engine, event_log, plan, out, snapshots_uri)
        return publish(snapshot, out, engine.bring)


def _build(
    engine: "_ThisMachine | Cluster",
    event_log: EventLog,
    plan: SnapshotPlan,
    out: Path,
    snapshots_uri: str,
) -> Snapshot:
    """Do both passes, and return the manifest of the files."""
    tasks = make_tasks(event_log, plan)
    read = [file for task in tasks for file in task.files]
    with unchanged_meanwhile(event_log, [*read, *event_log.files_of("pins")]):
        found = engine.deal_out(tasks, plan)
        for name, span in plan.windows.items():
            if getattr(found.num_impressions, name) == 0:
                first, last = event_log.span("impressions")
                raise DataContractError(
                    f"no impressions known before as_of {plan.as_of:%Y-%m-%d} in the "
                    f"{_named(name, span)}: the event log at {event_log.uri} covers {first} to "
                    f"{last}; choose another as_of or check known_at"
                )
        pins = engine.count_pins(event_log, found, plan, out)
    shards, head = engine.build(plan, out), plan.features.main_head
    for name, span in plan.windows.items():
        if sum(getattr(shard.num_positives, name) for shard in shards) == 0:
            raise DataContractError(
                f"no impression in the {_named(name, span)} got a {head.action_type!r} within "
                f"{plan.config.label_window_hours} h; expected some positives of the main head "
                f"{head.name!r}; check that actions carry the request_id, user_id and pin_id of "
                f"their impressions"
            )
    files = (digest_file(out / PINS_FILE, out), *(file for shard in shards for file in shard.files))
    fits, digest = [shard.event_counts for shard in shards], digest_of_files(files)
    return Snapshot(
        uri=join(snapshots_uri, digest[:16]),
        digest=digest,
        as_of=plan.as_of,
        training=plan.training,
        holdout=plan.holdout,
        embedding_version=plan.config.embedding_version,
        features=plan.features,
        shards=tuple(shard.stats for shard in shards),
        num_pins=len(pins.pin_ids),
        files=files,
        num_duplicate_impressions=sum(shard.num_duplicate_impressions for shard in shards),
        num_immature_impressions=found.num_immature_impressions,
        num_cold_pins=pins.num_cold,
        event_counts=EventCounts(
            **{name: sum(getattr(f, name) for f in fits) for name in EventCounts.model_fields}
        ),
    )


class _ThisMachine:
    """The engine of one machine: threads that share rows and pins. A cluster has these methods."""

    def __init__(self, memory_bytes: int, spilled: Path) -> None:
        self._num_workers, self._memory_bytes = usable_cores(), memory_bytes
        self._held = HeldRows(spilled, memory_bytes // _SHARE_OF_ROWS)
        self._run_all = functools.partial(run_in_threads, num_workers=self._num_workers)
        self._pins: PinIndex | None = None

    def deal_out(self, tasks: Sequence[SpillTask], plan: SnapshotPlan) -> SpillSummary:
        """Do the first pass."""
        free = self._memory_bytes - self._memory_bytes // _SHARE_OF_ROWS
        most = max((sum(file.num_bytes for file in task.files) for task in tasks), default=0)
        readers = workers_that_fit(self._num_workers, free, most * MEMORY_PER_BYTE)
        read = functools.partial(deal_out, put=self._held.keep)
        parts = run_in_threads(read, tasks, readers, "event log parts")
        return merge_as_they_come(parts, self._run_all)

    def count_pins(
        self, event_log: EventLog, found: SpillSummary, plan: SnapshotPlan, out: Path
    ) -> PinIndex:
        """Write the pins, and keep what the second pass needs of them."""
        self._pins = count_pins(event_log, found, plan, out, self._run_all)
        return self._pins

    def build(self, plan: SnapshotPlan, out: Path) -> Sequence[ShardSummary]:
        """Do the second pass; the shards' files are in `out`, or where `bring` finds them."""
        assert self._pins is not None, "count_pins comes first"
        held, pins, written = self._held, self._pins, list[Future[None]]()
        free = max(0, self._memory_bytes - held.kept_bytes - pins.num_bytes)
        builders = workers_that_fit(self._num_workers, free, held.most_bytes * _MEMORY_OF_SHARD)
        # The disk takes a shard while the next ones are built. Publishing would wait for all.
        with ThreadPoolExecutor(1, thread_name_prefix="to-disk") as disk:
            written.append(disk.submit(sync_file, out / PINS_FILE))

            def make(shard: int) -> ShardSummary:
                name = shard_name(shard)
                folder, built = out / name, build_shard(held.take(shard), pins, plan)
                folder.mkdir()
                found = write_shard(folder, name, built, plan)
                written.append(disk.submit(sync_tree, folder))
                return found

            numbers = range(plan.config.num_shards)
            shards = list(run_in_threads(make, numbers, builders, "shards"))
            for each in written:
                each.result()
        return shards

    def bring(self, uri: str) -> None:
        """Bring to the snapshot what does not lie in `out`: nothing."""


def rows_of_one_shard(
    event_log: EventLog, plan: SnapshotPlan, folder: Path
) -> tuple[ShardRows, SpillSummary]:
    """Do the first pass of a plan of one shard in memory.

    Raises:
        DataContractError: a file breaks the contract.
    """
    held = HeldRows(folder / "spilled", sys.maxsize)
    read = functools.partial(deal_out, put=held.keep)
    tasks = make_tasks(event_log, plan)
    found = merge_as_they_come(run_in_threads(read, tasks, usable_cores()))
    return held.take(0), found


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
                f"whose windows lie in it, at most the day after {last}, or ingest newer data"
            )


def _named(name: str, window: Window) -> str:
    """Return a window's name and bounds, for a message."""
    return f"{name} window [{window.start:%Y-%m-%d %H:%M}, {window.end:%Y-%m-%d %H:%M})"


def publish(snapshot: Snapshot, files: Path, bring_others: Callable[[str], None]) -> Snapshot:
    """Publish a folder of files and then its manifest, unless the same content is there already.

    What lies elsewhere is brought first, by a function that is told the snapshot's URI.

    What is returned is the snapshot as it was built now. The files are the same, and the manifest
    that lies beside them may differ in what was left out, such as the number of repeated rows.

    Two builders of the same content take turns on a disk, and the second one finds the manifest of
    the first; on a store both write the same bytes. A folder without a manifest was left by a
    killed builder and is replaced, as is a folder whose files are not what its manifest says.

    Raises:
        RunInProgressError: another builder has published for longer than PUBLISH_PATIENCE_S.
    """
    manifest_uri = snapshot_manifest_uri(snapshot.uri)
    purpose = f"publishing snapshot {snapshot.digest[:16]}"
    with exclusive_lock(snapshot.uri, purpose, PUBLISH_PATIENCE_S):
        if exists(manifest_uri):
            try:
                read_model(manifest_uri, Snapshot)
                with local_copy(snapshot.uri) as folder:
                    verify_files(snapshot, folder)
                log.info("snapshot %s is already published", snapshot.digest[:16])
                return snapshot
            except DataContractError as error:
                log.warning("%s; what was built now takes its place", error)
        bring_others(snapshot.uri)
        publish_folder(files, snapshot.uri)
        write_model(manifest_uri, snapshot)
        log.info("published %s: %d examples", snapshot.uri, snapshot.num_examples)
        return snapshot
