"""What the days and totals of a log mean: its silent defects, each with a severity.

Nothing here breaks a rule of the contract, and every one of these defects has trained a wrong model
without a word. An ERROR means that a snapshot would be refused or wrong, a WARNING that a person
must look, a NOTE that a log can be right so, and mostly is not. The bounds are those of
`pipelines.contracts.data_rules`. Not for measuring (`measuring`). Tested in
tests/pipelines/log_check/test_judgements.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.contracts import data_rules as bounds
from pipelines.contracts.config import RunConfig
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.rules import Finding, missing_version, pins_without_embedding
from pipelines.log_check.report import SHIFT_HOURS, TABLES, LogReport, Problem, Severity, binned

HOURS = 24
LAST_MONTH, FEWEST_MONTHS = 12, 3
"""No month has a higher number: where no day has, days and months may have changed places."""
FEWEST_ROWS, FEWEST_DAYS = 20, 2
"""Of fewer rows or days, it may be chance that all have one time of day or one lag."""
_VALUES_NAMED = 5


def judge(
    report: LogReport,
    findings: Sequence[Finding],
    recipe: RunConfig | None,
    others: Sequence[Problem] = (),
) -> list[Problem]:
    """Return all problems of a log, the worst first.

    Args:
        report: Days and totals.
        findings: What breaks the contract.
        recipe: What the log shall serve, or None.
        others: What was judged elsewhere.
    """
    problems = [Problem(Severity.ERROR, finding) for finding in findings]
    for rule in (_times, _days, _edges, _rates, _hours, _requests, _clocks, _duplicates):
        problems += rule(report)
    problems += _embeddings(report, recipe)
    if recipe is not None:
        problems += (*_heads(report, recipe), *_categories(report, recipe))
    order = list(Severity)
    return sorted([*problems, *others], key=lambda problem: order.index(problem.severity))


def label_rates(report: LogReport) -> dict[str, dict[date, float]]:
    """Return, by action type, each day's share of impressions that got it in the label window.

    Days whose label window reaches beyond the last day of actions are left out.
    """
    acted = report.days_of("actions")
    if not acted:
        return {}
    last = acted[-1] - _label_window(report)
    rows = {day: report.rows(day, "impressions") for day in report.days_of("impressions")}
    return {
        name: {
            day: report.of(day, "labelled").get(name, 0) / num
            for day, num in rows.items()
            if num and day <= last
        }
        for name in sorted(report.total("actions"))
    }


def _problem(
    severity: Severity, rule: str, table: str, problem: str, expected: str, remedy: str, **more: Any
) -> Problem:
    """Return a problem of a table; `more` are further fields of its `Finding`."""
    return Problem(severity, Finding(rule, "", problem, expected, remedy, table=table, **more))


def _label_window(report: LogReport) -> timedelta:
    return timedelta(days=-(-report.label_window_hours // HOURS))


def _with_rows(report: LogReport, table: str) -> dict[date, int]:
    """Return the rows of the days that have some."""
    rows = {day: report.rows(day, table) for day in report.days_of(table)}
    return {day: num for day, num in rows.items() if num}


def _times(report: LogReport) -> Iterator[Problem]:
    """What looks as if days or times of day were not read as they were meant."""
    days = list(_with_rows(report, "impressions"))
    months = {(day.year, day.month) for day in days}
    if len(months) >= FEWEST_MONTHS and all(day.day <= LAST_MONTH for day in days):
        example = date(2017, 4, 3)
        yield _problem(
            Severity.WARNING,
            "days_1_to_12",
            "impressions",
            f"impressions: all are of the days 1 to {LAST_MONTH} of their months, in {len(months)} "
            f"months from {days[0]} to {days[-1]}: day and month swapped?",
            f"days of the whole month, such as {example} for the {example:%-d}rd of {example:%B}",
            "read the dates of your tables with their format (%d/%m/%Y or %m/%d/%Y), and write the "
            "log anew",
        )
    for table in TABLES:
        if report.total(f"{table}.lag").total() < FEWEST_ROWS:
            continue
        if len(report.days_of(table)) < FEWEST_DAYS:
            continue
        first = report.number(f"{table}.first_ms", largest=False)
        if first == report.number(f"{table}.last_ms"):
            seconds, ms = divmod(first % DAY_MS, 1000)
            clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
            yield _problem(
                Severity.NOTE,
                "one_time_of_day",
                table,
                f"{table}: all at {clock}{f'.{ms:03}' if ms else ''} UTC: the log has days only, "
                f"and the order within a day is unknown",
                "the time at which each of them happened",
                "write the times, or keep in mind that a request knows of its own day only what "
                "has an earlier time",
            )
        if table == "actions" and report.number("actions.longest_lag_ms") == 0:
            is_both = report.number("impressions.longest_lag_ms") == 0
            yield _problem(
                Severity.NOTE,
                "known_at_once",
                "actions",
                f"actions: known at once, known_at is acted_at in all "
                f"{report.num_rows('actions'):,} rows{', and impressions too' * is_both}; a "
                f"model is then trained on fresher sequences than serving will have",
                "known_at as the time from which serving could have read the row",
                "write when each row was known, or add the usual delay of your pipeline",
            )


def _days(report: LogReport) -> Iterator[Problem]:
    """Days between the first and the last that lack impressions, or nearly all of them."""
    days = _with_rows(report, "impressions")
    if len(days) < 3:
        return
    median, day = float(np.median(list(days.values()))), min(days)
    while day <= max(days):
        num_rows = days.get(day, 0)
        if num_rows < bounds.ROWS_OF_A_DAY.warning * median:
            yield _problem(
                Severity.WARNING,
                "few_impressions",
                "impressions",
                f"impressions: {day} has {num_rows:,} rows, the median day {median:,.0f}",
                f"at least {bounds.ROWS_OF_A_DAY.warning:.0%} of the median day",
                f"write impressions/day={day} again if it is not complete",
                day=day,
            )
        day += timedelta(days=1)


def _edges(report: LogReport) -> Iterator[Problem]:
    """Days with impressions before the first action of the log, and after its last.

    `_rates` knows no rate of the days after the last action. The newest days of impressions, whose
    labels may still come, are no problem.
    """
    shown, acted = _with_rows(report, "impressions"), _with_rows(report, "actions")
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
    answers = sum(acted.get(day, 0) for day in between)
    usual = answers / sum(shown[day] for day in between) if between else 1.0
    before = [day for day in shown if day < min(acted)]
    after = [day for day in shown if max(acted) < day <= newest]
    for days, edge in ((before, f"first is of {min(acted)}"), (after, f"last is of {max(acted)}")):
        if not days:
            continue
        expected = usual * sum(shown[day] for day in days)
        is_many = expected >= bounds.EXPECTED_ACTIONS.critical
        yield _problem(
            Severity.ERROR if is_many else Severity.WARNING,
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
    bound = bounds.LABEL_RATE_BY_NEIGHBOURS
    for name, rates in label_rates(report).items():
        for day, rate in sorted(rates.items()):
            usual = _usual_rate(rates, day)
            expected = usual * report.rows(day, "impressions")
            is_level = bound.warning * usual <= rate <= usual / bound.warning
            if expected < bound.fewest or is_level:
                continue
            num = report.of(day, "actions").get(name, 0)
            yield _problem(
                Severity.ERROR if rate <= bound.critical else Severity.WARNING,
                "label_rate",
                "actions",
                f"actions: on {day} {rate:.2%} of the impressions got {name!r}, and "
                f"{usual:.2%} on the days around it ({num:,} such actions on that day)",
                f"{bound.warning:.0%} to {1 / bound.warning:.0%} of the days around it",
                f"write actions/day={day} again if actions of it are missing or double",
                value=name,
                day=day,
            )


def _usual_rate(rates: Mapping[date, float], day: date) -> float:
    """Return what an action type's rate would be on a day; 0 where that cannot be told.

    Only days on which the type occurs say so. On a day without it, the side with the lower rate
    counts: before a new type is launched there is none, or somebody's few trials. For a type that
    ends, DAYS_AROUND days are told.
    """
    num, days = bounds.DAYS_AROUND, sorted(rates)
    place = days.index(day)
    before = [rates[each] for each in days[:place] if rates[each]][-num:]
    after = [rates[each] for each in days[place + 1 :] if rates[each]][:num]
    if rates[day]:
        return float(np.median([*before, *after])) if before or after else 0.0
    if before and after:
        return float(min(np.median(before), np.median(after)))
    has_ended_long_ago = not any(rates[each] for each in days[max(0, place - num) : place])
    return 0.0 if not before or has_ended_long_ago else float(np.median(before))


def _hours(report: LogReport) -> Iterator[Problem]:
    """Hours whose impressions got next to nothing, on days that are otherwise as usual."""
    acted, num_rows = report.days_of("actions"), report.num_rows("impressions")
    if not num_rows or not acted:
        return
    bound = bounds.LABELS_OF_AN_HOUR
    usual = report.total("labelled.hour").total() / num_rows
    last = acted[-1] - _label_window(report)
    for day in report.days_of("impressions"):
        labelled = binned(report.of(day, "labelled.hour"), HOURS)
        own_rate = float(labelled.sum()) / max(report.rows(day, "impressions"), 1)
        if day > last or own_rate < bounds.LABEL_RATE_BY_NEIGHBOURS.warning * usual:
            continue
        expected = own_rate * binned(report.of(day, "impressions.hour"), HOURS)
        is_empty = labelled <= bound.warning * expected
        run = np.cumsum(~is_empty)  # the hours of a run of empty ones share a number
        runs = np.bincount(run[is_empty], weights=expected[is_empty], minlength=HOURS + 1)
        hours = np.flatnonzero(is_empty & (runs[run] >= bound.fewest))
        if len(hours):
            yield _problem(
                Severity.WARNING,
                "hours_without_actions",
                "actions",
                f"actions: impressions of {day} got {int(labelled[hours].sum())} "
                f"actions in the hours {', '.join(f'{hour}' for hour in hours)} UTC, and "
                f"{expected[hours].sum():,.0f} would be usual",
                f"at least {bound.warning:.0%} of the usual",
                f"write actions/day={day} again if these hours are missing",
                day=day,
            )


def _requests(report: LogReport) -> Iterator[Problem]:
    """Requests that actions name and that the log does not have."""
    named = report.total("named")
    in_span, found, bound = named["in_span"], named["found"], bounds.UNKNOWN_REQUESTS
    if not in_span:
        return
    share = found / in_span
    if share < 1 - bound.warning and in_span - found >= bounds.FEWEST_UNKNOWN:
        of_others = named["of_other_user"]
        others = f", {of_others:,} are another user's" if of_others else ""
        yield _problem(
            Severity.ERROR if share < bound.critical else Severity.WARNING,
            "unknown_requests",
            "actions",
            f"actions: {in_span - found:,} of {in_span:,} that name a request ({1 - share:.0%}) "
            f"name none of their user's in the log{others}",
            f"at least {1 - bound.warning:.0%} found",
            "write the request_id of the impressions into the actions, or null where it is not "
            "known (these actions are nobody's label)",
        )
    elif (pairs := named["pair_found"] / max(found, 1)) < 1 - bounds.UNKNOWN_PAIRS.warning:
        yield _problem(
            Severity.WARNING,
            "unknown_pairs",
            "actions",
            f"actions: of {found:,} whose request is in the log, {1 - pairs:.0%} are on a "
            f"pin that the request did not show within the label window",
            f"at most {bounds.UNKNOWN_PAIRS.warning:.0%}",
            "check pin_id, or log all candidates of a request",
        )


def shift_of(shifts: npt.NDArray[np.int64]) -> tuple[int, float]:
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
    named, unnamed, bound = report.total("named"), report.total("unnamed"), bounds.EARLY_ACTIONS
    remedy = "check the time zone or the clock of the writer of either table"
    if early := named["early"]:
        hours = int(np.argmax(binned(report.total("named.early"), SHIFT_HOURS)))
        yield _problem(
            Severity.ERROR,
            "clock",
            "actions",
            f"actions: {early:,} that name their request ({early / max(named['found'], 1):.0%}) "
            f"are before it, most of them by {hours} to {hours + 1} h",
            "acted_at >= impressed_at",
            remedy,
        )
    share = unnamed["early"] / max(unnamed["near"], 1)
    if unnamed["early"] < bound.fewest or share < bound.warning:
        return
    shifts = binned(report.total("unnamed.shift"), 2 * SHIFT_HOURS, -SHIFT_HOURS)
    hours, concentration = shift_of(shifts)
    is_clock = concentration >= bounds.CONCENTRATED_SHIFT
    how = f"about {hours} h" if is_clock else "up to a day"
    yield _problem(
        Severity.ERROR if is_clock and share >= bound.critical else Severity.WARNING,
        "early_actions",
        "actions",
        f"actions {how} before their impressions at {share:.0%} of the {unnamed['near']:,} "
        f"actions without a request whose pin the user was shown within {SHIFT_HOURS} h",
        f"at most {bound.warning:.0%}",
        f"{remedy}: the answer to an impression would stand in the sequence before it",
    )


def _duplicates(report: LogReport) -> Iterator[Problem]:
    repeated = report.total("impressions")["repeated"]
    if repeated:
        share = repeated / report.num_rows("impressions")
        is_many = share > bounds.REPEATED_IMPRESSIONS.warning
        yield _problem(
            Severity.WARNING if is_many else Severity.NOTE,
            "duplicates",
            "impressions",
            f"impressions: {repeated:,} rows ({share:.1%}) repeat a request and pin of the "
            f"same day",
            "one row per (request_id, pin_id)",
            "they are dropped; write each candidate once",
        )


def _embeddings(report: LogReport, recipe: RunConfig | None) -> Iterator[Problem]:
    """Pins in use without an embedding, and embeddings that are all zero."""
    versions = sorted(report.pins)
    wanted = recipe.snapshot.embedding_version if recipe else ""
    if not wanted and versions:
        wanted = max(versions, key=lambda version: report.pins[version].num_in_use)
    if wanted and wanted not in versions:
        yield Problem(Severity.ERROR, missing_version(report.uri, wanted, versions))
    elif wanted and (missing := report.num_pins - report.pins[wanted].num_in_use):
        first = report.pins[wanted].missing
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
        if known.zero > bounds.ZERO_EMBEDDINGS.warning * known.rows:
            yield _problem(
                Severity.WARNING,
                "zero_embeddings",
                "pins",
                f"pins: {known.zero:,} of {known.rows:,} embeddings of version {version!r} are all "
                f"zero",
                f"at most {bounds.ZERO_EMBEDDINGS.warning:.0%}",
                "embed these pins; zero stands for a pin that nothing is known of",
            )


def _heads(report: LogReport, recipe: RunConfig) -> Iterator[Problem]:
    """Heads whose action the log never shows."""
    found, labelled = report.total("actions"), report.total("labelled")
    for head in recipe.features.heads:
        if labelled[head.action_type] == 0:
            is_main = head == recipe.features.main_head
            yield _problem(
                Severity.ERROR if is_main else Severity.WARNING,
                "head_without_labels",
                "actions",
                f"actions: no impression got {head.action_type!r} within "
                f"{report.label_window_hours} h, which head {head.name!r} predicts "
                f"({found[head.action_type]:,} such actions in the log)",
                "some positives of every head",
                "check that actions carry the request_id, user_id and pin_id of their impressions, "
                "or take the head out of the recipe",
            )


def _categories(report: LogReport, recipe: RunConfig) -> Iterator[Problem]:
    """Features with values that the recipe does not list: an error where no row has a listed one.

    Such a value has code 0, as a null has: a feature whose values are all unlisted trains a model
    without saying anything, and nothing breaks.
    """
    bound = recipe.data_gate.max_unknown_category_share
    for feature in recipe.features.categorical:
        name = f"{feature.table}.{feature.name}"
        found = report.unlisted.get(name)
        if found is None or not found.nulls + found.others:
            continue
        said, remedies, num_unknown = [], [], found.nulls + found.others
        if found.others:
            often = ", ".join(f"{text[:60]!r} {n:,}" for text, n in found.values[:_VALUES_NAMED])
            more = " and others" if len(found.values) > _VALUES_NAMED else ""
            said.append(
                f"{_percent(found.others, found.rows)} of the {found.rows:,} rows have a value "
                f"that the recipe does not list: {often}{more}"
            )
            remedies.append("add them to the feature's values, or correct the values in the log")
        if found.nulls:
            share = _percent(found.nulls, found.rows)
            said.append(f"{share} of the {found.rows:,} rows have a null")
            remedies.append("write a value in place of null where it is known")
        listed = ", ".join(map(repr, feature.values[:_VALUES_NAMED]))
        rest = len(feature.values) - _VALUES_NAMED
        severity = Severity.WARNING if num_unknown > bound * found.rows else Severity.NOTE
        yield _problem(
            Severity.ERROR if num_unknown == found.rows else severity,
            "unlisted_values",
            feature.table,
            f"{name}: {'; '.join(said)}",
            f"values of features.categorical ({listed}{f' and {rest} more' if rest > 0 else ''}) "
            f"in at least {1 - bound:.0%} of the rows, because a model cannot tell others apart",
            "; ".join(remedies),
            column=feature.name,
            num_rows=num_unknown,
        )


def _percent(part: int, whole: int) -> str:
    """Return a share in percent; one that is neither none nor all is never told as such."""
    share = 100 * part / whole
    if part == whole or 1 <= share <= 99:
        return f"{share:.0f}%"
    return "less than 0.01%" if share < 0.01 else f"{min(share, 99.99):.2f}%"
