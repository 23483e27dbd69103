"""Tries the stages on an event log in a scratch folder: what they would refuse, its check refuses.

The functions are the stages' own, so that no rule of theirs can be missing here: the days of the
log are judged, the snapshot of the newest as_of is built, and its rows are judged, against no
earlier snapshot. `measuring` says more clearly what is wrong, so that a log is tried only where
nothing else refuses it. Tested in tests/pipelines/log_check/test_mistakes.py.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, ExpectationOutcome
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import own_temporary_folder
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.rules import ERROR, finding
from pipelines.log_check.report import LogReport
from pipelines.log_days.judging import measured_log
from pipelines.snapshot.build import build_of, check_covered
from pipelines.snapshot.plan import plan_of

SAID_AS = {
    "embedding_coverage": "zero_embeddings",
    "every_day_has_labels": "label_rate",
    "log_has_most_days": "few_impressions",
    "most_requests_are_known": "unknown_requests",
}
"""Expectations of the gate, and the finding that says the same of a log with its table and day."""


def try_stages(report: LogReport, recipe: RunConfig) -> None:
    """Add to the report of a whole log what the stages would refuse, unless errors stand there.

    What a finding warns of already becomes an error.

    Raises:
        ConfigurationError: one of the recipe's own features is refused.
        TransientStorageError: the storage failed.
    """
    if report.complete is None or any(each.severity is ERROR for each in report.problems):
        return
    try:
        outcomes = tuple(_outcomes(report.uri, recipe, report.complete.as_of))
    except DataContractError as error:
        report.problems.insert(0, finding("stage_refuses", error=error))
        return
    judged = DataReport(outcomes=outcomes, docs_uri="", snapshot_digest="", reference_digest=None)
    refused = [each for each in judged.causes if each.stops_the_cycle]
    same = {SAID_AS.get(each.name) for each in refused}
    said = {each.rule for each in report.problems} & same
    others = [each for each in refused if SAID_AS.get(each.name) not in said]
    by = "; ".join(
        f"{o.name} ({o.description}): found {o.observed}, expected {o.expected}" for o in others
    )
    errors = [replace(each, severity=ERROR) for each in report.problems if each.rule in said]
    errors += [finding("gate_refuses", by=by)] if others else []
    report.problems = [*errors, *(each for each in report.problems if each.rule not in said)]


def _outcomes(uri: str, recipe: RunConfig, as_of: datetime) -> Iterator[ExpectationOutcome]:
    from validation.data_gate.checks import Judged, row_checks, snapshot_checks
    from validation.data_gate.days.gate import log_checks
    from validation.data_gate.snapshot_profile import profile_snapshot

    plan, event_log = plan_of(recipe, as_of), open_event_log(uri)
    check_covered(event_log, plan)
    with storage.scratch_folder(own_temporary_folder("scratch").as_uri()) as scratch:
        (spilled := scratch / "spilled").mkdir()
        days = measured_log(event_log, plan, recipe.data_gate.limit_factor, spilled)
        outcomes = [_outcome(each) for each in log_checks(days)]
        yield from outcomes
        if any(each.stops_the_cycle for each in outcomes):
            return
        snapshot = build_of(plan, uri, (scratch / "snapshots").as_uri())
        profile = profile_snapshot(snapshot, storage.local_path(snapshot.uri))
        judged = Judged(recipe.data_gate, snapshot, profile, reference=None)
        checks = (*row_checks(snapshot, profile), *snapshot_checks(judged))
        yield from map(_outcome, checks)


def _outcome(check: Any) -> ExpectationOutcome:
    """Return what Great Expectations would find of a check, without its pages."""
    offenders = tuple(name for name in check.values if check.excess(name) > 0)
    return check.outcome(not offenders, offenders)
