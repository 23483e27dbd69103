"""Judges an event log by its days, keeps their numbers, and takes a person's word for a shift.

    <run>/build_snapshot/log/data_docs/index.html    what was expected and found
    <run>/build_snapshot/log/report.json             an EventLogReport
    <run>/build_snapshot/log/days.json               KeptDays: these days and the accepted ones
    <run>/accepted_shifts/<expectation>.json         an AcceptedShift

When the snapshot is accepted, `check_snapshot` keeps `days.json` with it, and the next cycle reads
it from there. Where a log was refused and is judged again in the run, what changed since is told.
A shift is accepted for its run alone: the next cycle is held against this one's days, once its
snapshot is accepted. Not for the rows of the snapshot. Tested in tests/pipelines/log_days.
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import EventLogReport, ResolvedRun, Snapshot
from pipelines.contracts.day_profile import FORMAT_VERSION, DayProfile, KeptDays
from pipelines.contracts.errors import ConfigurationError, DataGateFailedError, HomefeedError
from pipelines.contracts.files import temporary_files_in
from pipelines.contracts.run_layout import (
    AcceptedShift,
    accepted_shift_uri,
    judged_log_uri,
    snapshot_manifest_uri,
)
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import EventLog, open_event_log, unchanged_meanwhile
from pipelines.log_days.known_days import open_known_days
from pipelines.log_days.reading import DayRange, examples_of, files_of_days, measure_log
from pipelines.registry.accepted import read_kept, read_refusal
from pipelines.snapshot.build import check_covered
from pipelines.snapshot.plan import SnapshotPlan, make_plan

if TYPE_CHECKING:
    from validation.data_gate.days.gate import JudgedLog

log = logging.getLogger(__name__)

DAYS_FILE, REPORT_FILE = "days.json", "report.json"
ACCEPTABLE = (
    "log_harms_no_model",
    "log_has_most_days",
    "row_count_shift",
    "target_label_rate_shift",
    "every_day_has_labels",
)
"""What may be right though it is unusual: volumes, rates and shares that moved. A damaged file, a
broken contract or an embedding that changed under its version is never right."""
EARLIER_DAYS = 56
"""So many days of the log stand in for accepted ones, in the first cycles."""
KEPT_DAYS = 120
_NUM_NAMED = 3


def judge_event_log(run: ResolvedRun) -> EventLogReport:
    """Judge the days that the run's snapshot will hold, and leave a report.

    Raises:
        DataGateFailedError: a critical expectation is not met; nothing is built.
        DataContractError: the log is missing or breaks its contract, or does not cover a window.
        TransientStorageError: the storage failed, or a file was written while it was read.
    """
    from validation.data_gate.days.gate import judge_log
    from validation.data_gate.gx_runner import importing_meanwhile
    from validation.report.data_docs import DOCS_FOLDER

    plan, event_log = make_plan(run), open_event_log(run.event_log_uri)
    check_covered(event_log, plan)
    target = judged_log_uri(run.run_uri)
    with storage.scratch_folder(run.workspace_uri) as scratch, temporary_files_in(scratch):
        out_dir, spilled = scratch / "log", scratch / "spilled"
        out_dir.mkdir()
        spilled.mkdir()
        with importing_meanwhile():
            found = _measured(run, event_log, plan, spilled)
        since = since_refused(days_refused(run), found.days)
        found = replace(found, since_refused=since)
        look = functools.partial(_look, event_log, plan, spilled)
        shifts = accepted_shifts(run.run_uri)
        outcomes = judge_log(found, out_dir / DOCS_FOLDER, shifts, look)
        report = EventLogReport(
            outcomes=outcomes,
            docs_uri=storage.join(target, DOCS_FOLDER, "index.html"),
            num_judged_days=len(found.judged),
            num_history_days=len(found.history),
            since_refused=since,
        )
        (out_dir / DAYS_FILE).write_text(_to_keep(found), "utf-8")
        (out_dir / REPORT_FILE).write_bytes(report.to_record())
        storage.publish_folder(out_dir, target)
    if not report.is_accepted:
        raise _refusal(run, report)
    return report


def _look(
    event_log: EventLog, plan: SnapshotPlan, spilled: Path, day: int, names: Sequence[str]
) -> Mapping[str, Sequence[str]]:
    """Return rows that show what is unusual; none where the log cannot be read any more."""
    try:
        return examples_of(event_log, plan, spilled, day, names)
    except HomefeedError as error:
        log.warning("no rows are shown of what is unusual: %s", error)
        return {}


def read_report(run: ResolvedRun) -> EventLogReport | None:
    """Return what the run's event log was found to be; None in runs from before it was judged."""
    uri = storage.join(judged_log_uri(run.run_uri), REPORT_FILE)
    return storage.read_model(uri, EventLogReport) if storage.exists(uri) else None


def _measured(
    run: ResolvedRun, event_log: EventLog, plan: SnapshotPlan, spilled: Path
) -> "JudgedLog":
    """Measure the days of the windows, and as many before them as no accepted snapshot knows."""
    from validation.data_gate.days.gate import JudgedLog
    from validation.data_gate.days.limits import FEWEST_DAYS

    accepted = _accepted_days(run)
    first = plan.training.start_ms // DAY_MS
    end = -(-plan.holdout.end_ms // DAY_MS)
    back = 0 if len(accepted) >= FEWEST_DAYS else EARLIER_DAYS
    days = DayRange(first - back, end)
    with unchanged_meanwhile(event_log, files_of_days(event_log, days)):
        known = open_known_days(run.workspace_uri, event_log, plan, days.first, days.end)
        measured = measure_log(event_log, plan, days, spilled, known)
    # Not before it is sure that these are the numbers of the files that were listed.
    known.save(range(days.first, days.end), measured)
    return JudgedLog(
        as_of=run.as_of,
        uri=run.event_log_uri,
        days=tuple(day for day in measured if day.day >= first),
        first_day=first,
        end_day=end,
        accepted=accepted,
        earlier=tuple(day for day in measured if day.day < first),
        limit_factor=run.config.data_gate.limit_factor,
    )


def _accepted_days(run: ResolvedRun) -> tuple[DayProfile, ...]:
    """Return the days that were kept with the last accepted snapshot; none where none were."""
    uri = run.last_accepted_snapshot_uri
    if uri is None or not storage.exists(snapshot_manifest_uri(uri)):
        return ()
    reference = storage.read_model(snapshot_manifest_uri(uri), Snapshot)
    data = read_kept(run, reference, DAYS_FILE)
    if data is None:
        return ()
    try:
        kept = KeptDays.model_validate_json(data)
    except ValidationError as error:
        log.warning("the kept days of the last accepted snapshot are damaged: %s", error)
        return ()
    return kept.days if kept.format == FORMAT_VERSION else ()


def _to_keep(found: "JudgedLog") -> str:
    """Return the text of the file with these days, and the newest of those accepted before."""
    days = {day.day: day for day in (*found.accepted, *found.days)}
    newest = sorted(days)[-KEPT_DAYS:]
    return KeptDays(days=tuple(days[day] for day in newest)).model_dump_json()


def _refusal(run: ResolvedRun, report: EventLogReport) -> DataGateFailedError:
    from pipelines.alerts.commands import accept_shift_command, stage_command

    lines = [
        f"- {each.name} ({each.severity}): found {each.observed}, expected {each.expected}"
        for each in report.failures
    ]
    stopping = [each.name for each in report.failures if each.stops_the_cycle]
    right = [name for name in stopping if name in ACCEPTABLE]
    accept = [f"`{accept_shift_command(run.run_uri, name)}`" for name in right]
    if report.since_refused:
        lines.append(f"Since it was refused before: {'; '.join(report.since_refused)}")
    error = DataGateFailedError(
        f"the data gate refused the event log {run.event_log_uri}; nothing was built and the "
        f"champion stays:\n" + "\n".join(lines) + f"\nData Docs: {report.docs_uri}\n"
        f"Mend the event log or, if the data are right, say so with {' and '.join(accept)}; then "
        f"run `{stage_command('build_snapshot', run.run_uri)}`"
    )
    error.acceptable = tuple(right) if len(right) == len(stopping) else ()
    error.about, error.docs_uri = tuple(stopping), report.docs_uri
    return error


def days_refused(run: ResolvedRun) -> tuple[DayProfile, ...] | None:
    """Return the days that an earlier attempt of the run refused; None where none did."""
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
    refused: Sequence[DayProfile] | None, now: Sequence[DayProfile]
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


def accept_shift(
    run_uri: str, expectation: str, by: str, reason: str, now: datetime
) -> AcceptedShift:
    """Record that a person accepts a shift of a run's data.

    Raises:
        ConfigurationError: the expectation is none that may be accepted, or name or reason are
            missing.
    """
    if expectation not in ACCEPTABLE:
        raise ConfigurationError(
            f"{expectation!r} cannot be accepted by a person; expected one of {list(ACCEPTABLE)}, "
            f"which may be right though they are unusual; mend the data for any other"
        )
    if not by.strip() or not reason.strip():
        raise ConfigurationError(
            f"accepting {expectation} needs a name and a reason, found {by!r} and {reason!r}; say "
            f"who you are with --by and why the data are right with --reason"
        )
    accepted = AcceptedShift(
        expectation=expectation, by=by.strip(), reason=reason.strip(), accepted_at=now
    )
    uri = accepted_shift_uri(run_uri, expectation)
    storage.write_over(uri, accepted, storage.look(uri))
    return accepted


def accepted_shifts(run_uri: str) -> dict[str, str]:
    """Return who accepted what of a run's data, and why, by expectation."""
    places = {name: accepted_shift_uri(run_uri, name) for name in ACCEPTABLE}
    return {
        name: storage.read_model(uri, AcceptedShift).sentence
        for name, uri in places.items()
        if storage.exists(uri)
    }
