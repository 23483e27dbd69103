"""Checks a whole event log: the passes one after another, over a pool of processes.

First the actions of each day, then its impressions with the actions around them, then the requests
of all days, then each day's actions against them; pins and users beside. A process holds a part of
a day's impressions and the actions of a few days; this process holds the ids of all pins and the
keys of all users' rows. The rest lies in a scratch folder. Not for judging what was found
(`judgements`), nor for showing it (`text`, `page`).
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.features.catalogue import LOG_TABLES
from pipelines.contracts.features.numeric import number_columns
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.contracts.time import HOUR_MS
from pipelines.event_log.declared import extra_columns
from pipelines.event_log.log_files import EventLog, LogFile, find_event_log
from pipelines.event_log.names import IdColumn, names_of
from pipelines.event_log.reader import pin_time_problems
from pipelines.event_log.rules import Finding, action_before_request, request_of_two_users
from pipelines.log_check import embeddings, scratch
from pipelines.log_check.categories import Counts, add_counts, judge_categories
from pipelines.log_check.events import DayTask, folder_of, place_in_log, read_actions
from pipelines.log_check.exposures import read_impressions
from pipelines.log_check.found import Exposures, LogReport, Problem, Severity, add
from pipelines.log_check.hints import hints_of
from pipelines.log_check.judgements import judge
from pipelines.log_check.matching import (
    REQUESTS_PER_BUCKET,
    BucketTask,
    Early,
    MatchTask,
    make_index,
    match_actions,
)
from pipelines.log_check.people import count_people
from pipelines.log_check.reading import Wanted, distinct, request_id_in, request_of_hash
from pipelines.metrics.usage import memory_limit_bytes
from pipelines.preconditions.cycle import QUESTIONS_OF_RECIPE, Asked, refusals
from pipelines.settings import Settings
from pipelines.snapshot.build import check_covered
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.pool import BYTES_WORTH_A_POOL, run_all
from pipelines.storage import open_filesystem, to_uri

ROWS_PER_PART = 3_000_000
"""Impressions of a day that one process holds at a time: about 400 MB."""
BYTES_PER_WORKER = 800 << 20
"""Memory that a process may come to need: for such a part, the actions around it, and the code."""


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


@dataclass(frozen=True)
class Checking:
    """One check: what all passes need."""

    event_log: EventLog
    folder: Path
    wanted: Wanted
    label_window_ms: int
    num_workers: int
    unlisted: Counts = field(default_factory=dict)  # values that the recipe does not list

    def run(self, function: Callable[[Any], Any], tasks: Sequence[Any], what: str) -> Iterable[Any]:
        """Yield each task's result, in order; a small log shows no progress."""
        if self.num_workers == 1:
            return map(function, tasks)
        return run_all(function, tasks, self.num_workers, what)

    def days_of(self, table: str) -> dict[date, tuple[LogFile, ...]]:
        """Return the files of each day, in order."""
        found: dict[date, list[LogFile]] = {}
        for file in self.event_log.files_of(table):
            if file.day is not None:
                found.setdefault(file.day, []).append(file)
        return {day: tuple(found[day]) for day in sorted(found)}


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
        num_workers: Processes; None takes what cores and memory bear, or one for a small log.
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
    num_bytes = sum(file.num_bytes for file in event_log.files)
    usual = 1 if num_bytes < BYTES_WORTH_A_POOL else choose_num_workers()
    hours = recipe.snapshot.label_window_hours if recipe else 24
    report = LogReport(uri, recipe.recipe if recipe else "", hours)
    with scratch.own_folder() as folder:
        wanted = _wanted(recipe)
        checking = Checking(event_log, folder, wanted, hours * HOUR_MS, num_workers or usual)
        findings = [*problems, *_read_events(checking, report)]
        findings += _match(checking, report)
        findings += _read_tables(checking, report)
        count_people(checking.folder, report, len(event_log.files_of("users")))
    others = list(hints_of(report))
    if recipe is not None:
        others += judge_categories(checking.unlisted, recipe)
        others += _recipe_problems(recipe, settings or Settings())
        if span == Span():
            others += _coverage_problems(event_log, recipe)
    report.problems = judge(report, findings, recipe, others)
    report.names = _names_in(event_log, report.problems)
    return report


def _names_in(event_log: EventLog, problems: Sequence[Problem]) -> dict[int, str]:
    """Return the names of the pins and users that problems tell by their ids."""
    found: dict[int, str] = {}
    columns: tuple[tuple[str, IdColumn], ...] = (("user", "user_id"), ("pin", "pin_id"))
    for what, column in columns:
        with contextlib.suppress(DataContractError):  # the ids alone say which row it is
            ids = [each for p in problems for name, each in p.finding.ids if name == column]
            names = names_of(event_log, column, [each for each in ids if each is not None])
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


def choose_num_workers() -> int:
    """Return as many processes as there are cores, or fewer where memory does not suffice."""
    import psutil

    free = min(psutil.virtual_memory().available, memory_limit_bytes())
    return max(1, min(len(os.sched_getaffinity(0)), free // BYTES_PER_WORKER))


def _wanted(recipe: RunConfig | None) -> Wanted:
    if recipe is None:
        return Wanted()
    extra = tuple(
        (table, extra_columns(schema, recipe.features.categorical_of(table)))
        for table, schema in EVENT_LOG_TABLES.items()
    )
    held = recipe.features.numeric_held
    numbers = tuple((table, number_columns(held, table)) for table in LOG_TABLES)
    return Wanted(recipe.features.action_types, extra, numbers, recipe.features.categorical)


def _read_events(checking: Checking, report: LogReport) -> list[Finding]:
    """Read actions, then impressions; return what breaks the contract."""
    tasks = [
        DayTask(
            checking.event_log,
            files,
            day,
            checking.wanted,
            checking.folder,
            checking.label_window_ms,
        )
        for day, files in checking.days_of("actions").items()
    ]
    findings: list[Finding] = []
    for done in checking.run(read_actions, tasks, "days of actions"):
        report.deeds[done.day] = done.deeds
        findings += done.findings
    tasks = [
        DayTask(
            checking.event_log,
            files,
            day,
            checking.wanted,
            checking.folder,
            checking.label_window_ms,
            part,
            num_parts,
        )
        for day, files in checking.days_of("impressions").items()
        for num_parts in [_count_parts(checking.event_log, files)]
        for part in range(num_parts)
    ]
    for done in checking.run(read_impressions, tasks, "days of impressions"):
        add(report.exposures.setdefault(done.day, Exposures()), done.exposures)
        add_counts(checking.unlisted, done.unlisted)
        findings += done.findings
    return findings


def _count_parts(event_log: EventLog, files: Sequence[LogFile]) -> int:
    """Return in how many parts a day is read; a file that cannot be read counts as empty."""
    filesystem, _ = open_filesystem(event_log.uri)
    num_rows = 0
    for file in files:
        try:
            num_rows += pq.read_metadata(file.path, filesystem=filesystem).num_rows
        except (OSError, ValueError):
            continue  # whoever reads its rows tells of it
    return -(-num_rows // ROWS_PER_PART) or 1


def _match(checking: Checking, report: LogReport) -> list[Finding]:
    """Match actions with requests; return what breaks the contract."""
    days = tuple(report.exposures)
    num_rows = sum(
        len(scratch.load_parts(folder_of(checking.folder, "requests", day), "request", np.uint64))
        for day in days
    )
    num_buckets = -(-num_rows // REQUESTS_PER_BUCKET) or 1
    tasks = [BucketTask(checking.folder, days, n, num_buckets) for n in range(num_buckets)]
    findings: list[Finding] = []
    if days:
        for done in checking.run(make_index, tasks, "parts of the requests"):
            report.num_requests += done.num_requests
            known = report.num_candidates
            report.num_candidates = done.num_candidates + (known if len(known) else 0)
            for request, one, other in done.of_two_users[:1]:
                name = _name_of(checking, request, days)
                findings.append(request_of_two_users(name, one, other, done.num_of_two_users))
    first, last = (min(days), max(days)) if days else (date.max, date.min)
    matches = [
        MatchTask(checking.folder, day, num_buckets, first <= day <= last) for day in report.deeds
    ]
    early: Early | None = None
    for done in checking.run(match_actions, matches, "days of actions matched"):
        add(report.deeds[done.day], done.deeds)
        early = early or done.early
    if early is not None:
        files = checking.days_of("actions")[early.day]
        number, row = place_in_log(checking.folder, early.day, early.row)
        num_early = report.acted.early_named
        name = request_id_in(checking.event_log, files[number], row)
        moments = (early.pin_id, early.acted_at, name, early.impressed_at)
        findings.append(action_before_request(*moments, num_early))
    return findings


def _name_of(checking: Checking, request: int, days: Sequence[date]) -> str:
    """Return the text of a request whose hash is known."""
    files = checking.days_of("impressions")
    for day in days:
        folder = folder_of(checking.folder, "requests", day)
        own = scratch.load_parts(folder, "request", np.uint64)
        if (own == np.uint64(request)).any():
            return request_of_hash(checking.event_log, files[day], request)
    return "?"


def _read_tables(checking: Checking, report: LogReport) -> list[Finding]:
    """Read pins and users; return what breaks the contract."""
    findings: list[Finding] = []
    numbers = {}
    for table in ("pins", "users"):
        files = checking.event_log.files_of(table)
        numbers[table] = len(files)
        tasks = [
            embeddings.TableTask(checking.event_log, file, number, checking.wanted, checking.folder)
            for number, file in enumerate(files)
        ]
        found: dict[str, embeddings.Embeddings] = {}
        for done in checking.run(embeddings.read_table, tasks, f"files of {table}"):
            findings += done.findings
            add_counts(checking.unlisted, done.unlisted)
            for version, part in done.embeddings.items():
                add(found.setdefault(version, embeddings.Embeddings()), part)
        findings += embeddings.width_problems(table, found)
        if table == "pins":
            report.pins = found
        else:
            report.users = found.get(embeddings.USERS, report.users)
    findings += pin_time_problems(checking.event_log)
    pins = embeddings.pins_by_version(checking.folder, numbers["pins"])
    findings += embeddings.repeated_pins(pins)
    findings += embeddings.repeated_users(checking.folder, numbers["users"])
    _count_pins(checking, report, pins)
    return findings


def _count_pins(checking: Checking, report: LogReport, pins: dict[str, np.ndarray]) -> None:
    """Count the pins in use, and those of them that each version has."""
    in_use = np.zeros(0, dtype=np.int64)
    for kind, days, load in (
        ("impressions", report.exposures, scratch.load_parts),
        ("actions", report.deeds, scratch.load),
    ):
        for day in days:
            own = load(folder_of(checking.folder, kind, day), "own_pin", np.int64)
            in_use = distinct(np.concatenate([in_use, own]))
    report.num_pins = len(in_use)
    for version, ids in pins.items():
        is_there = np.isin(in_use, ids)
        report.num_pins_with[version] = int(is_there.sum())
        report.missing_pins[version] = tuple(in_use[~is_there][:5].tolist())
