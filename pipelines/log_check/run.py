"""Checks a whole event log: measures it, judges it, and names what was found.

Not for measuring (`measuring`), judging (`judgements`) or showing (`text`, `page`). Tested in
tests/pipelines/log_check/test_run.py.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.config import RunConfig, number_columns
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.features import LOG_TABLES
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.event_log.declared import extra_columns
from pipelines.event_log.log_files import EventLog, LogFile, find_event_log
from pipelines.event_log.names import IdColumn, names_of
from pipelines.event_log.rules import Finding
from pipelines.log_check.judgements import judge
from pipelines.log_check.measuring import RecipeColumns, measure
from pipelines.log_check.report import LogReport, Problem, Severity
from pipelines.preconditions.cycle import QUESTIONS_OF_RECIPE, Asked, refusals
from pipelines.settings import Settings
from pipelines.snapshot.build import check_covered
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.pool import usable_cores
from pipelines.storage import to_uri


@dataclass(frozen=True)
class Span:
    """The days that are looked at; both are included, None is open."""

    first: date | None = None
    last: date | None = None

    def holds(self, file: LogFile) -> bool:
        """Return whether a file is of these days, or of none."""
        if file.day is None:
            return True
        after = self.first is None or file.day >= self.first
        return after and (self.last is None or file.day <= self.last)


def check_log(
    location: str,
    recipe: RunConfig | None = None,
    span: Span = Span(),
    num_workers: int | None = None,
    settings: Settings | None = None,
) -> LogReport:
    """Return what an event log looks like and all that is wrong with it.

    Args:
        location: Path or URI of the log.
        recipe: What the log shall serve; None checks what holds for any recipe.
        span: Days to look at.
        num_workers: Threads that read; None takes as many as there are cores.
        settings: Whether stages run on this machine; None takes the usual ones.

    Raises:
        DataContractError: there is no log at all.
        ConfigurationError: the log has no day in the span.
        TransientStorageError: the storage failed.
    """
    uri = to_uri(location)
    event_log, problems = find_event_log(uri)
    event_log = replace(event_log, files=tuple(filter(span.holds, event_log.files)))
    if not any(file.day for file in event_log.files) and not problems:
        raise ConfigurationError(
            f"the event log at {uri} has no day from {span.first} to {span.last}; expected days "
            f"that it covers; correct --from or --to"
        )
    hours = recipe.snapshot.label_window_hours if recipe else 24
    report = LogReport(uri, recipe.recipe if recipe else "", hours)
    columns = _columns_of(recipe) if recipe else RecipeColumns()
    findings = [*problems, *measure(report, event_log, columns, num_workers or usable_cores())]
    others: list[Problem] = []
    if recipe is not None:
        others += _recipe_problems(recipe, settings or Settings())
        if span == Span():
            others += _coverage_problems(event_log, recipe)
    report.problems = judge(report, findings, recipe, others)
    report.names = _names_in(event_log, report.problems)
    return report


def _columns_of(recipe: RunConfig) -> RecipeColumns:
    features, held = recipe.features, recipe.features.numeric_held
    return RecipeColumns(
        features.action_types,
        {
            table: extra_columns(schema, features.categorical_of(table))
            for table, schema in EVENT_LOG_TABLES.items()
        },
        {table: number_columns(held, table) for table in LOG_TABLES},
        features.categorical,
    )


def _names_in(event_log: EventLog, problems: Sequence[Problem]) -> dict[int, str]:
    """Return the names of the pins and users that problems are about, by their ids."""
    found: dict[int, str] = {}
    columns: tuple[tuple[str, IdColumn], ...] = (("user", "user_id"), ("pin", "pin_id"))
    for what, column in columns:
        told = [each for p in problems for name, each in p.finding.ids if name == column]
        with contextlib.suppress(DataContractError):  # the ids alone say which row it is
            names = names_of(event_log, column, [each for each in told if each is not None])
            found |= {number: f"{what} {name!r}" for number, name in names.items()}
    return found


def _recipe_problems(recipe: RunConfig, settings: Settings) -> Iterator[Problem]:
    """Yield why a recipe can come to no verdict whatever the log is: a cycle would be refused."""
    request = RunRequest(
        recipe=recipe.reference,
        as_of=None,
        now=datetime.now(UTC),
        may_promote=True,
        num_devices=1,
        trigger="log check",
    )
    asked = Asked(request, recipe, settings, may_settle=False)
    for error in refusals(asked, QUESTIONS_OF_RECIPE):
        for said in error.problems or (str(error),):
            lead = f"recipe {recipe.reference} cannot be run: "
            yield Problem(Severity.ERROR, Finding("recipe", "", f"{lead}{said}", "", ""))


def _coverage_problems(event_log: EventLog, recipe: RunConfig) -> Iterator[Problem]:
    """Yield that a cycle of the day after the log's last would have a window without impressions.

    What else such a cycle needs of the log is judged by the rows.
    """
    if not event_log.files_of("impressions"):
        return
    last = event_log.span("impressions")[1]
    as_of = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    try:
        check_covered(event_log, plan_of(recipe, as_of))
    except DataContractError as error:
        yield Problem(Severity.ERROR, Finding("window_without_impressions", "", str(error), "", ""))
