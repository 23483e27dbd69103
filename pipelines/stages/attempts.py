"""What stands around an attempt at a stage: its lease, a failure's note, and the files it leaves.

Not for what an attempt does and publishes (`pipelines.stages.runner`). Tested in
tests/pipelines/stages/test_runner.py.
"""

import contextlib
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from pipelines import storage
from pipelines.contracts.errors import (
    DataGateFailedError,
    HomefeedError,
    LostRaceError,
    RunInProgressError,
    as_ours,
)
from pipelines.contracts.run_layout import StageFailure, failure_uri, lost_race_uri, stage_lease_uri
from pipelines.places.lease import Lease

log = logging.getLogger(__name__)
_OUTPUT_NAME = re.compile(r"output-(?:(\d{8,})-)?[0-9a-f]{8}")
"""A folder of one attempt; older ones have no number."""


@contextlib.contextmanager
def only_one(stage: str, run_uri: str, wait_s: float = 0.0) -> Iterator[Lease]:
    """Hold the stage's lease. An attempt that does not get it, or loses it, says so for the alert.

    A promotion on an object store holds none, so that nobody waits for one that was killed: its
    entry of the history and its manifest are created only if they are absent.

    Raises:
        LostRaceError: another process runs the same stage, and tells how it ends.
        RunInProgressError: another place is held; `noting_failure` has noted it.
    """
    uri = stage_lease_uri(run_uri, stage)
    lease = None
    if stage == "promote_challenger" and not storage.is_local(run_uri):
        yield Lease(uri, stage, 0)
        return
    try:
        with storage.exclusive_lock(uri, f"{stage} of {run_uri}", wait_s) as lease:
            yield lease
    except RunInProgressError as error:
        if lease is not None and not lease.is_lost:
            raise
        lost = LostRaceError(str(error))
        note_failure(lost_race_uri(run_uri, stage), stage, lost)
        raise lost from error


@contextlib.contextmanager
def noting_failure(stage: str, run_uri: str) -> Iterator[None]:
    """Leave what the block raises in `failure.json`, for the alert.

    What an earlier attempt left is removed first: where this one is killed, that is not the reason.
    """
    for uri in (failure_uri(run_uri, stage), lost_race_uri(run_uri, stage)):
        storage.remove(uri)
    try:
        yield
    except Exception as error:
        ours = as_ours(error, run_uri)
        note_failure(failure_uri(run_uri, stage), stage, ours or error, raised_by(error))
        if ours is None or ours is error:
            raise
        raise ours from error


def note_failure(uri: str, stage: str, error: Exception, raised_by: str = "") -> None:
    """Write down why an attempt failed. A second failure while writing must not hide the first."""
    exit_code, is_retryable = HomefeedError.exit_code, True
    if isinstance(error, HomefeedError):
        exit_code, is_retryable = error.exit_code, error.is_retryable
    failure = StageFailure(
        stage=stage,
        error_class=type(error).__name__,
        message=str(error),
        exit_code=exit_code,
        is_retryable=is_retryable,
        occurred_at=datetime.now(UTC),
        acceptable=error.acceptable if isinstance(error, DataGateFailedError) else (),
        docs_uri=error.docs_uri if isinstance(error, DataGateFailedError) else "",
        raised_by=raised_by,
        about=error.about if isinstance(error, HomefeedError) else (),
    )
    try:
        storage.write_model(uri, failure)
    except HomefeedError as second:
        log.warning("could not note the failure of %s: %s", stage, second)


def raised_by(error: BaseException) -> str:
    """Return the innermost function of ours that raised an error, or ''."""
    found, frame = "", error.__traceback__
    while frame is not None:
        code, module = frame.tb_frame.f_code, frame.tb_frame.f_globals.get("__name__", "")
        if module.partition(".")[0] in ("pipelines", "training", "validation"):
            found = f"{module}.{code.co_qualname}"
        frame = frame.tb_next
    return found


def tidy(stage: str, run_uri: str, keep: str, number: int) -> None:
    """Remove the files of attempts that published nothing.

    Args:
        stage: Its name.
        run_uri: The run folder.
        keep: Name of the output folder that stays, or how its name begins.
        number: Our own lease. A higher one is that of an attempt which began after this one: what
            that attempt has made is left alone.
    """
    folder = storage.join(run_uri, stage)
    for name in storage.list_names(folder):
        found = _OUTPUT_NAME.fullmatch(name)
        if found and not name.startswith(keep) and int(found[1] or 0) <= number:
            storage.remove(storage.join(folder, name))
