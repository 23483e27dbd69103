"""What the days and totals of a log mean: its silent defects, each with a severity.

Nothing here breaks a rule of the contract, and every one of these defects has trained a wrong model
without a word. An ERROR means that a snapshot would be refused or wrong, a WARNING that a person
must look, a NOTE that a log can be right so, and mostly is not. The bounds are those of
`pipelines.contracts.data_rules`. Not for measuring (`measuring`). Tested in
tests/pipelines/log_check/test_judgements.py.
"""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np

from pipelines.contracts import data_rules as bounds
from pipelines.contracts.config import RunConfig
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.rules import Finding, Severity, across_files, pins_without_embedding
from pipelines.log_check.report import SHIFT_HOURS, TABLES, LogReport, binned

HOURS = 24
LAST_MONTH, FEWEST_MONTHS = 12, 3
"""No month has a higher number: where no day has, days and months may have changed places."""
FEWEST_ROWS, FEWEST_DAYS = 20, 2
"""Of fewer rows or days, it may be chance that all have one time of day or one lag."""
_VALUES_NAMED = 5


def judge(report: LogReport, recipe: RunConfig | None) -> Iterator[Finding]:
    """Yield what is worth saying of a log's days and totals.

    Args:
        report: Days and totals.
        recipe: What the log shall serve, or None.
    """
    for rule in (_times, _days, _edges, _rates, _hours, _requests, _clocks, _duplicates):
        yield from rule(report)
    yield from _embeddings(report, recipe)
    if recipe is not None:
        yield from _heads(report, recipe)
        yield from _categories(report, recipe)


def _finding(
    severity: Severity, rule: str, table: str, problem: str, remedy: str, **more: Any
) -> Finding:
    """Return a finding of a table; `more` are further fields of it."""
    said = f"{table}: {problem}"
    return Finding(rule, "", said, remedy, table=table, severity=severity, **more)


def _worse(is_error: object) -> Severity:
    return Severity.ERROR if is_error else Severity.WARNING


def _with_rows(report: LogReport, table: str) -> dict[date, int]:
    """Return the rows of the days that have some."""
    rows = {day: report.rows(day, table) for day in report.days_of(table)}
    return {day: num for day, num in rows.items() if num}


def _times(report: LogReport) -> Iterator[Finding]:
    """What looks as if days or times of day were not read as they were meant."""
    days = list(_with_rows(report, "impressions"))
    months = {(day.year, day.month) for day in days}
    if len(months) >= FEWEST_MONTHS and all(day.day <= LAST_MONTH for day in days):
        yield _finding(
            Severity.WARNING,
            "days_1_to_12",
            "impressions",
            f"all are of the days 1 to {LAST_MONTH} of their months, in {len(months)} months from "
            f"{days[0]} to {days[-1]}: day and month swapped?",
            "expected days of the whole month, such as 2017-04-03 for the 3rd of April; read the "
            "dates of your tables with their format (%d/%m/%Y or %m/%d/%Y), and write the log anew",
        )
    for table in TABLES:
        is_enough = report.total(f"{table}.lag").total() >= FEWEST_ROWS
        if not is_enough or len(report.days_of(table)) < FEWEST_DAYS:
            continue
        first = report.number(f"{table}.first_ms", largest=False)
        if first == report.number(f"{table}.last_ms"):
            seconds, ms = divmod(first % DAY_MS, 1000)
            clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
            yield _finding(
                Severity.NOTE,
                "one_time_of_day",
                table,
                f"all at {clock}{f'.{ms:03}' if ms else ''} UTC: the log has days only, and the "
                f"order within a day is unknown",
                "expected the time at which each of them happened; write the times, or keep in "
                "mind that a request knows of its own day only what has an earlier time",
            )
        if table == "actions" and report.number("actions.longest_lag_ms") == 0:
            is_both = report.number("impressions.longest_lag_ms") == 0
            yield _finding(
                Severity.NOTE,
                "known_at_once",
                "actions",
                f"known at once, known_at is acted_at in all {report.num_rows('actions'):,} "
                f"rows{', and impressions too' * is_both}; a model is then trained on fresher "
                f"sequences than serving will have",
                "expected known_at as the time from which serving could have read the row; write "
                "when each row was known, or add the usual delay of your pipeline",
            )


def _days(report: LogReport) -> Iterator[Finding]:
    """Days between the first and the last that lack impressions, or nearly all of them."""
    days = _with_rows(report, "impressions")
    if len(days) < 3:
        return
    median, share = float(np.median(list(days.values()))), bounds.ROWS_OF_A_DAY.warning
    for number in range((max(days) - min(days)).days + 1):
        day = min(days) + timedelta(days=number)
        if days.get(day, 0) < share * median:
            yield _finding(
                Severity.WARNING,
                "few_impressions",
                "impressions",
                f"{day} has {days.get(day, 0):,} rows, the median day {median:,.0f}",
                f"expected at least {share:.0%} of the median day; write impressions/day={day} "
                f"again if it is not complete",
                day=day,
            )


def _edges(report: LogReport) -> Iterator[Finding]:
    """Days with impressions before the first action of the log, and after its last.

    `_rates` knows no rate of the days after the last action. The newest days of impressions, whose
    labels may still come, are no problem.
    """
    shown, acted = _with_rows(report, "impressions"), _with_rows(report, "actions")
    if not shown:
        return
    if not acted:
        yield _finding(
            Severity.ERROR,
            "no_actions",
            "actions",
            f"there is none, and {sum(shown.values()):,} impressions from {min(shown)} to "
            f"{max(shown)}",
            "expected what users did with what they were shown; write the actions of these days",
        )
        return
    newest = max(shown) - report.label_window
    between = [day for day in shown if min(acted) <= day <= max(acted)]
    answers = sum(acted.get(day, 0) for day in between)
    usual = answers / sum(shown[day] for day in between) if between else 1.0
    before = [day for day in shown if day < min(acted)]
    after = [day for day in shown if max(acted) < day <= newest]
    for days, edge in ((before, f"first is of {min(acted)}"), (after, f"last is of {max(acted)}")):
        expected = usual * sum(shown[day] for day in days)
        if days:
            yield _finding(
                _worse(expected >= bounds.EXPECTED_ACTIONS.critical),
                "days_without_actions",
                "actions",
                f"none from {min(days)} to {max(days)}, {len(days)} days with impressions; the "
                f"{edge}, and about {expected:,.0f} would be usual",
                "expected actions on every day with impressions; write these days of the actions "
                "again, or leave the impressions out that nobody could answer",
            )


def _rates(report: LogReport) -> Iterator[Finding]:
    """Days on which the label rate of an action type is far from its neighbours'."""
    bound = bounds.LABEL_RATE_BY_NEIGHBOURS
    for name, rates in report.label_rates().items():
        for day, rate in sorted(rates.items()):
            usual = _usual_rate(rates, day)
            is_level = bound.warning * usual <= rate <= usual / bound.warning
            if usual * report.rows(day, "impressions") < bound.fewest or is_level:
                continue
            num = report.of(day, "actions").get(name, 0)
            yield _finding(
                _worse(rate <= bound.critical),
                "label_rate",
                "actions",
                f"on {day} {rate:.2%} of the impressions got {name!r}, and {usual:.2%} on the days "
                f"around it ({num:,} such actions on that day)",
                f"expected {bound.warning:.0%} to {1 / bound.warning:.0%} of the days around it; "
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
        if is_open or own_rate < bounds.LABEL_RATE_BY_NEIGHBOURS.warning * usual:
            continue
        expected = own_rate * binned(report.of(day, "impressions.hour"), HOURS)
        is_empty = labelled <= bound.warning * expected
        run = np.cumsum(~is_empty)  # the hours of a run of empty ones share a number
        runs = np.bincount(run[is_empty], weights=expected[is_empty], minlength=HOURS + 1)
        hours = np.flatnonzero(is_empty & (runs[run] >= bound.fewest))
        if len(hours):
            yield _finding(
                Severity.WARNING,
                "hours_without_actions",
                "actions",
                f"impressions of {day} got {int(labelled[hours].sum())} actions in the hours "
                f"{', '.join(map(str, hours))} UTC, and {expected[hours].sum():,.0f} would be "
                f"usual",
                f"expected at least {bound.warning:.0%} of the usual; write actions/day={day} "
                f"again if these hours are missing",
                day=day,
            )


def _requests(report: LogReport) -> Iterator[Finding]:
    """Requests that actions name and that the log does not have."""
    named, bound = report.total("named"), bounds.UNKNOWN_REQUESTS
    in_span, found, of_others = named["in_span"], named["found"], named["of_other_user"]
    share = found / max(in_span, 1)
    if in_span - found >= bounds.FEWEST_UNKNOWN and share < 1 - bound.warning:
        others = f", {of_others:,} are another user's" if of_others else ""
        yield _finding(
            _worse(share < bound.critical),
            "unknown_requests",
            "actions",
            f"{in_span - found:,} of {in_span:,} that name a request ({1 - share:.0%}) name none "
            f"of their user's in the log{others}",
            f"expected at least {1 - bound.warning:.0%} found; write the request_id of the "
            f"impressions into the actions, or null where it is not known (these actions are "
            f"nobody's label)",
        )
        return
    pairs = named["pair_found"] / max(found, 1)
    if in_span and pairs < 1 - bounds.UNKNOWN_PAIRS.warning:
        yield _finding(
            Severity.WARNING,
            "unknown_pairs",
            "actions",
            f"of {found:,} whose request is in the log, {1 - pairs:.0%} are on a pin that the "
            f"request did not show within the label window",
            f"expected at most {bounds.UNKNOWN_PAIRS.warning:.0%}; check pin_id, or log all "
            f"candidates of a request",
        )


def _clocks(report: LogReport) -> Iterator[Finding]:
    """Actions that happened before what they answer."""
    named, unnamed, bound = report.total("named"), report.total("unnamed"), bounds.EARLY_ACTIONS
    remedy = "check the time zone or the clock of the writer of either table"
    if early := named["early"]:
        hours = int(np.argmax(binned(report.total("named.early"), SHIFT_HOURS)))
        yield _finding(
            Severity.ERROR,
            "clock",
            "actions",
            f"{early:,} that name their request ({early / max(named['found'], 1):.0%}) are before "
            f"it, most of them by {hours} to {hours + 1} h",
            f"expected acted_at >= impressed_at; {remedy}",
        )
    share = unnamed["early"] / max(unnamed["near"], 1)
    if unnamed["early"] < bound.fewest or share < bound.warning:
        return
    shifts = binned(report.total("unnamed.shift"), 2 * SHIFT_HOURS, -SHIFT_HOURS)
    by_hour = shifts[:SHIFT_HOURS][::-1]  # place h: early by h to h + 1 hours
    most = int(np.argmax(by_hour))
    concentration = by_hour[max(0, most - 1) : most + 2].sum() / max(by_hour.sum(), 1)
    is_clock = concentration >= bounds.CONCENTRATED_SHIFT
    yield _finding(
        _worse(is_clock and share >= bound.critical),
        "early_actions",
        "actions",
        f"{f'about {most + 1} h' if is_clock else 'up to a day'} before their impressions are "
        f"{share:.0%} of the {unnamed['near']:,} actions without a request whose pin the user was "
        f"shown within {SHIFT_HOURS} h",
        f"expected at most {bound.warning:.0%}; {remedy}: the answer to an impression would stand "
        f"in the sequence before it",
    )


def _duplicates(report: LogReport) -> Iterator[Finding]:
    if repeated := report.total("impressions")["repeated"]:
        share = repeated / report.num_rows("impressions")
        is_many = share > bounds.REPEATED_IMPRESSIONS.warning
        yield _finding(
            Severity.WARNING if is_many else Severity.NOTE,
            "duplicates",
            "impressions",
            f"{repeated:,} rows ({share:.1%}) repeat a request and pin of the same day",
            "expected one row per (request_id, pin_id); they are dropped; write each candidate "
            "once",
        )


def _embeddings(report: LogReport, recipe: RunConfig | None) -> Iterator[Finding]:
    """Pins in use without an embedding, widths that differ, and embeddings that are all zero."""
    wanted = recipe.snapshot.embedding_version if recipe else ""
    if not wanted and report.pins:
        wanted = max(sorted(report.pins), key=lambda version: report.pins[version].num_in_use)
    own = report.pins.get(wanted)
    if wanted and own is None:
        facts = {"version": wanted, "uri": report.uri, "found": sorted(report.pins)}
        yield across_files("missing_version", facts)
    elif own and (missing := report.num_pins - own.num_in_use):
        yield pins_without_embedding(own.missing, missing, report.num_pins, wanted)
    users = report.users.widths
    if own and len(own.widths) == len(users) == 1 and own.widths.keys() != users.keys():
        yield _finding(
            Severity.ERROR,
            "width_of_users",
            "users",
            f"embeddings are {min(users)} wide, and those of the pins of version {wanted!r} "
            f"{min(own.widths)}",
            "expected one width, because a model multiplies them; embed users and pins alike",
        )
    of_all = {f"pins of version {version!r}": known for version, known in report.pins.items()}
    for whose, known in sorted((of_all | {"users": report.users}).items()):
        table = whose.split(" ")[0]
        if len(known.widths) > 1:
            usual = max(known.widths, key=lambda width: known.widths[width])
            others = {width: rows for width, rows in known.widths.items() if width != usual}
            said = ", ".join(f"{rows:,} of {width}" for width, rows in sorted(others.items()))
            yield _finding(
                Severity.ERROR,
                "embedding_width",
                table,
                f"embeddings of {whose} have several widths: {known.widths[usual]:,} of {usual} "
                f"numbers, {said}",
                "expected one width in a version; write these rows again, or under an "
                "embedding_version of their own",
                column="embedding",
                num_rows=sum(others.values()),
            )
        if table == "pins" and known.zero > bounds.ZERO_EMBEDDINGS.warning * known.rows:
            yield _finding(
                Severity.WARNING,
                "zero_embeddings",
                table,
                f"{known.zero:,} of {known.rows:,} embeddings of {whose} are all zero",
                f"expected at most {bounds.ZERO_EMBEDDINGS.warning:.0%}; embed these pins; zero "
                f"stands for a pin that nothing is known of",
            )


def _heads(report: LogReport, recipe: RunConfig) -> Iterator[Finding]:
    """Heads whose action the log never shows."""
    found, labelled = report.total("actions"), report.total("labelled")
    for head in recipe.features.heads:
        if labelled[head.action_type] == 0:
            yield _finding(
                _worse(head == recipe.features.main_head),
                "head_without_labels",
                "actions",
                f"no impression got {head.action_type!r} within {report.label_window_hours} h, "
                f"which head {head.name!r} predicts ({found[head.action_type]:,} such actions in "
                f"the log)",
                "expected some positives of every head; check that actions carry the request_id, "
                "user_id and pin_id of their impressions, or take the head out of the recipe",
            )


def _categories(report: LogReport, recipe: RunConfig) -> Iterator[Finding]:
    """Features with values that the recipe does not list: an error where no row has a listed one.

    Such a value has code 0, as a null has: a feature whose values are all unlisted trains a model
    without saying anything, and nothing breaks.
    """
    bound = recipe.data_gate.max_unknown_category_share
    for feature in recipe.features.categorical:
        found = report.unlisted[f"{feature.table}.{feature.name}"]
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
        if not num_unknown:
            continue
        rest = len(feature.values) - _VALUES_NAMED
        listed = ", ".join(map(repr, feature.values[:_VALUES_NAMED]))
        listed += f" and {rest} more" if rest > 0 else ""
        severity = Severity.WARNING if num_unknown > bound * found.rows else Severity.NOTE
        yield Finding(
            "unlisted_values",
            "",
            f"{feature.table}.{feature.name}: {'; '.join(said)}",
            f"expected values of features.categorical ({listed}) in at least {1 - bound:.0%} of "
            f"the rows, because a model cannot tell others apart; {'; '.join(remedies)}",
            table=feature.table,
            column=feature.name,
            num_rows=num_unknown,
            severity=Severity.ERROR if num_unknown == found.rows else severity,
        )


def _percent(part: int, whole: int) -> str:
    """Return a share in percent; one that is neither none nor all is never told as such."""
    share = 100 * part / whole
    if part == whole or 1 <= share <= 99:
        return f"{share:.0f}%"
    return "less than 0.01%" if share < 0.01 else f"{min(share, 99.99):.2f}%"
