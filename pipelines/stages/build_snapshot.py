"""`build_snapshot`: the training and the holdout set of the run, from the event log.

<run>/build_snapshot/event_log.json    a Listing: what the files of the event log were
<run>/build_snapshot/log/...           what the data gate says of the log (`pipelines.log_days`)

The snapshot itself lies outside the run; the artifact `Snapshot` draws its files. Not for making
them: that is the room `pipelines.snapshot`.
"""

from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.run_layout import listing_uri

if TYPE_CHECKING:
    from pipelines.event_log.listing import Listing


def build_snapshot(run: ResolvedRun) -> Snapshot:
    """Write the snapshot of the run, or find the same content published by an earlier run.

    The snapshot lies beside the runs and is named by its content. What the event log's files were
    lies in the run, because another log may give the same snapshot; whoever rebuilds the run later
    learns from it which partitions were written since.

    Raises:
        DataGateFailedError: the data gate refuses the event log; nothing is built.
        DataContractError: the event log is missing or breaks its contract, the windows are empty
            or hold no positives.
        RunInProgressError: another process builds the snapshot of this run.
    """
    from pipelines.log_days.judging import judge_event_log
    from pipelines.snapshot.build import write_snapshot

    # The listing comes first: a file that is written while the snapshot is built is not as listed.
    listed_at = listing_uri(run.run_uri)
    seen = storage.look(listed_at)
    storage.write_over(listed_at, list_event_log(run), seen)
    judge_event_log(run)
    return write_snapshot(run)


def list_event_log(run: ResolvedRun) -> "Listing":
    """Return what the files are by now of which the run's snapshot is built.

    Raises:
        DataContractError: the event log is missing or lacks a table.
        TransientStorageError: the storage failed.
    """
    from pipelines.event_log.listing import list_files
    from pipelines.event_log.log_files import open_event_log
    from pipelines.snapshot.plan import make_plan
    from pipelines.snapshot.spill import files_read

    plan, event_log = make_plan(run), open_event_log(run.event_log_uri)
    read = (*files_read(event_log, plan), event_log.files_of("pins"))
    return list_files(event_log, [file for files in read for file in files], plan.as_of_ms)
