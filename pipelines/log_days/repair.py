"""What changed in an event log since the data gate refused it in the same run.

A person mends the log and runs the stage again. Whether the mend reached the log, and whether it
changed more than it should, is then told beside the comparison with accepted days. Tested in
tests/pipelines/log_days/test_repair.py.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import EventLogReport, ResolvedRun
from pipelines.contracts.run_layout import judged_log_uri

if TYPE_CHECKING:
    from validation.data_gate.days.profile import DayProfile

DAYS_FILE, REPORT_FILE = "days.json", "report.json"
_NUM_NAMED = 3


def days_refused(run: ResolvedRun) -> "tuple[DayProfile, ...] | None":
    """Return the days that an earlier attempt of the run refused; None where none did."""
    from validation.data_gate.days.profile import KeptDays

    folder = judged_log_uri(run.run_uri)
    places = [storage.join(folder, name) for name in (REPORT_FILE, DAYS_FILE)]
    if not all(map(storage.exists, places)):
        return None
    try:
        if storage.read_model(places[0], EventLogReport).is_accepted:
            return None
        return KeptDays.model_validate_json(storage.read_bytes(places[1])).days
    except ValidationError:  # of an earlier release
        return None


def since_refused(
    refused: "Sequence[DayProfile] | None", now: "Sequence[DayProfile]"
) -> tuple[str, ...]:
    """Return a phrase for each day that is another than was refused.

    Args:
        refused: The days that were refused; None where none were.
        now: The days of the windows as they are.

    Returns:
        One phrase that says so where no day is another; nothing where nothing was refused.
    """
    from validation.data_gate.days.gate import changes, date_of

    if refused is None:
        return ()
    # Only the newest days of a long window are kept; of the others nothing is known.
    before = {day.day: day for day in refused}
    first, last = min(before, default=0), max((day.day for day in now), default=0)
    present = {day.day for day in now}
    told = [f"{date_of(day)} has come" for day in sorted(present - before.keys()) if day > first]
    lost = before.keys() - present
    told += [f"{date_of(day)} has gone" for day in sorted(lost) if min(present) <= day <= last]
    for day in now:
        if day.day in before and (changed := changes(before[day.day], day)):
            named = ", ".join(changed[:_NUM_NAMED])
            more = len(changed) - _NUM_NAMED
            others = f" and {more} more" if more > 0 else ""
            told.append(f"{date_of(day.day)} is another: {named}{others}")
    return tuple(told) or ("no day is another than the ones that were refused",)
