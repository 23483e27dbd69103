"""Whether the event log is still what a run's snapshot was built of, so that a mended log counts.

What the files read were belongs to the inputs of `build_snapshot`: their paths, sizes and times of
writing, which a listing tells. So a retry costs a listing of the folders. Only where that differs
are the footers of the new files looked at: rows that became known after as_of change no snapshot,
and neither do further pins of a log that does not say when it knew of pins.
Not for the listing itself (`pipelines.event_log.listing`). Tested in
tests/pipelines/stages/test_log_state.py.
"""

import logging
from collections.abc import Iterable
from datetime import datetime

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.base import digest_of
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.run_layout import listing_uri
from pipelines.contracts.schemas import PIN_TIME
from pipelines.event_log.listing import Listing, list_files
from pipelines.event_log.log_files import EventLog, LogFile, open_event_log
from pipelines.event_log.reader import open_file
from pipelines.snapshot.plan import make_plan
from pipelines.snapshot.spill import files_read
from pipelines.storage import open_filesystem

log = logging.getLogger(__name__)
State = dict[str, tuple[int, str]]
"""Size and time of writing of each file, by its path in the log."""


def digest_with_log(run: ResolvedRun, digest: str) -> str:
    """Return the digest of a stage's inputs and of the event log's state.

    Where the log cannot be listed its state is taken for empty: what was built of it stays, and who
    builds anew is told. What was built of a log that appeared only meanwhile is built again.
    """
    try:
        return _with(digest, _state_now(run))
    except DataContractError as error:
        log.warning("the event log is not compared with what was read of it: %s", error)
        return _with(digest, {})


def what_changed(run: ResolvedRun, recorded: str, digest: str) -> str:
    """Say how the log differs from what a manifest's snapshot was built of.

    Args:
        run: The run.
        recorded: The digest in the manifest.
        digest: Of the other inputs.

    Returns:
        A phrase; '' where nothing that the snapshot holds has changed.
    """
    try:
        listing = storage.read_model(listing_uri(run.run_uri), Listing)
    except (FileNotFoundError, DataContractError):
        return "what was read of the event log is not on record"
    before = {file.path: (file.num_bytes, _text(file.modified_at)) for file in listing.files}
    if recorded != _with(digest, before):
        return "the event log or another input has changed"
    try:
        now = _state_now(run)
    except DataContractError:
        return ""  # which `digest_with_log` has told
    added = _that_count(run, now.keys() - before.keys())
    groups = {
        "written again": {path for path in now.keys() & before.keys() if now[path] != before[path]},
        "new": added,
        "gone": before.keys() - now.keys(),
    }
    said = [f"{_names(paths)} {how}" for how, paths in groups.items() if paths]
    return f"the event log has changed: {'; '.join(said)}" if said else ""


def _names(paths: Iterable[str]) -> str:
    first, *others = sorted(paths)
    return f"{first} and {len(others)} more" if others else first


def _with(digest: str, state: State) -> str:
    return digest_of([digest, sorted(state.items())])


def _text(time: datetime | None) -> str:
    return "" if time is None else time.isoformat()


def _files_now(run: ResolvedRun) -> tuple[EventLog, dict[str, LogFile]]:
    """Return the log, and the files of which the run's snapshot is built, by path in the log."""
    plan, event_log = make_plan(run), open_event_log(run.event_log_uri)
    read = (*files_read(event_log, plan), event_log.files_of("pins"))
    _, root = open_filesystem(event_log.uri)
    return event_log, {
        file.path.removeprefix(root).lstrip("/"): file for files in read for file in files
    }


def _state_now(run: ResolvedRun) -> State:
    _, files = _files_now(run)
    return {path: (file.num_bytes, _text(file.modified_at)) for path, file in files.items()}


def _that_count(run: ResolvedRun, paths: set[str]) -> set[str]:
    """Return those of some new files whose rows may change the run's snapshot.

    They hold rows which were known before as_of. Pins without a time are left out: the snapshot was
    built, so each of its pins had its one row already, and a snapshot holds no other pins. A
    second row of one of them is for the next snapshot, or for a check of the log, to refuse.
    """
    event_log, files = _files_now(run)
    chosen = [files[path] for path in sorted(paths)]
    listing = list_files(event_log, chosen, make_plan(run).as_of_ms)
    known = [file for file in listing.files if file.num_known != 0]
    return {
        file.path
        for file in known
        if file.num_rows is None or not _has_timeless_pins(event_log, files[file.path])
    }


def _has_timeless_pins(event_log: EventLog, file: LogFile) -> bool:
    """Return whether a file with a sound footer is of pins of which it does not say when."""
    return file.table == "pins" and PIN_TIME.name not in open_file(event_log, file).schema.names
