"""`build_snapshot`: the training and the holdout set of the run, from the event log.

<run>/build_snapshot/event_log.json    a Listing: what the files of the event log were
<run>/build_snapshot/log/...           what the data gate says of the log (`pipelines.log_days`)

The snapshot itself lies outside the run; the artifact `Snapshot` draws its files. Not for making
them: that is the room `pipelines.snapshot`.
"""

import logging
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.errors import DataContractError, RunInProgressError
from pipelines.contracts.run_layout import listing_uri

if TYPE_CHECKING:
    from pipelines.event_log.log_files import EventLog, LogFile

log = logging.getLogger(__name__)


def build_snapshot(run: ResolvedRun) -> Snapshot:
    """Write the snapshot of the run, or find the same content published by an earlier run.

    The snapshot lies beside the runs and is named by its content. What the event log's files were
    lies in the run, because another log may give the same snapshot; whoever rebuilds the run later
    learns from it which partitions were written since.

    Raises:
        DataGateFailedError: the data gate refuses the event log; nothing is built.
        DataContractError: the event log is missing or breaks its contract, the windows are empty
            or hold no positives.
        RunInProgressError: another attempt has listed the log anew meanwhile.
    """
    from pipelines.event_log.reader import list_files
    from pipelines.log_days.judging import judge_event_log
    from pipelines.snapshot.build import write_snapshot
    from pipelines.snapshot.plan import plan_of
    from pipelines.snapshot.spark.mapping import chosen_spark

    # The listing comes first: a file that is written while the snapshot is built is not as listed.
    listed_at = listing_uri(run.run_uri)
    seen = storage.look(listed_at)
    event_log, files = _files_now(run)
    as_of_ms = plan_of(run.config, run.as_of).as_of_ms
    listing = list_files(event_log, [*files.values()], as_of_ms)
    ours = storage.write_over(listed_at, listing, seen)
    with chosen_spark():  # One application for both.
        judge_event_log(run)
        snapshot = write_snapshot(run)
    if storage.look(listed_at) != ours:
        raise RunInProgressError(
            f"{listed_at} was written by another attempt since this one began; expected this "
            f"one's; run the stage again"
        )
    return snapshot


def has_log_changed(run: ResolvedRun) -> bool:
    """Return whether the event log differs from what the run's snapshot was built of.

    Paths, sizes and times of writing are compared, which a listing of the folders tells. Where the
    log cannot be listed, or nothing is on record, what was built of it stays.
    """
    from pipelines.event_log.reader import Listing

    if (listing := storage.find_model(listing_uri(run.run_uri), Listing)) is None:
        return False
    before = {(file.path, file.num_bytes, file.modified_at) for file in listing.files}
    try:
        _, files = _files_now(run)
    except DataContractError as error:
        log.warning("the event log is not compared with what was read of it: %s", error)
        return False
    return before != {(path, file.num_bytes, file.modified_at) for path, file in files.items()}


def _files_now(run: ResolvedRun) -> "tuple[EventLog, dict[str, LogFile]]":
    """Return the log, and the files of which the run's snapshot is built, by path in the log."""
    from pipelines.event_log.log_files import open_event_log
    from pipelines.snapshot.plan import plan_of
    from pipelines.snapshot.spill import files_read

    event_log = open_event_log(run.event_log_uri)
    read = (*files_read(event_log, plan_of(run.config, run.as_of)), event_log.files_of("pins"))
    _, root = storage.open_filesystem(event_log.uri)
    return event_log, {
        file.path.removeprefix(root).lstrip("/"): file for files in read for file in files
    }
