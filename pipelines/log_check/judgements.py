"""What the totals of a log mean: its silent defects, each with a severity.

Nothing here breaks a rule of the contract, and every one of these defects has trained a wrong model
without a word. An ERROR means that a snapshot would be refused or wrong, a WARNING that a person
must look. The bounds are wide: a weekend or a campaign is no defect. Not for counting (`run`).
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np

from pipelines.contracts.config import RunConfig
from pipelines.event_log.rules import Finding, missing_version, pins_without_embedding
from pipelines.log_check.found import (
    HOURS,
    SHIFT_HOURS,
    Deeds,
    LogReport,
    Problem,
    Severity,
)

LOWEST_RATE_SHARE, HIGHEST_RATE_SHARE = 1 / 3, 3.0
"""A day's label rate against the median day's; outside, a person must look."""
FEWEST_EXPECTED = 20
"""Fewer labels expected on a day, or in an hour, say nothing."""
FEWEST_EXPECTED_ACTIONS = 5
"""Where as many actions are expected of some days and there is none, they are missing."""
DAYS_AROUND = 7
"""On either side of a day, as many days with labels say what is usual."""
LOWEST_DAY_SHARE = 0.1
"""A day's impressions against the median day's; the data gate has the same bound."""
LOWEST_HOUR_SHARE = 0.05
"""Labels of an hour against what its impressions would have at the log's rate."""
LOWEST_FOUND_SHARE, USUAL_FOUND_SHARE = 0.5, 0.95
"""Named requests that are in the log: below the first an error, below the second a warning."""
FEWEST_UNKNOWN = 10
HIGHEST_EARLY_SHARE, FEWEST_EARLY = 0.05, 20
"""Of actions without a request, those whose pin was shown to the user only afterwards."""
HIGHEST_DUPLICATE_SHARE = 0.05
HIGHEST_ZERO_SHARE = 0.01


def judge(
    report: LogReport,
    findings: Sequence[Finding],
    recipe: RunConfig | None,
    others: Sequence[Problem] = (),
) -> list[Problem]:
    """Return all problems of a log, the worst first.

    Args:
        report: The totals.
        findings: What breaks the contract.
        recipe: What the log shall serve, or None.
        others: What was judged elsewhere.
    """
    problems = [*(Problem(Severity.ERROR, finding) for finding in findings), *others]
    for rule in (_days, _edges, _rates, _hours, _requests, _clocks, _duplicates):
        problems += rule(report)
    problems += _embeddings(report, recipe)
    if recipe is not None:
        problems += _heads(report, recipe)
    order = list(Severity)
    return sorted(problems, key=lambda problem: order.index(problem.severity))


def label_rates(report: LogReport) -> dict[str, dict[date, float]]:
    """Return, by action type, each day's share of impressions that got it in the label window.

    Days whose label window reaches beyond the last day of actions are left out.
    """
    if not report.deeds:
        return {}
    last = max(report.deeds) - _label_window(report)
    names = sorted(report.acted.by_type)
    days = [day for day, found in report.exposures.items() if found.rows and day <= last]
    return {
        name: {
            day: report.exposures[day].labelled.get(name, 0) / report.exposures[day].rows
            for day in days
        }
        for name in names
    }


def _problem(
    severity: Severity, rule: str, table: str, problem: str, expected: str, remedy: str, **more: Any
) -> Problem:
    """Return a problem of a table; `more` are further fields of its `Finding`."""
    return Problem(severity, Finding(rule, "", problem, expected, remedy, table=table, **more))


def _days(report: LogReport) -> Iterator[Problem]:
    """Days between the first and the last that lack impressions, or nearly all of them."""
    days = {day: found.rows for day, found in report.exposures.items() if found.rows}
    if len(days) < 3:
        return
    median, day = float(np.median(list(days.values()))), min(days)
    while day <= max(days):
        num_rows = days.get(day, 0)
        if num_rows < LOWEST_DAY_SHARE * median:
            yield _problem(
                Severity.WARNING,
                "few_impressions",
                "impressions",
                f"impressions: {day} has {num_rows:,} rows, the median day {median:,.0f}",
                f"at least {LOWEST_DAY_SHARE:.0%} of the median day",
                f"write impressions/day={day} again if it is not complete",
                day=day,
            )
        day += timedelta(days=1)


def _label_window(report: LogReport) -> timedelta:
    return timedelta(days=-(-report.label_window_hours // HOURS))


def _edges(report: LogReport) -> Iterator[Problem]:
    """Days with impressions before the first action of the log, and after its last.

    `_rates` knows no rate of the days after the last action. The newest days of impressions, whose
    labels may still come, are no problem.
    """
    shown = {day: found.rows for day, found in report.exposures.items() if found.rows}
    acted = [day for day, found in report.deeds.items() if found.rows]
    if not shown:
        return
    if not acted:
        yield _problem(
            Severity.ERROR,
            "no_actions",
            "actions",
            f"actions: there is none, and {sum(shown.values()):,} impressions from {min(shown)} "
            f"to {max(shown)}",
            "what users did with what they were shown",
            "write the actions of these days",
        )
        return
    newest = max(shown) - _label_window(report)
    between = [day for day in shown if min(acted) <= day <= max(acted)]
    answers = sum(report.deeds[day].rows for day in between if day in report.deeds)
    usual = answers / sum(shown[day] for day in between) if between else 1.0
    before = [day for day in shown if day < min(acted)]
    after = [day for day in shown if max(acted) < day <= newest]
    for days, edge in ((before, f"first is of {min(acted)}"), (after, f"last is of {max(acted)}")):
        if not days:
            continue
        expected = usual * sum(shown[day] for day in days)
        yield _problem(
            Severity.ERROR if expected >= FEWEST_EXPECTED_ACTIONS else Severity.WARNING,
            "days_without_actions",
            "actions",
            f"actions: none from {min(days)} to {max(days)}, {len(days)} days with impressions; "
            f"the {edge}, and about {expected:,.0f} would be usual",
            "actions on every day with impressions",
            "write these days of the actions again, or leave the impressions out that nobody "
            "could answer",
        )


def _rates(report: LogReport) -> Iterator[Problem]:
    """Days on which the label rate of an action type is far from its neighbours'."""
    for name, rates in label_rates(report).items():
        for day, rate in sorted(rates.items()):
            usual = _usual_rate(rates, day)
            expected = usual * report.exposures[day].rows
            is_level = LOWEST_RATE_SHARE * usual <= rate <= HIGHEST_RATE_SHARE * usual
            if expected < FEWEST_EXPECTED or is_level:
                continue
            severity = Severity.ERROR if rate == 0 else Severity.WARNING
            num = report.deeds.get(day, Deeds()).by_type.get(name, 0)
            yield _problem(
                severity,
                "label_rate",
                "actions",
                f"actions: on {day} {rate:.2%} of the impressions got {name!r}, and "
                f"{usual:.2%} on the days around it ({num:,} such actions on that day)",
                f"{LOWEST_RATE_SHARE:.0%} to {HIGHEST_RATE_SHARE:.0%} of the days around it",
                f"write actions/day={day} again if actions of it are missing or double",
                value=name,
                day=day,
            )


def _usual_rate(rates: dict[date, float], day: date) -> float:
    """Return what an action type's rate would be on a day; 0 where that cannot be told.

    Only days on which the type occurs say so. On a day without it, the side with the lower rate
    counts: before a new type is launched there is none, or somebody's few trials. For a type that
    ends, DAYS_AROUND days are told.
    """
    days = sorted(rates)
    place = days.index(day)
    before = [rates[each] for each in days[:place] if rates[each]][-DAYS_AROUND:]
    after = [rates[each] for each in days[place + 1 :] if rates[each]][:DAYS_AROUND]
    if rates[day]:
        return float(np.median([*before, *after])) if before or after else 0.0
    if before and after:
        return float(min(np.median(before), np.median(after)))
    has_ended_long_ago = not any(rates[each] for each in days[max(0, place - DAYS_AROUND) : place])
    return 0.0 if not before or has_ended_long_ago else float(np.median(before))


def _hours(report: LogReport) -> Iterator[Problem]:
    """Hours whose impressions got next to nothing, on days that are otherwise as usual."""
    shown = report.shown
    if not shown.rows or not report.deeds:
        return
    usual = float(shown.labelled_per_hour.sum()) / shown.rows
    last = max(report.deeds) - _label_window(report)
    for day, found in sorted(report.exposures.items()):
        own_rate = float(found.labelled_per_hour.sum()) / max(found.rows, 1)
        if day > last or own_rate < LOWEST_RATE_SHARE * usual:
            continue
        expected = own_rate * found.per_hour
        hours = _empty_hours(found.labelled_per_hour, expected)
        if len(hours):
            yield _problem(
                Severity.WARNING,
                "hours_without_actions",
                "actions",
                f"actions: impressions of {day} got {int(found.labelled_per_hour[hours].sum())} "
                f"actions in the hours {', '.join(f'{hour}' for hour in hours)} UTC, and "
                f"{expected[hours].sum():,.0f} would be usual",
                f"at least {LOWEST_HOUR_SHARE:.0%} of the usual",
                f"write actions/day={day} again if these hours are missing",
                day=day,
            )


def _empty_hours(labelled: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the hours in runs that have next to no labels though many were expected in the run."""
    is_empty = labelled <= LOWEST_HOUR_SHARE * expected
    run = np.cumsum(~is_empty)  # the hours of a run of empty ones share a number
    runs = np.bincount(run[is_empty], weights=expected[is_empty], minlength=HOURS + 1)
    return np.flatnonzero(is_empty & (runs[run] >= FEWEST_EXPECTED))


def _requests(report: LogReport) -> Iterator[Problem]:
    """Requests that actions name and that the log does not have."""
    acted = report.acted
    if not acted.named_in_span:
        return
    share = acted.found / acted.named_in_span
    if share < USUAL_FOUND_SHARE and acted.named_in_span - acted.found >= FEWEST_UNKNOWN:
        others = f", {acted.of_other_user:,} are another user's" if acted.of_other_user else ""
        yield _problem(
            Severity.ERROR if share < LOWEST_FOUND_SHARE else Severity.WARNING,
            "unknown_requests",
            "actions",
            f"actions: {acted.named_in_span - acted.found:,} of {acted.named_in_span:,} that name "
            f"a request ({1 - share:.0%}) name none of their user's in the log{others}",
            f"at least {USUAL_FOUND_SHARE:.0%} found",
            "write the request_id of the impressions into the actions, or null where it is not "
            "known (these actions are nobody's label)",
        )
    elif (pairs := acted.pair_found / max(acted.found, 1)) < USUAL_FOUND_SHARE:
        yield _problem(
            Severity.WARNING,
            "unknown_pairs",
            "actions",
            f"actions: of {acted.found:,} whose request is in the log, {1 - pairs:.0%} are on a "
            f"pin that the request did not show within the label window",
            f"at most {1 - USUAL_FOUND_SHARE:.0%}",
            "check pin_id, or log all candidates of a request",
        )


def shift_of(shifts: np.ndarray) -> tuple[int, float]:
    """Return by how many hours most early actions are early, and how many of them are so.

    Args:
        shifts: [2 * SHIFT_HOURS] actions by whole hours from the nearest impression.
    """
    early = shifts[:SHIFT_HOURS][::-1]  # place h: early by h to h + 1 hours
    if not early.any():
        return 0, 0.0
    hours = int(np.argmax(early))
    return hours + 1, float(early[max(0, hours - 1) : hours + 2].sum() / early.sum())


def _clocks(report: LogReport) -> Iterator[Problem]:
    """Actions that happened before what they answer."""
    acted = report.acted
    if acted.early_named:
        hours = int(np.argmax(acted.early_named_per_hour))
        share = acted.early_named / max(acted.found, 1)
        yield _problem(
            Severity.ERROR,
            "clock",
            "actions",
            f"actions: {acted.early_named:,} that name their request ({share:.0%}) are before it, "
            f"most of them by {hours} to {hours + 1} h",
            "acted_at >= impressed_at",
            "check the time zone or the clock of the writer of either table",
        )
    share = acted.unnamed_early / max(acted.unnamed_near, 1)
    if acted.unnamed_early < FEWEST_EARLY or share < HIGHEST_EARLY_SHARE:
        return
    hours, concentration = shift_of(acted.shifts)
    is_clock = concentration >= 0.5
    how = f"about {hours} h" if is_clock else "up to a day"
    yield _problem(
        Severity.ERROR if is_clock and share >= 2 * HIGHEST_EARLY_SHARE else Severity.WARNING,
        "early_actions",
        "actions",
        f"actions {how} before their impressions at {share:.0%} of the {acted.unnamed_near:,} "
        f"actions without a request whose pin the user was shown within {SHIFT_HOURS} h",
        f"at most {HIGHEST_EARLY_SHARE:.0%}",
        "check the time zone or the clock of the writer of either table: the answer to an "
        "impression would stand in the sequence before it",
    )


def _duplicates(report: LogReport) -> Iterator[Problem]:
    shown = report.shown
    if shown.duplicates:
        share = shown.duplicates / shown.rows
        yield _problem(
            Severity.WARNING if share > HIGHEST_DUPLICATE_SHARE else Severity.NOTE,
            "duplicates",
            "impressions",
            f"impressions: {shown.duplicates:,} rows ({share:.1%}) repeat a request and pin of the "
            f"same day",
            "one row per (request_id, pin_id)",
            "they are dropped; write each candidate once",
        )


def _embeddings(report: LogReport, recipe: RunConfig | None) -> Iterator[Problem]:
    """Pins in use without an embedding, and embeddings that are all zero."""
    versions = sorted(report.pins)
    wanted = recipe.snapshot.embedding_version if recipe else ""
    if not wanted and versions:
        wanted = max(versions, key=lambda version: report.num_pins_with.get(version, 0))
    if wanted and wanted not in versions:
        found = missing_version(report.uri, wanted, versions)
        yield Problem(Severity.ERROR, found)
    elif wanted and (missing := report.num_pins - report.num_pins_with.get(wanted, 0)):
        first = report.missing_pins.get(wanted, ())
        found = pins_without_embedding(first, missing, report.num_pins, wanted)
        yield Problem(Severity.ERROR, found)
    own, users = report.pins[wanted].widths if wanted in versions else {}, report.users.widths
    if len(own) == len(users) == 1 and own.keys() != users.keys():
        yield _problem(
            Severity.ERROR,
            "width_of_users",
            "users",
            f"users: embeddings are {min(users)} wide, and those of the pins of version "
            f"{wanted!r} {min(own)}",
            "one width, because a model multiplies them",
            "embed users and pins alike",
        )
    for version, known in sorted(report.pins.items()):
        if known.zero > HIGHEST_ZERO_SHARE * known.rows:
            yield _problem(
                Severity.WARNING,
                "zero_embeddings",
                "pins",
                f"pins: {known.zero:,} of {known.rows:,} embeddings of version {version!r} are all "
                f"zero",
                f"at most {HIGHEST_ZERO_SHARE:.0%}",
                "embed these pins; zero stands for a pin that nothing is known of",
            )


def _heads(report: LogReport, recipe: RunConfig) -> Iterator[Problem]:
    """Heads whose action the log never shows."""
    found, shown = report.acted.by_type, report.shown
    for head in recipe.features.heads:
        is_main = head == recipe.features.main_head
        if shown.labelled.get(head.action_type, 0) == 0:
            yield _problem(
                Severity.ERROR if is_main else Severity.WARNING,
                "head_without_labels",
                "actions",
                f"actions: no impression got {head.action_type!r} within "
                f"{report.label_window_hours} h, which head {head.name!r} predicts "
                f"({found.get(head.action_type, 0):,} such actions in the log)",
                "some positives of every head",
                "check that actions carry the request_id, user_id and pin_id of their impressions, "
                "or take the head out of the recipe",
            )
