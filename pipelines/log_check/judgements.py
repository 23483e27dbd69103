"""What the days and totals of a log mean: its silent defects, each with a severity.

Nothing here breaks a rule of the contract, and every one of these defects has trained a wrong model
without a word. An ERROR means that a snapshot would be refused or wrong, a WARNING that a person
must look, a NOTE that a log can be right so, and mostly is not. What is said stands in
`pipelines.event_log.rules`, and the bounds in `pipelines.contracts.data_rules`. Not for measuring
(`measuring`). Tested in tests/pipelines/log_check/test_judgements.py.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipelines.contracts import data_rules as bounds
from pipelines.contracts.config import RunConfig
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.rules import (
    ERROR,
    EVENT_TIME_COLUMNS,
    NOTE,
    WARNING,
    Finding,
    Severity,
    finding,
    pins_without_embedding,
)
from pipelines.log_check.report import SHIFT_HOURS, TABLES, LogReport

HOURS = 24
SUNDAY, MARCH, OCTOBER, NOVEMBER = 6, 3, 10, 11
BESIDE = 3
"""So many days before and after a change of clocks say what is usual."""
LAST_MONTH, FEWEST_MONTHS = 12, 3
"""No month has a higher number: where no day has, days and months may have changed places."""
FOLLOWS = {
    "label_rate": ("hours_without_actions", "days_without_actions"),
    "unknown_requests": ("few_impressions",),
}
"""Rules whose warning follows from what others say."""
FEWEST_ROWS, FEWEST_DAYS = 20, 2
"""Of fewer rows or days, it may be chance that all have one time of day or one lag."""
_RATES = bounds.LABEL_RATE_BY_NEIGHBOURS


def judge(report: LogReport, recipe: RunConfig | None) -> Iterator[Finding]:
    """Yield what is worth saying of a log's days and totals, and of the recipe that it serves."""
    report, far = _without_far_days(report)
    yield from far
    asked = (_times, _days, _rates, _hours, _requests, _shown, _clocks, _clock_changes)
    found = [each for judged in asked for each in judged(report)]
    yield from (each for each in found if not _follows(each, found))
    yield from judge_embeddings(report, recipe)
    if recipe is not None:
        yield from _of_recipe(report, recipe)


def _follows(each: Finding, found: list[Finding]) -> bool:
    """Return whether a warning is about what another finding, of the same day, says more nearly."""
    days = {other.day for other in found if other.rule in FOLLOWS.get(each.rule, ())}
    return each.severity is WARNING and bool(days and (each.day is None or {each.day, None} & days))


def _worse(is_error: object) -> Severity:
    return ERROR if is_error else WARNING


def _binned(counts: Mapping[str, int], num_bins: int, first: int = 0) -> npt.NDArray[np.int64]:
    """Return counts by whole numbers from `first` on as an array."""
    return np.array([counts.get(str(place + first), 0) for place in range(num_bins)])


def _without_far_days(report: LogReport) -> tuple[LogReport, list[Finding]]:
    """Return the report without the few days that are far from the others, which are told."""
    left, findings = dict(report.days), list[Finding]()
    for table in TABLES:
        rows = {day: num for day, num in report.rows(table).items() if num}
        most, days = bounds.FAR_ROWS * sum(rows.values()), [*rows]
        for place, (before, first) in enumerate(pairwise(days), 1):
            gap, num = (first - before).days, sum(rows[day] for day in days[place:])
            if gap > bounds.FAR_DAYS and num <= most:
                told = {"first": first, "last": days[-1], "gap": gap, "before": before, "num": num}
                column = EVENT_TIME_COLUMNS[table]
                findings.append(finding("far_days", table=table, column=column, **told))
                left = {day: of for day, of in left.items() if day < first}
                break
    return (replace(report, days=left) if findings else report), findings


def _times(report: LogReport) -> Iterator[Finding]:
    """What looks as if days or times of day were not read as they were meant."""
    days = [day for day, num in report.rows("impressions").items() if num]
    num = len({(day.year, day.month) for day in days})
    if num >= FEWEST_MONTHS and all(day.day <= LAST_MONTH for day in days):
        yield finding("days_1_to_12", num=num, first=days[0], last=days[-1])
    for table in TABLES:
        rows, first = report.rows(table), report.numbers(f"{table}.first_ms")
        num = sum(rows.values())
        if num < FEWEST_ROWS or len(rows) < FEWEST_DAYS or not first:
            continue
        if first[0] == report.numbers(f"{table}.last_ms")[-1]:
            clock = datetime.fromtimestamp(first[0] % DAY_MS / 1000, UTC)
            yield finding("one_time_of_day", table=table, clock=f"{clock:%H:%M:%S}")
        if table == "actions" and report.numbers("actions.longest_lag_ms")[-1] == 0:
            yield finding("known_at_once", num=num)


def _days(report: LogReport) -> Iterator[Finding]:
    """Days that lack impressions, or nearly all of them, and days before or after all actions.

    `_rates` knows no rate of the days after the last action. The newest days of impressions, whose
    labels may still come, are no problem.
    """
    shown, acted = (
        {day: num for day, num in report.rows(table).items() if num} for table in TABLES
    )
    if not shown:
        return
    first, last = min(shown), max(shown)
    if len(shown) >= 3:
        median = float(np.median(list(shown.values())))
        for day in (first + timedelta(days=n) for n in range((last - first).days + 1)):
            is_cut = report.complete and report.complete.cut_at and day == last
            few = bounds.ROWS_OF_A_DAY.warning * median
            if (num := shown.get(day, 0)) < few and not is_cut:
                yield finding("few_impressions", day=day, num=num, median=median)
    if not acted:
        yield finding("no_actions", num=sum(shown.values()), first=first, last=last)
        return
    start, end = min(acted), max(acted)
    between = [day for day in shown if start <= day <= end]
    answers = sum(acted.get(day, 0) for day in between)
    usual = answers / sum(shown[day] for day in between) if between else 1.0
    before = [day for day in shown if day < start]
    after = [day for day in shown if end < day <= last - report.label_window]
    for days, edge in ((before, f"first is of {start}"), (after, f"last is of {end}")):
        if days:
            expected = usual * sum(shown[day] for day in days)
            told = {"first": min(days), "last": max(days), "num": len(days), "edge": edge}
            severity = _worse(expected >= bounds.EXPECTED_ACTIONS.critical)
            yield finding("days_without_actions", **told, expected=expected, severity=severity)


def _rates(report: LogReport) -> Iterator[Finding]:
    """Days on which label rates are far from their neighbours': the commonest type's is told."""
    shown, far = report.rows("impressions"), defaultdict[tuple[date, Severity], list](list)
    for name, rates in report.label_rates().items():
        for day, rate in sorted(rates.items()):
            usual = _usual_rate(rates, day)
            is_level = _RATES.warning * usual <= rate <= usual / _RATES.warning
            if usual * shown[day] >= _RATES.fewest and not is_level:
                severity = _worse(rate <= _RATES.critical)
                far[day, severity].append((usual, rate, name))
    for (day, severity), types in far.items():
        (usual, rate, name), *others = sorted(types, reverse=True)
        also = f" (as of {', '.join(repr(other) for *_, other in others)})" if others else ""
        told = {"rate": rate, "usual": usual, "most": 1 / _RATES.warning, "also": also}
        told |= {"num": report.of(day, "actions").get(name, 0)}
        yield finding("label_rate", value=name, day=day, severity=severity, **told)


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
    acted, shown = report.days_of("actions"), report.rows("impressions")
    bound, num_labelled = bounds.LABELS_OF_AN_HOUR, report.total("labelled.hour").total()
    for day, num in shown.items():
        # The labels of the last days may still come.
        if not acted or not num or day > acted[-1] - report.label_window:
            continue
        labelled = _binned(report.of(day, "labelled.hour"), HOURS)
        own_rate = labelled.sum() / num
        if own_rate < _RATES.warning * num_labelled / sum(shown.values()):
            continue
        expected = own_rate * _binned(report.of(day, "impressions.hour"), HOURS)
        is_empty = labelled <= bound.warning * expected
        # Hours far apart may be empty by chance: each run of them, which share a number, must tell.
        run = np.cumsum(~is_empty)
        of_runs = np.bincount(run, weights=expected * is_empty)
        if len(hours := np.flatnonzero(is_empty & (of_runs[run] >= bound.fewest))):
            told = {"num": labelled[hours].sum(), "hours": ", ".join(map(str, hours))}
            yield finding("hours_without_actions", day=day, expected=expected[hours].sum(), **told)


def _requests(report: LogReport) -> Iterator[Finding]:
    """Requests that actions name and the log does not have, and impressions that it repeats."""
    named, bound = report.total("named"), bounds.UNKNOWN_REQUESTS
    in_span, found = named["in_span"], named["found"]
    share, pairs = found / max(in_span, 1), named["pair_found"] / max(found, 1)
    if in_span - found >= bounds.FEWEST_UNKNOWN and share < 1 - bound.warning:
        told = {"num": in_span - found, "in_span": in_span, "of_others": named["of_other_user"]}
        severity = _worse(share < bound.critical)
        yield finding("unknown_requests", **told, share=1 - share, severity=severity)
    elif in_span and pairs < 1 - bounds.UNKNOWN_PAIRS.warning:
        yield finding("unknown_pairs", num=found, share=1 - pairs)
    if repeated := report.total("impressions")["repeated"]:
        share = repeated / report.total("rows")["impressions"]
        severity = WARNING if share > bounds.REPEATED_IMPRESSIONS.warning else NOTE
        yield finding("duplicates", num=repeated, share=share, severity=severity)
    for column, word, num in report.words:
        yield finding("word_for_none", table=TABLES[0], column=column, word=word, num=num)


def _shown(report: LogReport) -> Iterator[Finding]:
    """Impressions that are not what was shown: only answered ones, all of them drawn at random."""
    num, answered = report.total("rows")["impressions"], report.total("labelled.hour").total()
    share = answered / max(num, 1)
    if num >= bounds.ANSWERED.fewest and share > bounds.ANSWERED.warning:
        severity = _worse(share >= bounds.ANSWERED.critical)
        yield finding("only_answered", num=num, share=share, severity=severity)
    for name, area in report.telling.items():
        if area > bounds.TELLING.warning:
            table, _, column = name.rpartition(".")
            yield finding("telling_column", table=table or TABLES[0], column=column, area=area)
    share = report.total("impressions")["exploration"] / max(num, 1)
    if num >= bounds.EXPLORATION.fewest and share > bounds.EXPLORATION.warning:
        yield finding("all_exploration", num=num, share=share)


def _clock_changes(report: LogReport) -> Iterator[Finding]:
    """Hours that a local clock leaves out or has twice, in the European Union or in America.

    The days before and those after each say what is usual: where a timetable follows a local clock,
    right UTC times have other hours in summer than in winter.
    """
    bound = bounds.CLOCK_CHANGE
    for day, num in report.rows("impressions").items():
        if day.weekday() != SUNDAY or day.month not in (MARCH, OCTOBER, NOVEMBER):
            continue
        hour = str(1 if day.month == NOVEMBER else 2)
        found = report.of(day, "impressions.hour").get(hour, 0)
        beside = (
            [report.of(day + timedelta(days=n), "impressions.hour") for n in days]
            for days in (range(-BESIDE, 0), range(1, BESIDE + 1))
        )
        shares = [
            sum(of.get(hour, 0) for of in days) / max(1, sum(sum(of.values()) for of in days))
            for days in beside
        ]
        expected = num * (min(shares) if day.month == MARCH else max(shares))
        is_left_out = day.month == MARCH and found == 0
        is_twice = day.month != MARCH and found >= bound.warning * expected
        if expected >= bound.fewest and (is_left_out or is_twice):
            told = {"found": found, "hour": int(hour), "end": int(hour) + 1, "expected": expected}
            yield finding("clock_change", day=day, **told)


def _clocks(report: LogReport) -> Iterator[Finding]:
    """Actions without a request before what they answer, or all of them hours after it."""
    unnamed, bound = report.total("unnamed"), bounds.EARLY_ACTIONS
    late = _binned(report.total("named.late") + report.total("unnamed.shift"), SHIFT_HOURS)
    if (num := late.sum()) >= bounds.LATE_ACTIONS.fewest:
        most, soon = int(np.argmax(late)), late[0] / num
        share = late[most] / num
        if soon < bounds.LATE_ACTIONS.warning and share >= bounds.CONCENTRATED_SHIFT:
            told = {"hours": most, "end": most + 1, "share": share, "soon": soon}
            yield finding("late_actions", **told)
    share = unnamed["early"] / max(unnamed["near"], 1)
    is_few = unnamed["near"] < bounds.NAMELESS * report.total("named")["in_span"]
    if is_few or unnamed["early"] < bound.fewest or share < bound.warning:
        return
    # Place h: early by h to h + 1 hours.
    by_hour = _binned(report.total("unnamed.shift"), SHIFT_HOURS, -SHIFT_HOURS)[::-1]
    most = int(np.argmax(by_hour))
    concentration = by_hour[max(0, most - 1) : most + 2].sum() / max(by_hour.sum(), 1)
    is_clock = concentration >= bounds.CONCENTRATED_SHIFT
    told = {
        "when": f"about {most + 1} h" if is_clock else "up to a day",
        "severity": _worse(is_clock and share >= bound.critical),
    }
    yield finding("early_actions", **told, share=share, num=unnamed["near"])


def judge_embeddings(report: LogReport, recipe: RunConfig | None) -> Iterator[Finding]:
    """Pins in use without an embedding, widths that differ, and embeddings that are all zero."""
    wanted = recipe.snapshot.embedding_version if recipe else ""
    if not wanted and report.pins:
        wanted = min(report.pins, key=lambda version: (report.pins[version].num_missing, version))
    own, users = report.pins.get(wanted), report.users.widths
    if report.users.rows and report.users.num_missing == report.num_users > 0:
        yield finding("late_users", rows=report.users.rows)
    numeric = recipe.features.numeric_held if recipe else ()
    ages = {each.column for each in numeric if each.name == "pin_age"} or {"created_at"}
    for column, (pins, wrong) in report.created.items():
        if column in ages and (share := wrong / max(pins, 1)) > bounds.CREATED_LATE.warning:
            yield finding("created", column=column, num=wrong, pins=pins, share=share)
    if wanted and own is None:
        told = {"version": wanted, "uri": report.uri, "found": sorted(report.pins)}
        yield finding("missing_version", **told)
    elif own and own.num_missing:
        yield pins_without_embedding(own.missing, own.num_missing, report.num_pins, wanted)
    if own and len(own.widths) == len(users) == 1 and own.widths[0][0] != users[0][0]:
        of = {"users": users[0][0], "pins": own.widths[0][0]}
        yield finding("width_of_users", **of, version=wanted)
    of_all = {f"pins of version {version!r}": known for version, known in report.pins.items()}
    for whose, known in sorted((of_all | {"users": report.users}).items()):
        if len(known.widths) > 1:
            widths = ", ".join(f"{rows:,} of {width}" for width, rows in known.widths)
            told = {"table": whose.split(" ")[0], "column": "embedding", "whose": whose}
            yield finding("embedding_widths", **told, widths=widths)
        if whose != "users" and known.zero > bounds.ZERO_EMBEDDINGS.warning * known.rows:
            yield finding("zero_embeddings", whose=whose, zero=known.zero, rows=known.rows)


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
            yield finding("head_without_labels", **told, severity=severity)
    bound = recipe.data_gate.max_unknown_category_share
    for feature in recipe.features.categorical:
        rows, num, values = report.unlisted[f"{feature.table}.{feature.name}"]
        if num:
            is_many, none_is_listed = num > bound * rows, num == rows
            said = (f"{'null' if text is None else repr(text[:60])} {n:,}" for text, n in values)
            told = {"table": feature.table, "column": feature.name, "num_rows": num, "rows": rows}
            told |= {"share": num / rows, "said": ", ".join(said), "least": 1 - bound}
            severity = ERROR if none_is_listed else WARNING if is_many else NOTE
            yield finding("unlisted_values", **told, severity=severity)
