"""Judges an event log by its days, keeps their numbers, and takes a person's word for a shift.

    <run>/build_snapshot/log/data_docs/index.html    what was expected and found
    <run>/build_snapshot/log/report.json             an EventLogReport
    <run>/build_snapshot/log/days.json               KeptDays: these days and the accepted ones
    <run>/accepted_shifts/<expectation>.json         an AcceptedShift

When the snapshot is accepted, `check_snapshot` keeps `days.json` with it, and the next cycle reads
it from there. A shift is accepted for its run alone: the next cycle is held against this one's
days, once its snapshot is accepted. Not for the rows of the snapshot. Tested in
tests/pipelines/log_days.
"""

import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import EventLogReport, ResolvedRun, Snapshot
from pipelines.contracts.day_profile import DayProfile, KeptDays
from pipelines.contracts.errors import ConfigurationError, DataGateFailedError
from pipelines.contracts.run_layout import (
    AcceptedShift,
    accepted_shift_uri,
    judged_log_uri,
    snapshot_manifest_uri,
)
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.log_days.reading import measure_log
from pipelines.registry.evidence import read_kept
from pipelines.snapshot.build import check_covered
from pipelines.snapshot.plan import SnapshotPlan, plan_of

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
    "new_embeddings_like_accepted",
)
"""What may be right though it is unusual: volumes, rates and shares that moved, and pins of a topic
that nobody had before. A damaged file, a broken contract or an embedding that changed under its
version is never right."""
EARLIER_DAYS = 56
"""So many days of the log stand in for accepted ones, in the first cycles."""
KEPT_DAYS = 120


def judge_event_log(run: ResolvedRun) -> EventLogReport:
    """Judge the days that the run's snapshot will hold, and leave a report.

    Raises:
        DataGateFailedError: a critical expectation is not met; nothing is built.
        DataContractError: the log is missing or breaks its contract, or does not cover a window.
        TransientStorageError: the storage failed, or a file was written while it was read.
    """
    from pipelines.alerts.commands import accept_shift_command, stage_command
    from validation.data_gate.days.gate import judge_log
    from validation.report.data_docs import DOCS_FOLDER

    plan, event_log = plan_of(run.config, run.as_of), open_event_log(run.event_log_uri)
    check_covered(event_log, plan)
    target = judged_log_uri(run.run_uri)
    with storage.scratch_folder(run.workspace_uri) as scratch:
        out_dir, spilled = scratch / "log", scratch / "spilled"
        out_dir.mkdir()
        spilled.mkdir()
        factor, accepted = run.config.data_gate.limit_factor, _accepted_days(run)
        kept_in = storage.join(run.workspace_uri, "days")
        found = measured_log(event_log, plan, factor, spilled, accepted, kept_in)
        outcomes = judge_log(found, out_dir / DOCS_FOLDER, accepted_shifts(run.run_uri))
        report = EventLogReport(
            outcomes=outcomes,
            docs_uri=storage.join(target, DOCS_FOLDER, "index.html"),
            num_judged_days=len(found.judged),
            num_history_days=len(found.history),
        )
        days = {day.day: day for day in (*found.accepted, *found.days)}
        newest = KeptDays(days=tuple(days[day] for day in sorted(days)[-KEPT_DAYS:]))
        (out_dir / DAYS_FILE).write_bytes(newest.to_record())
        (out_dir / REPORT_FILE).write_bytes(report.to_record())
        storage.publish_folder(out_dir, target)
    if report.is_accepted:
        return report
    stopping = [each.name for each in report.failures if each.stops_the_cycle]
    right = [name for name in stopping if name in ACCEPTABLE]
    accept = " and ".join(f"`{accept_shift_command(run.run_uri, name)}`" for name in right)
    lines = (
        f"- {each.name} ({each.severity}): found {each.observed}, expected {each.expected}\n"
        for each in report.failures
    )
    error = DataGateFailedError(
        f"the data gate refused the event log {run.event_log_uri}; nothing was built and the "
        f"champion stays:\n{''.join(lines)}Data Docs: {report.docs_uri}\n"
        f"Mend the event log or, if the data are right, say so with {accept}; then run "
        f"`{stage_command('build_snapshot', run.run_uri)}`"
    )
    error.acceptable = tuple(right) if len(right) == len(stopping) else ()
    error.about, error.docs_uri = tuple(stopping), report.docs_uri
    raise error


def read_report(run: ResolvedRun) -> EventLogReport | None:
    """Return what the run's event log was found to be; None where it was not judged."""
    uri = storage.join(judged_log_uri(run.run_uri), REPORT_FILE)
    return storage.find_model(uri, EventLogReport)


def _accepted_days(run: ResolvedRun) -> tuple[DayProfile, ...]:
    """Return the days that were kept with the last accepted snapshot; none where none are known."""
    uri = run.last_accepted_snapshot_uri
    if uri and (reference := storage.find_model(snapshot_manifest_uri(uri), Snapshot)):
        try:
            data = read_kept(run, reference, DAYS_FILE)
            return KeptDays.from_record(data).days if data else ()
        except ValidationError as error:
            log.warning("the last accepted snapshot's days are damaged and passed over: %s", error)
    return ()


def measured_log(
    event_log: EventLog,
    plan: SnapshotPlan,
    limit_factor: float,
    spilled: Path,
    accepted: tuple[DayProfile, ...] = (),
    kept_in: str | None = None,
) -> "JudgedLog":
    """Measure the days of the windows, and EARLIER_DAYS before them."""
    from validation.data_gate.days.gate import JudgedLog

    # A day of which the window has only the last hours is no day of it.
    first = (plan.training.start_ms + DAY_MS // 2) // DAY_MS
    end = -(-plan.holdout.end_ms // DAY_MS)
    measured = measure_log(event_log, plan, range(first - EARLIER_DAYS, end), spilled, kept_in)
    return JudgedLog(
        as_of=plan.as_of,
        uri=event_log.uri,
        days=tuple(day for day in measured if day.day >= first),
        first_day=first,
        end_day=end,
        accepted=accepted,
        earlier=tuple(day for day in measured if day.day < first),
        limit_factor=limit_factor,
    )


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
    found = {name: storage.find_model(uri, AcceptedShift) for name, uri in places.items()}
    return {name: shift.sentence for name, shift in found.items() if shift}
