"""To when an event log is complete: before that, what did not happen has not only not arrived.

A label is 0 where nothing was done within the label window. Of days that the log does not have yet,
that would be said of every impression, so nothing is trained or judged beyond this instant. A
writer that knows it keeps it in the log's record. Of any other log it is the end of the last day of
impressions, or the last event where that day was cut. Not for what a window needs. Tested in
tests/pipelines/event_log/test_completeness.py.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pyarrow.compute as pc

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.time import DAY_MS, HOUR_MS, floor_to_day
from pipelines.event_log.log_files import EPOCH, EventLog
from pipelines.event_log.reader import iterate_batches, open_file
from pipelines.event_log.rules import EVENT_TIME_COLUMNS

DAYS_BEFORE, FEWEST_DAYS = 7, 3
"""So many days before the last one say when a day's last event comes; with fewer nobody knows."""
LEAST_CUT_MS, TIMES_SPREAD = HOUR_MS, 2
"""A last day is cut where it ends before the earliest of these ends, by more than an hour and more
than twice as far as they are apart. Taken as the last one, 3 of 1,188 days of the retail sample and
of five worlds look so that are whole; the sample's own last day is cut at 04:01 UTC, and is told.
"""


class Complete(NamedTuple):
    """To when a log is complete, and how that is known."""

    to: datetime
    by_writer: bool = False
    cut_at: datetime | None = None  # the last event of a last day that was cut
    usual: str = ""  # when the earliest of the days before ended, such as 23:50

    @property
    def as_of(self) -> datetime:
        """The newest day as of which a cycle has all of its labels."""
        return floor_to_day(self.to)

    @property
    def told(self) -> str:
        """Both as people read it."""
        how = "where its last day was cut" if self.cut_at else "where its last day ends"
        how = "as its writer says" if self.by_writer else how
        return f"{self.to:%Y-%m-%d %H:%M} UTC, {how}; the newest as_of is {self.as_of:%Y-%m-%d}"


def completeness(event_log: EventLog) -> Complete:
    """Return to when a log is complete. It has impressions.

    Raises:
        DataContractError: a file of the last days is damaged or lacks its time.
        TransientStorageError: the storage failed.
    """
    if event_log.record and event_log.record.complete_to:
        return Complete(event_log.record.complete_to, by_writer=True)
    last = (event_log.span("impressions")[1] - EPOCH).days
    midnight = datetime.fromtimestamp(last * DAY_MS / 1000, UTC)
    of_days = {day: _last_ms(event_log, day) for day in range(last - DAYS_BEFORE, last + 1)}
    end, before = of_days.pop(last), [ms for ms in of_days.values() if ms is not None]
    if end is not None and len(before) >= FEWEST_DAYS:
        earliest = min(before)
        if end < earliest - max(LEAST_CUT_MS, TIMES_SPREAD * (max(before) - earliest)):
            cut_at, usual = (midnight + timedelta(milliseconds=ms) for ms in (end, earliest))
            return Complete(cut_at, cut_at=cut_at, usual=f"{usual:%H:%M}")
    return Complete(midnight + timedelta(days=1))


def check_complete(event_log: EventLog, as_of: datetime) -> None:
    """Check that all labels before as_of are in the log.

    Raises:
        DataContractError: the log ends before; the message says which as_of would do.
    """
    known = completeness(event_log)
    if as_of > known.to:
        raise DataContractError(
            f"the event log at {event_log.uri} is complete to {known.told}, found "
            f"{as_of:%Y-%m-%d}; expected all labels; choose as_of {known.as_of:%Y-%m-%d}, or write "
            f"the days that are missing"
        )


def _last_ms(event_log: EventLog, day: int) -> int | None:
    """Return when a day's last event came, ms since its midnight; None of a day without any."""
    start, found = day * DAY_MS, list[int]()
    for table, name in EVENT_TIME_COLUMNS.items():
        for file in event_log.files_between(table, start, start + DAY_MS):
            dataset = open_file(event_log, file)
            [fragment] = dataset.get_fragments()
            groups = [group.statistics or {} for group in fragment.row_groups]
            if all(name in group for group in groups):
                found += [int(group[name]["max"]) for group in groups]
                continue
            for batch in iterate_batches(dataset, file, [name], 1 << 17):
                latest = pc.max(batch[name]).as_py()
                found += [] if latest is None else [latest]
    return min(max(found) - start, DAY_MS) if found else None
