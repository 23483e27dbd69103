"""What changed in an event log since the data gate refused it in the same run.

A person mends the log and runs the stage again. Whether the mend reached the log, and whether it
changed more than it should, is then told beside the comparison with accepted days. Tested in
tests/pipelines/log_days/test_repair.py.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import EventLogReport, ResolvedRun
from pipelines.contracts.run_layout import judged_log_uri
from pipelines.registry.accepted import read_refusal

if TYPE_CHECKING:
    from pipelines.contracts.judged.day_profile import DayProfile

log = logging.getLogger(__name__)

DAYS_FILE, REPORT_FILE = "days.json", "report.json"
_NUM_NAMED = 3


def days_refused(run: ResolvedRun) -> "tuple[DayProfile, ...] | None":
    """Return the days that an earlier attempt of the run refused; None where none did."""
    from pipelines.contracts.judged.day_profile import KeptDays

    folder = judged_log_uri(run.run_uri)
    report, days = (storage.join(folder, name) for name in (REPORT_FILE, DAYS_FILE))
    if not storage.exists(days) or read_refusal(report, EventLogReport) is None:
        return None
    try:
        return KeptDays.model_validate_json(storage.read_bytes(days)).days
    except ValidationError as error:  # damaged, or of an earlier release
        log.warning("the days that were refused cannot be read; judged without them: %s", error)
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
