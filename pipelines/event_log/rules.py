"""The rules that rows of an event log must keep, and what is said where one is broken.

Each rule is a row of RULES, and is asked in one place, which yields a `Finding`. Everybody who
meets rows asks the same functions: a reader (`reader`, `pipelines.snapshot`) and a writer raise the
first finding (`require_none`), and `pipelines.log_check` collects all findings of a log.

For each batch of rows, `column_problems` asks for columns and their types, then `fitted` for nulls
and values that do not fit their type, then `value_problems` for times, action types, chances and
numbers; `embedding_matrix` asks for embeddings. The bounds of what many rows come to, as shares and
rates, are in `pipelines.contracts.data_rules`. Not for judging whether data looks as usual:
the data gate does. Tested in tests/pipelines/event_log/test_rules.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import data_rules
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import EVENT_LOG_TABLES, PIN_TIME
from pipelines.contracts.time import DAY_MS, EARLIEST_MS, LATEST_MS, to_ms

EVENT_TIME_COLUMNS = {"impressions": "impressed_at", "actions": "acted_at"}
"""The column whose UTC day is the day of a row's partition."""
DAYS_TOLD = 5
"""Where more days than these have the same problem, they are told in one line."""
KEY_COLUMNS = ("request_id", "user_id", "pin_id", "as_of")
"""What names a row in a report, where its table has the column."""


class Severity(StrEnum):
    """What a finding means for whoever wants to build a snapshot of the log."""

    ERROR = "error"  # the snapshot would be refused, or wrong
    WARNING = "warning"  # a person must look
    NOTE = "note"


ERROR, WARNING, NOTE = Severity


class Rule(NamedTuple):
    """What is said where a rule is broken; names in braces stand for what was found."""

    problem: str
    remedy: str  # what was expected, and what to change
    place: str = ""  # table, or table.column; '' where each finding says it
    severity: Severity = ERROR


_TABLES = sorted(EVENT_LOG_TABLES)
RULES = {
    # Where files lie
    "missing_table": Rule("event log at {uri} has no table {table!r} (no .parquet file below it)",
        f"expected {_TABLES}; add it, or correct HOMEFEED_EVENT_LOG"),
    "no_day_folder": Rule("{path} is not in a day=YYYY-MM-DD folder of a day from 2000 to 2099",
        "expected {table}/day=.../*.parquet; partition the table by the UTC day of {when}, which "
        "is in milliseconds"),
    # The columns of a file
    "missing_column": Rule("missing column {column!r}{hint}; found {found}",
        "expected also {missing}; add the column where the table is written"),
    "column_twice": Rule("column {column!r} is there {num} times",
        "expected each column once; write the file again without the others"),
    "wrong_kind": Rule("column {column!r} is {value}",
        "expected {expected}; cast it where the table is written (times are milliseconds since the "
        "epoch, embeddings lists of one width)"),
    "unreadable": Rule("{error}", ""),
    "stage_refuses": Rule("{error}", ""),
    "window_without_impressions": Rule("{error}", ""),
    "gate_refuses": Rule("the data gate would refuse it by {by}",
        "mend the log, or change data_gate in the recipe if the data are right"),
    # The rows of a file
    "does_not_fit": Rule("column {column!r} ({found}) has a value that does not fit ({error})",
        "expected values of {expected}; correct it where the table is written"),
    "null": Rule("column {column!r} is null", "expected none; fill or drop these rows"),
    "implausible_time": Rule("{column} is not a plausible time in milliseconds since 1970",
        f"expected {EARLIEST_MS} (year 2000) to {LATEST_MS} (year 2100), and not seconds or "
        "finer parts; convert it where the table is written"),
    "known_before_it_happened": Rule("{when} is after known_at",
        "expected {when} <= known_at (nothing is known before it happens); correct the clock or "
        "the column that filled them"),
    "wrong_day": Rule("rows with {column} from {low} to {high} in the partition day={partition}",
        "expected [{start}, {end}), the UTC day; partition the table by the UTC day of {column}"),
    "unknown_action_type": Rule("unknown action type {first!r} (all unknown: {unknown})",
        "expected one of {known}; add it to features.action_types of the recipe, or drop these "
        "rows"),
    "propensity": Rule("a propensity is outside (0, 1]",
        "expected the chance that the pin was shown, or null where it is not known; correct it "
        "where the table is written"),
    "infinite_number": Rule("column {column!r} has a number that is infinite or too large",
        "expected finite float32 numbers, or null where none is known; correct it where the table "
        "is written"),
    "embedding_width": Rule("an embedding has {value}",
        "expected {wanted}, the width of this embedding version; embed the row anew, or give "
        "embeddings of another width a version of their own"),
    "embedding_number": Rule("an embedding has a null, NaN or infinite number",
        "expected finite float32 numbers; write these embeddings again"),
    # Rows of several files together
    "request_of_two_users": Rule("request {request_id!r} belongs to users {one} and {other}",
        "expected one user per request; make request_id unique", "impressions.request_id"),
    "action_before_request": Rule(
        "action on pin {pin_id} at {acted_at} names request {request_id!r}, which was shown "
        "later, at {impressed_at} ({num_rows} such actions)",
        "expected acted_at >= impressed_at; correct the clocks, the time zone of either table, or "
        "the attribution",
        "actions.acted_at"),
    "long_request": Rule(
        "request {request_id!r} has rows from {start} to {stop} ({num_rows} such requests): is it "
        "the id of a session or a visitor?",
        "expected the candidates that were ranked together, at one time; make request_id unique "
        "for each page that was shown", "impressions.request_id"),
    "repeated_user_row": Rule("user {user_id} has more than one row of as_of={as_of}",
        "expected one per (user_id, as_of); remove the repeated row", "users.as_of"),
    "repeated_embedding": Rule(
        "pin {pin_id} has more than one embedding of version {version!r} ({num_rows} such rows)",
        "expected one per (pin_id, embedding_version); remove the repeated rows",
        "pins.embedding_version"),
    "pin_times_in_some": Rule("{without} has no column 'known_at', and {with_times} has",
        "expected it in every file of the pins or in none; add it to the older files (a time "
        "before the pin's first impression keeps the pin known as it was), or leave it out",
        f"pins.{PIN_TIME.name}"),
    "missing_version": Rule(
        "no embedding of version {version!r} at {uri}; found the versions {found}",
        "expected rows of that version; add it to the table or set snapshot.embedding_version in "
        "the recipe", "pins.embedding_version"),
    "pin_without_embedding": Rule(
        "{num_rows} of {num_wanted} pins in the impressions and actions have no embedding of "
        "version {version!r}, first: {first}",
        "expected one for each; fold these pins into the version's basis and add their rows",
        "pins.pin_id"),
    # What breaks no rule, and has trained a wrong model without a word: `pipelines.log_check`. How
    # bad some of it is depends on how much there is.
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
        "expected at least {bounds.ROWS_OF_A_DAY.warning:.0%} of the median day; write "
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
        "it ({num:,} such actions on that day){also}",
        "expected {bounds.LABEL_RATE_BY_NEIGHBOURS.warning:.0%} to {most:.0%} of the days around "
        "it; write actions/day={day} again if actions of it are missing or double", "actions"),
    "hours_without_actions": Rule(
        "impressions of {day} got {num} actions in the hours {hours} UTC, and {expected:,.0f} "
        "would be usual",
        "expected at least {bounds.LABELS_OF_AN_HOUR.warning:.0%} of the usual; write "
        "actions/day={day} again if these hours are missing", "actions", WARNING),
    "unknown_requests": Rule(
        "{num:,} of {in_span:,} that name a request ({share:.0%}) name none of their user's in the "
        "log, {of_others:,} of them another user's",
        "expected at most {bounds.UNKNOWN_REQUESTS.warning:.0%}; write the request_id "
        "of the impressions into the actions, or null where it is not known (these actions are "
        "nobody's label)", "actions"),
    "unknown_pairs": Rule(
        "of {num:,} whose request is in the log, {share:.0%} are on a pin that the request did not "
        "show within the label window",
        "expected at most {bounds.UNKNOWN_PAIRS.warning:.0%}; check pin_id, or log all candidates "
        "of a request", "actions", WARNING),
    "late_actions": Rule(
        "{share:.0%} come {hours} to {end} h after their impressions, {soon:.0%} within an hour",
        "expected most within minutes; check the time zone of the writer of either table",
        "actions.acted_at", WARNING),
    "early_actions": Rule(
        "{when} before their impressions are {share:.0%} of the {num:,} actions without a request "
        "whose pin the user was shown within 24 h",
        "expected at most {bounds.EARLY_ACTIONS.warning:.0%}; check the time zone or the clock "
        "of the writer of either table: the answer to an impression would stand in the sequence "
        "before it", "actions"),
    "duplicates": Rule("{num:,} rows ({share:.1%}) repeat a request and pin of the same day",
        "expected one row per (request_id, pin_id); they are dropped; write each candidate once",
        "impressions"),
    "only_answered": Rule(
        "{share:.0%} of the {num:,} impressions got an action: were others left out?",
        "expected every candidate that a user was shown; write all of them, or draw others "
        "(docs/event_log.md)", "impressions"),
    "all_exploration": Rule("is_exploration is true in {share:.0%} of the {num:,} rows",
        "expected true for requests whose candidates were drawn at random, at most "
        "{bounds.EXPLORATION.warning:.0%}; write false for the ranked ones",
        "impressions.is_exploration", WARNING),
    "word_for_none": Rule(
        "{num:,} impressions and actions have the id {word!r}, a usual word for no value",
        "expected an id in each row; leave these rows out (`where` in a mapping), unless something "
        "is called so", "", WARNING),
    "drawn_candidates": Rule("candidates were not logged; they were drawn: {how}",
        "expected a verdict on them to be read with care: what was not drawn was never ranked; log "
        "what is shown", "impressions", NOTE),
    "telling_column": Rule(
        "{column} alone tells an impression that got an action from one that got none: area under "
        "the curve {area:.2f}",
        "expected at most {bounds.TELLING.warning:.2f}; leave a column out that is written after "
        "the request, or that follows from the actions", "", WARNING),
    "far_days": Rule(
        "{num:,} rows are of {first} to {last}, {gap:,} days from the other rows' last, {before}",
        "expected days that follow one another; correct {column} of these rows, or leave them out",
        "", WARNING),
    "clock_change": Rule(
        "on {day}, when clocks change, {found:,} rows are of {hour} to {end} h and {expected:,.0f} "
        "would be usual: impressed_at looks like local time",
        "expected UTC, in which no hour is missing or double; convert the times of both tables",
        "impressions.impressed_at", WARNING),
    "mixed_zones": Rule("times without a zone ({without}) were taken for UTC, and others have one "
        "({others})",
        "expected one kind, because a local time without its zone is wrong by hours; give "
        "EventLogWriter all times with a zone", "", WARNING),
    "cut_day": Rule("the last row is of {cut_at:%Y-%m-%d %H:%M} UTC, and the days before "
        "end at {usual} or later: the last day is cut",
        "expected whole days; write the rest of it, or say complete_to to EventLogWriter; the "
        "newest as_of is {as_of:%Y-%m-%d}", "impressions.impressed_at", WARNING),
    "late_users": Rule("as_of of all {rows:,} rows is after every request of their users",
        "expected when this was known of the user, and not when it was exported; correct as_of",
        "users.as_of", WARNING),
    "created": Rule("{column} of {num:,} of {pins:,} pins that were shown ({share:.0%}) is after "
        "that, or no time in milliseconds since 1970",
        "expected when the pin was made, and not seconds, nor the time of the export; correct the "
        "column where the table is written", "pins", WARNING),
    "width_of_users": Rule(
        "embeddings are {users} wide, and those of the pins of version {version!r} {pins}",
        "expected one width, because a model multiplies them; embed users and pins alike", "users"),
    "embedding_widths": Rule(
        "embeddings of {whose} have several widths: {widths} numbers",
        "expected one width in a version; write these rows again, or under an embedding_version of "
        "their own"),
    "zero_embeddings": Rule("{zero:,} of {rows:,} embeddings of {whose} are all zero",
        "expected at most {bounds.ZERO_EMBEDDINGS.warning:.0%}; embed these pins; zero stands "
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
"""All that is said of a log, by rule. `bounds` are those of `pipelines.contracts.data_rules`."""


@dataclass(frozen=True)
class Finding:
    """One way in which a file, or the log as a whole, breaks a rule or looks as if it did."""

    rule: str
    where: str  # the file, or '' where `problem` says it
    problem: str
    remedy: str  # what was expected, and what to change; '' where `problem` says it
    table: str = ""
    column: str = ""
    row: int | None = None  # the first such row, from 0, of the rows that were looked at
    ids: tuple[tuple[str, Any], ...] = ()  # of that row, by column
    value: str = ""  # found there
    num_rows: int = 1  # rows that break the rule
    day: date | None = None  # that it is about, where many days may have the same
    severity: Severity = Severity.ERROR

    @property
    def message(self) -> str:
        """The finding in one sentence: where, what was found, what was expected, what to change."""
        where, rows = f"{self.where}: " if self.where else "", ""
        if self.row is not None:
            named = ", ".join(
                f"{n}={v}" for n, v in (*self.ids, (self.column, self.value)) if v != ""
            )
            such = f"{self.num_rows:,} such row{'s' * (self.num_rows != 1)}"
            rows = f" ({such}, first row {self.row}: {named})"
        return f"{where}{self.problem}{rows}" + (f"; {self.remedy}" if self.remedy else "")


_FIELDS = {field.name for field in fields(Finding)}


def finding(rule: str, where: str = "", /, **facts: Any) -> Finding:
    """Return the finding of a rule that is broken in a file ('': in a whole table).

    Of the facts that its sentences name, those that are fields of a finding become its fields.
    """
    broken = RULES[rule]
    table, _, column = broken.place.partition(".")
    told: dict[str, Any] = {"table": table, "column": column, "severity": broken.severity}
    told |= {name: value for name, value in facts.items() if name in _FIELDS}
    words = {"num_rows": 1, "bounds": data_rules, **told, **dict(told.get("ids", ())), **facts}
    problem = broken.problem.format(**words)
    if told["table"] and not where:
        problem = f"{told['table']}: {problem}"
    return Finding(rule, where, problem, broken.remedy.format(**words), **told)


def told_together(
    problems: Iterable[Finding], root: str, names: Mapping[int, str]
) -> Iterator[tuple[Severity, str]]:
    """Yield problems in words; what is wrong in several files or on many days is one.

    Files are named from `root` on, and ids by their names where these are known.
    """
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for each in problems:
        same = each.value if each.day else "" if each.where else each.message
        alike.setdefault((each.severity, each.rule, each.column, same), []).append(each)
    for group in alike.values():
        found = sorted(group, key=lambda each: (each.day or date.min, each.where))
        if found[0].day and len(found) <= DAYS_TOLD:
            yield from ((each.severity, each.message) for each in found)
            continue
        num_rows, (first, *others) = sum(each.num_rows for each in found), found
        where = first.where.removeprefix(root)
        message = replace(first, where=where, num_rows=num_rows).message
        if others:
            last = others[-1].day or others[-1].where.removeprefix(root)
            kind = "days" if first.day else "files"
            message += f" (and {len(others)} more {kind} to {last})"
        known = ((number, names.get(number)) for _, number in first.ids)
        message += "".join(f" ({number} is {name})" for number, name in known if name)
        yield first.severity, message


def require_none(findings: Iterable[Finding]) -> None:
    """Raise the first finding, if there is one.

    Raises:
        DataContractError: a rule is broken.
    """
    for each in findings:
        error = DataContractError(each.message)
        error.about = (each.rule, each.where, str(each.day or ""))
        raise error


def column_problems(
    path: str,
    found: pa.Schema,
    expected: pa.Schema,
    extra_columns: Sequence[str] = (),
    number_columns: Sequence[str] = (),
) -> Iterator[Finding]:
    """Yield the columns that a file lacks, has twice, or has in a type of another kind.

    A type may be wider or narrower, such as int32 for int64 or float64 for float32. It may not be
    of another kind, such as float for int, a timestamp for int64 milliseconds or text for an id.
    Beyond the contract, a recipe declares extra columns as features of text, and number columns as
    numeric features.
    """
    for name in dict.fromkeys(name for name in found.names if found.names.count(name) > 1):
        yield finding("column_twice", path, column=name, num=found.names.count(name))
    types = dict(zip(found.names, found.types, strict=True))
    wanted: dict[str, tuple[tuple[str, ...], str]] = {
        field.name: ((column_kind(field.type), "null"), str(field.type)) for field in expected
    }
    texts, numbers = ("text", "integer"), ("integer", "float", "null")
    wanted |= dict.fromkeys(extra_columns, (texts, "string, as a feature that the recipe declares"))
    wanted |= dict.fromkeys(number_columns, (numbers, "a number, as a feature of the recipe"))
    told = {"found": sorted(found.names), "missing": [name for name in wanted if name not in types]}
    for name in told["missing"]:
        hint = "" if name in expected.names else " (declared as features by the recipe)"
        yield finding("missing_column", path, column=name, hint=hint, **told)
    for name, (kinds, words) in wanted.items():
        if name in types and column_kind(types[name]) not in kinds:
            value = str(types[name])
            yield finding("wrong_kind", path, column=name, value=value, expected=words)


def column_kind(type_: pa.DataType) -> str:
    """Return the family of a type's values; values may be cast within a family."""
    if isinstance(type_, pa.DictionaryType):
        return column_kind(type_.value_type)
    is_list = pa.types.is_list(type_) or pa.types.is_large_list(type_)
    if is_list or pa.types.is_fixed_size_list(type_):
        return f"list of {column_kind(type_.value_type)}"
    if type_ in (pa.string(), pa.large_string(), pa.string_view()):
        return "text"
    families = {"integer": pa.types.is_integer, "float": pa.types.is_floating}
    return next((name for name, is_of in families.items() if is_of(type_)), str(type_))


def fitted(path: str, rows: pa.Table, expected: pa.Schema) -> tuple[pa.Table, tuple[Finding, ...]]:
    """Return rows cast to the contract's types, and what is wrong with them.

    Embeddings and columns beyond the contract stay as they are, as does a column that does not fit.
    """
    asked = [name for name in expected.names if name != "embedding"]
    problems = list(null_problems(path, rows, asked, expected))
    for index, (name, column) in enumerate(zip(rows.schema.names, rows.columns, strict=True)):
        # Fields too, because files of which some may have nulls are put together.
        if name not in asked or rows.schema.field(name).equals(expected.field(name)):
            continue
        type_ = expected.field(name).type
        try:
            cast = column.cast(type_, safe=not pa.types.is_floating(type_))
            rows = rows.set_column(index, expected.field(name), cast)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            told = {"found": column.type, "expected": type_, "error": error}
            problems.append(finding("does_not_fit", path, column=name, **told))
    return rows, tuple(problems)


def null_problems(
    path: str, rows: pa.Table, names: Sequence[str], expected: pa.Schema
) -> Iterator[Finding]:
    """Yield those of some columns that hold nulls where the contract allows none."""
    for name in (name for name in names if name in rows.schema.names):
        if not expected.field(name).nullable and rows[name].null_count:
            yield from _marked("null", path, rows, rows[name].is_null(), name)


def value_problems(
    path: str,
    table: str,
    rows: pa.Table,
    action_types: Sequence[str] = (),
    number_columns: Sequence[str] = (),
    day: date | None = None,
) -> Iterator[Finding]:
    """Yield what the values of rows break, as far as their columns are there.

    Args:
        path: The file.
        table: One of EVENT_LOG_TABLES.
        rows: In the contract's types.
        action_types: The vocabulary that every action must be in; nothing judges no types.
        number_columns: Columns beyond the contract that are numeric features.
        day: Of the partition; None where the rows are in none.
    """
    names, when = set(rows.schema.names), EVENT_TIME_COLUMNS.get(table, "as_of")
    timed = [name for name in (when, PIN_TIME.name) if name in names]
    no_times = [each for name in timed for each in time_problems(path, name, rows)]
    yield from no_times
    if len(timed) == 2:
        is_bad = pc.greater(rows[when], rows[PIN_TIME.name])
        yield from _marked("known_before_it_happened", path, rows, is_bad, "known_at", when=when)
    if day is not None and when in names and not no_times:
        yield from day_problems(path, rows, when, day)
    if "action_type" in names and action_types:
        found = set(pc.unique(rows["action_type"]).drop_null().to_pylist())
        if unknown := sorted(found - set(action_types)):  # a type is never read as padding
            text = rows["action_type"].cast(pa.string())
            is_bad = pc.is_in(text, value_set=pa.array(unknown, pa.string()))
            told = {"first": unknown[0], "unknown": unknown, "known": list(action_types)}
            yield from _marked("unknown_action_type", path, rows, is_bad, "action_type", **told)
    if "propensity" in names:
        chance = rows["propensity"]
        is_good = pc.and_(pc.greater(chance, 0.0), pc.less_equal(chance, 1.0))
        is_bad = pc.invert(pc.fill_null(is_good, True))
        yield from _marked("propensity", path, rows, is_bad, "propensity")
    yield from number_problems(path, rows, [name for name in number_columns if name in names])


def time_problems(path: str, name: str, rows: pa.Table) -> Iterator[Finding]:
    """Yield that times of a column do not lie between the years 2000 and 2100 as milliseconds."""
    is_bad = _is_outside(rows[name], EARLIEST_MS, LATEST_MS)
    yield from _marked("implausible_time", path, rows, is_bad, name)


def day_problems(path: str, rows: pa.Table, time_column: str, day: date) -> Iterator[Finding]:
    """Yield that rows are filed under another day than theirs: pruning by day relies on it."""
    start = to_ms(datetime(day.year, day.month, day.day, tzinfo=UTC))
    low, high = pc.min_max(rows[time_column]).as_py().values()
    if low is not None and not (start <= low and high < start + DAY_MS):
        is_bad = _is_outside(rows[time_column], start, start + DAY_MS)
        told = {"partition": day, "low": low, "high": high, "start": start, "end": start + DAY_MS}
        yield from _marked("wrong_day", path, rows, is_bad, time_column, **told)


def _is_outside(times: pa.ChunkedArray, start_ms: int, end_ms: int) -> pa.ChunkedArray:
    return pc.or_(pc.less(times, start_ms), pc.greater_equal(times, end_ms))


def number_problems(path: str, rows: pa.Table, columns: Sequence[str]) -> Iterator[Finding]:
    """Yield the number columns that hold what is no finite float32 number."""
    for name in columns:
        with np.errstate(over="ignore"):
            is_bad = np.isinf(numbers_of(rows[name]).astype(np.float32))
        yield from _marked("infinite_number", path, rows, is_bad, name)


def numbers_of(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Return a column of numbers; NaN is a null. An int64 beyond 2**53 is rounded."""
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())


def _marked(
    rule: str, path: str, rows: pa.Table, is_bad: Any, column: str, **facts: Any
) -> Iterator[Finding]:
    """Yield the finding of marked rows, if any is, with the first one's number, ids and value."""
    is_arrow = isinstance(is_bad, pa.ChunkedArray)
    marks = np.asarray(pc.fill_null(is_bad, False) if is_arrow else is_bad)
    if marks.any():
        row = int(marks.argmax())
        ids = tuple((n, rows[n][row].as_py()) for n in KEY_COLUMNS if n in rows.schema.names)
        told = {"column": column, "row": row, "ids": ids, "num_rows": int(marks.sum())}
        yield finding(rule, path, **told, **{"value": str(rows[column][row].as_py())} | facts)


# Embeddings: lists of one width per embedding version, every number finite


class FoundWidth(NamedTuple):
    """The width of the embeddings in a file, and the first row that has it."""

    path: str
    row_key: str  # such as pin_id=20
    embedding_dim: int


def embedding_matrix(path: str, rows: pa.Table, embedding_dim: int = 0) -> np.ndarray:
    """Return the `embedding` column as float32 [rows, width]: one width, every number finite.

    The rows are of one embedding version, their lists of float16, float32 or float64. A width of 0
    takes the one that most of the rows have.

    Raises:
        DataContractError: a list is null or of another width, or a number is null, NaN or infinite;
            the message names the row.
    """
    column = rows["embedding"].combine_chunks()
    widths = widths_of(column)
    require_none(_marked("null", path, rows, widths < 0, "embedding"))
    if pa.types.is_fixed_size_list(column.type):
        usual = column.type.list_size
    else:
        found, counts = np.unique(widths, return_counts=True)
        usual = int(found[counts.argmax()]) if len(found) else 0
    wanted = embedding_dim or usual
    is_other = (widths != wanted) | (widths == 0)
    told = {"wanted": wanted or "at least 1"}
    if is_other.any():
        told["value"] = f"{widths[is_other.argmax()]} numbers"
    require_none(_marked("embedding_width", path, rows, is_other, "embedding", **told))
    numbers = column.flatten().cast(pa.float32(), safe=False)
    matrix = np.asarray(numbers.to_numpy(zero_copy_only=False)).reshape(len(column), wanted)
    require_none(embedding_number_problems(path, rows, ~np.isfinite(matrix).all(axis=1)))
    return matrix


def widths_of(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return the width of each list of a column, -1 for a null."""
    return np.asarray(pc.fill_null(pc.list_value_length(column), -1)).astype(np.int64)


def embedding_number_problems(
    path: str, rows: pa.Table, is_bad: npt.NDArray[np.bool_]
) -> Iterator[Finding]:
    """Yield that the embeddings of marked rows [rows] hold a null, NaN or infinite number."""
    yield from _marked("embedding_number", path, rows, is_bad, "embedding", value="")


def check_one_width(found: Sequence[FoundWidth], whose: str, remedy: str) -> None:
    """Check that embeddings of some files have one width, that of the first file.

    Raises:
        DataContractError: two widths; the message names a file and a row of each, whose width must
            be one, and the remedy.
    """
    for other in found[1:]:
        first = found[0]
        if other.embedding_dim != first.embedding_dim:
            raise DataContractError(
                f"{other.path}: embedding of {other.row_key} has {other.embedding_dim} numbers; "
                f"expected {first.embedding_dim}, as {first.row_key} in {first.path} has, because "
                f"{whose}; {remedy}"
            )


def pins_without_embedding(
    missing: Sequence[int], num_missing: int, num_wanted: int, version: str
) -> Finding:
    """Return the finding of pins that were shown or acted upon and have no embedding."""
    told = {"num_rows": num_missing, "num_wanted": num_wanted, "version": version}
    ids = tuple(("pin_id", each) for each in missing[:5])
    first = ", ".join(map(str, missing[:5]))
    return finding("pin_without_embedding", ids=ids, first=first, **told)
