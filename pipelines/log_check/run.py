"""Checks a whole event log: measures it, judges it, and names what was found.

Not for measuring (`measuring`), judging (`judgements`) or showing (`report`, `page`). Tested in
tests/pipelines/log_check/test_run.py.
"""

import contextlib
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import get_args

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.event_log.log_files import find_event_log
from pipelines.event_log.reader import IdColumn, names_of
from pipelines.event_log.rules import Finding, Severity
from pipelines.log_check.judgements import judge
from pipelines.log_check.measuring import measure
from pipelines.log_check.report import LogReport
from pipelines.preconditions.cycle import QUESTIONS_OF_RECIPE, Asked, refusals
from pipelines.settings import Settings
from pipelines.snapshot.build import check_covered
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.pool import usable_cores
from pipelines.storage import to_uri


def check_log(
    location: str,
    recipe: RunConfig | None = None,
    first: date | None = None,
    last: date | None = None,
    num_workers: int | None = None,
    settings: Settings | None = None,
) -> LogReport:
    """Return what an event log looks like and all that is wrong with it, the worst first.

    Args:
        location: Path or URI of the log.
        recipe: What the log shall serve; None checks what holds for any recipe.
        first: The first day that is looked at; None is open.
        last: The last one, included; None is open.
        num_workers: Threads that read; None takes as many as there are cores.
        settings: Whether stages run on this machine; None takes the usual ones.

    Raises:
        DataContractError: there is no log at all.
        ConfigurationError: the log has no day in the span.
        TransientStorageError: the storage failed.
    """
    uri = to_uri(location)
    whole, problems = find_event_log(uri)
    start, end = first or date.min, last or date.max
    files = tuple(file for file in whole.files if file.day is None or start <= file.day <= end)
    event_log = replace(whole, files=files)
    if not any(file.day for file in files) and not problems:
        raise ConfigurationError(
            f"the event log at {uri} has no day from {first} to {last}; expected days that it "
            f"covers; correct --from or --to"
        )
    hours = recipe.snapshot.label_window_hours if recipe else 24
    report = LogReport(uri, recipe.recipe if recipe else "", hours)
    findings = [*problems, *measure(report, event_log, recipe, num_workers or usable_cores())]
    findings += judge(report, recipe)
    if recipe is not None:
        # Why it can come to no verdict, whatever the log is: a cycle would be refused.
        asked = Asked.beforehand(recipe, settings or Settings(), datetime.now(UTC))
        for error in refusals(asked, QUESTIONS_OF_RECIPE):
            for each in error.problems or (str(error),):
                said = f"recipe {recipe.reference} cannot be run: {each}"
                findings.append(Finding("recipe", "", said, ""))
        if event_log == whole and event_log.files_of("impressions"):
            # A cycle of the day after the last. What else it needs is judged by the rows.
            newest = datetime.combine(event_log.span("impressions")[1], time(), UTC)
            try:
                check_covered(event_log, plan_of(recipe, newest + timedelta(days=1)))
            except DataContractError as error:
                findings.append(Finding("window_without_impressions", "", str(error), ""))
    order = list(Severity)
    report.problems = sorted(findings, key=lambda finding: order.index(finding.severity))
    for column in get_args(IdColumn):
        ids = {each for p in report.problems for name, each in p.ids if name == column}
        with contextlib.suppress(DataContractError):  # the ids alone say which row it is
            names = names_of(event_log, column, ids - {None})
            what = column.removesuffix("_id")
            report.names |= {number: f"{what} {name!r}" for number, name in names.items()}
    return report
