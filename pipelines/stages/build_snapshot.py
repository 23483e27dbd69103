"""`build_snapshot`: the training and the holdout set of the run, from the event log."""

from pipelines.contracts.artifacts import ResolvedRun, Snapshot


def build_snapshot(run: ResolvedRun) -> Snapshot:
    """Write the snapshot of the run, or find the same content published by an earlier run.

    The snapshot lies beside the runs and is named by its content, so this stage has no folder for
    files of its own.

    Raises:
        DataContractError: the event log is missing or breaks its contract, the windows are empty
            or hold no positives.
    """
    from pipelines.snapshot.build import write_snapshot

    return write_snapshot(run)
