"""What the days and totals of a log mean: its silent defects, each with a severity.

Nothing here breaks a rule of the contract, and every one of these defects has trained a wrong model
without a word. An ERROR means that a snapshot would be refused or wrong, a WARNING that a person
must look, a NOTE that a log can be right so, and mostly is not. What is said stands in JUDGED, and
the bounds in `pipelines.contracts.data_rules`. Not for measuring (`measuring`). Tested in
tests/pipelines/log_check/test_judgements.py.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from pipelines.contracts import data_rules as bounds
from pipelines.contracts.config import RunConfig
from pipelines.contracts.time import DAY_MS
from pipelines.event_log import rules
from pipelines.event_log.rules import Finding, Rule, Severity, pins_without_embedding
from pipelines.log_check.report import SHIFT_HOURS, TABLES, LogReport, binned

HOURS = 24
LAST_MONTH, FEWEST_MONTHS = 12, 3
"""No month has a higher number: where no day has, days and months may have changed places."""
FEWEST_ROWS, FEWEST_DAYS = 20, 2
"""Of fewer rows or days, it may be chance that all have one time of day or one lag."""

ERROR, WARNING, NOTE = Severity
_RATES = bounds.LABEL_RATE_BY_NEIGHBOURS
JUDGED = {
    "days_1_to_12": Rule(
        "all are of the days 1 to 12 of their months, in {num} months from {first} to {last}: day "
        "and month swapped?",
        "expected days of the whole month, such as 2017-04-03 for the 3rd of April; read the dates "
        "of your tables with their format (%d/%m/%Y or %m/%d/%Y), and write the log anew",
        "impressions", WARNING),
    "one_time_of_day": Rule(
        "all at {clock} UTC: the log has days only, and the order within a day is unknown",
        "expected the time at which each of them happened; write the times, or keep in mind that a "
        "request knows of its own day only what has an earlier time", "", NOTE),
    "known_at_once": Rule(
        "known at once, known_at is acted_at in all {num:,} rows; a model is then trained on "
        "fresher sequences than serving will have",
        "expected known_at as the time from which serving could have read the row; write when each "
        "row was known, or add the usual delay of your pipeline", "actions", NOTE),
    "few_impressions": Rule("{day} has {num:,} rows, the median day {median:,.0f}",
        f"expected at least {bounds.ROWS_OF_A_DAY.warning:.0%} of the median day; write "
        "impressions/day={day} again if it is not complete", "impressions", WARNING),
    "no_actions": Rule("there is none, and {num:,} impressions from {first} to {last}",
        "expected what users did with what they were shown; write the actions of these days",
        "actions"),
    "days_without_actions": Rule(
        "none from {first} to {last}, {num} days with impressions; the {edge}, and about "
        "{expected:,.0f} would be usual",
        "expected actions on every day with impressions; write these days of the actions again, or "
        "leave the impressions out that nobody could answer", "actions"),
    "label_rate": Rule(
        "on {day} {rate:.2%} of the impressions got {value!r}, and {usual:.2%} on the days around "
        "it ({num:,} such actions on that day)",
        f"expected {_RATES.warning:.0%} to {1 / _RATES.warning:.0%} of the days around it; write "
        "actions/day={day} again if actions of it are missing or double", "actions"),
    "hours_without_actions": Rule(
        "impressions of {day} got {num} actions in the hours {hours} UTC, and {expected:,.0f} "
        "would be usual",
        f"expected at least {bounds.LABELS_OF_AN_HOUR.warning:.0%} of the usual; write "
        "actions/day={day} again if these hours are missing", "actions", WARNING),
    "unknown_requests": Rule(
        "{num:,} of {in_span:,} that name a request ({share:.0%}) name none of their user's in the "
        "log, {of_others:,} of them another user's",
        f"expected at least {1 - bounds.UNKNOWN_REQUESTS.warning:.0%} found; write the request_id "
        "of the impressions into the actions, or null where it is not known (these actions are "
        "nobody's label)", "actions"),
    "unknown_pairs": Rule(
        "of {num:,} whose request is in the log, {share:.0%} are on a pin that the request did not "
        "show within the label window",
        f"expected at most {bounds.UNKNOWN_PAIRS.warning:.0%}; check pin_id, or log all candidates "
        "of a request", "actions", WARNING),
    "clock": Rule(
        "{num:,} that name their request ({share:.0%}) are before it, most of them by {hours} to "
        "{end} h",
        "expected acted_at >= impressed_at; check the time zone or the clock of the writer of "
        "either table", "actions"),
    "early_actions": Rule(
        "{when} before their impressions are {share:.0%} of the {num:,} actions without a request "
        "whose pin the user was shown within 24 h",
        f"expected at most {bounds.EARLY_ACTIONS.warning:.0%}; check the time zone or the clock "
        "of the writer of either table: the answer to an impression would stand in the sequence "
        "before it", "actions"),
    "duplicates": Rule("{num:,} rows ({share:.1%}) repeat a request and pin of the same day",
        "expected one row per (request_id, pin_id); they are dropped; write each candidate once",
        "impressions"),
    "width_of_users": Rule(
        "embeddings are {users} wide, and those of the pins of version {version!r} {pins}",
        "expected one width, because a model multiplies them; embed users and pins alike", "users"),
    "embedding_width": Rule(
        "embeddings of {whose} have several widths: {most:,} of {usual} numbers, {others}",
        "expected one width in a version; write these rows again, or under an embedding_version of "
        "their own"),
    "zero_embeddings": Rule("{zero:,} of {rows:,} embeddings of {whose} are all zero",
        f"expected at most {bounds.ZERO_EMBEDDINGS.warning:.0%}; embed these pins; zero stands "
        "for a pin that nothing is known of", "pins", WARNING),
    "head_without_labels": Rule(
        "no impression got {value!r} within {hours} h, which head {head!r} predicts ({num:,} such "
        "actions in the log)",
        "expected some positives of every head; check that actions carry the request_id, user_id "
        "and pin_id of their impressions, or take the head out of the recipe", "actions"),
    "unlisted_values": Rule(
        "{column}: {num_rows:,} of {rows:,} rows ({share:.2%}) have a value that the recipe does "
        "not list: {said}",
        "expected values of features.categorical in at least {least:.0%} of the rows, because a "
        "model cannot tell others apart; add them to the feature's values, or correct the values "
        "in the log"),
}  # fmt: skip
"""What is said of each defect; where no severity stands here, it depends on how bad it is."""


def judge(report: LogReport, recipe: RunConfig | None) -> Iterator[Finding]:
    """Yield what is worth saying of a log's days and totals, and of the recipe that it serves."""
    for judged in (_times, _days, _rates, _hours, _requests, _clocks):
        yield from judged(report)
    yield from _embeddings(report, recipe)
    if recipe is not None:
        yield from _of_recipe(report, recipe)


def _finding(rule: str, **facts: Any) -> Finding:
    return rules.finding(rule, "", JUDGED, **facts)


def _worse(is_error: object) -> Severity:
    return ERROR if is_error else WARNING


def _with_rows(report: LogReport, table: str) -> dict[date, int]:
    """Return the rows of the days that have some."""
    rows = {day: report.rows(day, table) for day in report.days_of(table)}
    return {day: num for day, num in rows.items() if num}


def _times(report: LogReport) -> Iterator[Finding]:
    """What looks as if days or times of day were not read as they were meant."""
    days = list(_with_rows(report, "impressions"))
    num = len({(day.year, day.month) for day in days})
    if num >= FEWEST_MONTHS and all(day.day <= LAST_MONTH for day in days):
        yield _finding("days_1_to_12", num=num, first=days[0], last=days[-1])
    for table in TABLES:
        days, first = report.days_of(table), report.numbers(f"{table}.first_ms")
        is_enough = sum(report.usable(day, table) for day in days) >= FEWEST_ROWS
        if not is_enough or len(days) < FEWEST_DAYS or not first:
            continue
        if first[0] == report.numbers(f"{table}.last_ms")[-1]:
            clock = datetime.fromtimestamp(first[0] % DAY_MS / 1000, UTC)
            yield _finding("one_time_of_day", table=table, clock=f"{clock:%H:%M:%S}")
        if table == "actions" and report.numbers("actions.longest_lag_ms")[-1] == 0:
            yield _finding("known_at_once", num=report.num_rows(table))


def _days(report: LogReport) -> Iterator[Finding]:
    """Days that lack impressions, or nearly all of them, and days before or after all actions.

    `_rates` knows no rate of the days after the last action. The newest days of impressions, whose
    labels may still come, are no problem.
    """
    shown, acted = _with_rows(report, "impressions"), _with_rows(report, "actions")
    if not shown:
        return
    first, last = min(shown), max(shown)
    if len(shown) >= 3:
        median = float(np.median(list(shown.values())))
        for day in (first + timedelta(days=n) for n in range((last - first).days + 1)):
            if (num := shown.get(day, 0)) < bounds.ROWS_OF_A_DAY.warning * median:
                yield _finding("few_impressions", day=day, num=num, median=median)
    if not acted:
        yield _finding("no_actions", num=sum(shown.values()), first=first, last=last)
        return
    between = [day for day in shown if min(acted) <= day <= max(acted)]
    answers = sum(acted.get(day, 0) for day in between)
    usual = answers / sum(shown[day] for day in between) if between else 1.0
    before = [day for day in shown if day < min(acted)]
    after = [day for day in shown if max(acted) < day <= last - report.label_window]
    for days, edge in ((before, f"first is of {min(acted)}"), (after, f"last is of {max(acted)}")):
        if days:
            expected = usual * sum(shown[day] for day in days)
            told = {"first": min(days), "last": max(days), "num": len(days), "edge": edge}
            severity = _worse(expected >= bounds.EXPECTED_ACTIONS.critical)
            yield _finding("days_without_actions", **told, expected=expected, severity=severity)


def _rates(report: LogReport) -> Iterator[Finding]:
    """Days on which the label rate of an action type is far from its neighbours'."""
    for name, rates in report.label_rates().items():
        for day, rate in sorted(rates.items()):
            usual = _usual_rate(rates, day)
            is_level = _RATES.warning * usual <= rate <= usual / _RATES.warning
            if usual * report.rows(day, "impressions") >= _RATES.fewest and not is_level:
                told = {"rate": rate, "usual": usual, "num": report.of(day, "actions").get(name, 0)}
                severity = _worse(rate <= _RATES.critical)
                yield _finding("label_rate", value=name, day=day, severity=severity, **told)


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


def _hours(report: LogReport) -> Iterator[Finding]:
    """Hours whose impressions got next to nothing, on days that are otherwise as usual."""
    acted, num_rows = report.days_of("actions"), report.num_rows("impressions")
    if not num_rows or not acted:
        return
    bound = bounds.LABELS_OF_AN_HOUR
    usual = report.total("labelled.hour").total() / num_rows
    for day in report.days_of("impressions"):
        labelled = binned(report.of(day, "labelled.hour"), HOURS)
        own_rate = float(labelled.sum()) / max(report.rows(day, "impressions"), 1)
        # The labels of the last days may still come.
        is_open = day > acted[-1] - report.label_window
        if is_open or own_rate < _RATES.warning * usual:
            continue
        expected = own_rate * binned(report.of(day, "impressions.hour"), HOURS)
        is_empty = labelled <= bound.warning * expected
        run = np.cumsum(~is_empty)  # the hours of a run of empty ones share a number
        runs = np.bincount(run[is_empty], weights=expected[is_empty], minlength=HOURS + 1)
        hours = np.flatnonzero(is_empty & (runs[run] >= bound.fewest))
        if len(hours):
            told = {"num": int(labelled[hours].sum()), "hours": ", ".join(map(str, hours))}
            yield _finding("hours_without_actions", day=day, expected=expected[hours].sum(), **told)


def _requests(report: LogReport) -> Iterator[Finding]:
    """Requests that actions name and the log does not have, and impressions that it repeats."""
    named, bound = report.total("named"), bounds.UNKNOWN_REQUESTS
    in_span, found = named["in_span"], named["found"]
    share, pairs = found / max(in_span, 1), named["pair_found"] / max(found, 1)
    if in_span - found >= bounds.FEWEST_UNKNOWN and share < 1 - bound.warning:
        told = {"num": in_span - found, "in_span": in_span, "of_others": named["of_other_user"]}
        severity = _worse(share < bound.critical)
        yield _finding("unknown_requests", **told, share=1 - share, severity=severity)
    elif in_span and pairs < 1 - bounds.UNKNOWN_PAIRS.warning:
        yield _finding("unknown_pairs", num=found, share=1 - pairs)
    if repeated := report.total("impressions")["repeated"]:
        share = repeated / report.num_rows("impressions")
        severity = WARNING if share > bounds.REPEATED_IMPRESSIONS.warning else NOTE
        yield _finding("duplicates", num=repeated, share=share, severity=severity)


def _clocks(report: LogReport) -> Iterator[Finding]:
    """Actions that happened before what they answer."""
    named, unnamed, bound = report.total("named"), report.total("unnamed"), bounds.EARLY_ACTIONS
    if early := named["early"]:
        hours = int(np.argmax(binned(report.total("named.early"), SHIFT_HOURS)))
        share = early / max(named["found"], 1)
        yield _finding("clock", num=early, share=share, hours=hours, end=hours + 1)
    share = unnamed["early"] / max(unnamed["near"], 1)
    if unnamed["early"] < bound.fewest or share < bound.warning:
        return
    shifts = binned(report.total("unnamed.shift"), 2 * SHIFT_HOURS, -SHIFT_HOURS)
    by_hour = shifts[:SHIFT_HOURS][::-1]  # place h: early by h to h + 1 hours
    most = int(np.argmax(by_hour))
    concentration = by_hour[max(0, most - 1) : most + 2].sum() / max(by_hour.sum(), 1)
    is_clock = concentration >= bounds.CONCENTRATED_SHIFT
    when = f"about {most + 1} h" if is_clock else "up to a day"
    severity = _worse(is_clock and share >= bound.critical)
    told = {"when": when, "share": share, "num": unnamed["near"]}
    yield _finding("early_actions", severity=severity, **told)


def _embeddings(report: LogReport, recipe: RunConfig | None) -> Iterator[Finding]:
    """Pins in use without an embedding, widths that differ, and embeddings that are all zero."""
    wanted = recipe.snapshot.embedding_version if recipe else ""
    if not wanted and report.pins:
        wanted = max(sorted(report.pins), key=lambda version: report.pins[version].num_in_use)
    own, users = report.pins.get(wanted), report.users.widths
    if wanted and own is None:
        told = {"version": wanted, "uri": report.uri, "found": sorted(report.pins)}
        yield rules.finding("missing_version", **told)
    elif own and (missing := report.num_pins - own.num_in_use):
        yield pins_without_embedding(own.missing, missing, report.num_pins, wanted)
    if own and len(own.widths) == len(users) == 1 and own.widths.keys() != users.keys():
        of = {"users": min(users), "pins": min(own.widths)}
        yield _finding("width_of_users", **of, version=wanted)
    of_all = {f"pins of version {version!r}": known for version, known in report.pins.items()}
    for whose, known in sorted((of_all | {"users": report.users}).items()):
        if len(known.widths) > 1:
            [(usual, most), *others] = known.widths.most_common()
            said = ", ".join(f"{rows:,} of {width}" for width, rows in sorted(others))
            place = {"table": whose.split(" ")[0], "column": "embedding", "whose": whose}
            num = sum(rows for _, rows in others)
            widths = {"most": most, "usual": usual, "others": said}
            yield _finding("embedding_width", **place, **widths, num_rows=num)
        if whose != "users" and known.zero > bounds.ZERO_EMBEDDINGS.warning * known.rows:
            yield _finding("zero_embeddings", whose=whose, zero=known.zero, rows=known.rows)


def _of_recipe(report: LogReport, recipe: RunConfig) -> Iterator[Finding]:
    """Heads whose action the log never shows, and features with values that are not listed.

    Such a value has code 0, as a null has: a feature whose values are all unlisted trains a model
    without saying anything, and nothing breaks. That is an error.
    """
    acted, labelled = report.total("actions"), report.total("labelled")
    for head in recipe.features.heads:
        if labelled[head.action_type] == 0:
            told = {"head": head.name, "num": acted[head.action_type]}
            told |= {"hours": report.label_window_hours, "value": head.action_type}
            severity = _worse(head == recipe.features.main_head)
            yield _finding("head_without_labels", **told, severity=severity)
    bound = recipe.data_gate.max_unknown_category_share
    for feature in recipe.features.categorical:
        found = report.unlisted[f"{feature.table}.{feature.name}"]
        if unknown := found.nulls + found.others:
            said = [f"{text[:60]!r} {num:,}" for text, num in found.values]
            is_many, none_is_listed = unknown > bound * found.rows, unknown == found.rows
            yield _finding(
                "unlisted_values",
                table=feature.table,
                column=feature.name,
                num_rows=unknown,
                rows=found.rows,
                share=unknown / found.rows,
                said=", ".join([f"null {found.nulls:,}"] * bool(found.nulls) + said),
                least=1 - bound,
                severity=ERROR if none_is_listed else WARNING if is_many else NOTE,
            )
