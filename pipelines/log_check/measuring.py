"""Reads a whole event log once, collects what breaks a rule, and measures its days in DuckDB.

Actions come first, then each day's impressions with the actions around them, then the requests of
all days against all actions; pins and users beside. What does not fit into memory DuckDB writes to
a scratch folder. The rule for labels is the kernel's: an action that names its request counts for
that request alone, one that names none for every impression of the pin to the user within the label
window. Not for what it comes to (`judgements`). Tested in tests/pipelines/log_check/test_run.py.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines import storage
from pipelines.contracts.config import RunConfig, number_columns
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.features import LOG_TABLES
from pipelines.contracts.files import own_temporary_folder
from pipelines.contracts.schemas import EVENT_LOG_TABLES, contract_of
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.event_log.declared import extra_columns
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.reader import iterate_batches, open_file, pin_time_problems
from pipelines.event_log.rules import (
    Finding,
    across_files,
    column_problems,
    embedding_number_problems,
    fitted,
    null_problems,
    value_problems,
    widths_of,
)
from pipelines.log_check import queries
from pipelines.log_check.report import LENGTH_EDGES, Embeddings, LogReport, Unlisted
from pipelines.snapshot.pool import run_in_threads

BATCH_ROWS = 1 << 18
"""Rows of a file that are in memory at a time."""
_EPOCH = date(1970, 1, 1)
_VALUES_NAMED = 6
_NEEDED = {
    "impressions": ("request_id", "user_id", "pin_id", "impressed_at", "known_at"),
    "actions": ("user_id", "pin_id", "action_type", "acted_at", "known_at"),
    "pins": ("pin_id", "embedding_version"),
    "users": ("user_id", "as_of"),
}
"""A row that lacks one of them counts for nothing."""


def measure(
    report: LogReport, event_log: EventLog, recipe: RunConfig | None, num_workers: int
) -> list[Finding]:
    """Fill a report with what a log looks like, and return what breaks a rule of the contract.

    Args:
        report: Receives days and totals.
        event_log: The log.
        recipe: What says which further columns and action types there are; None asks for none.
        num_workers: Threads that read.

    Raises:
        TransientStorageError: the storage failed.
    """
    from validation.data_gate.days.measure import open_engine

    # Where this process is killed, the next check removes the folder.
    scratch_uri = own_temporary_folder("scratch").as_uri()
    with storage.scratch_folder(scratch_uri) as scratch, open_engine(str(scratch)) as engine:
        for statement in queries.TABLES:
            engine.execute(statement)
        log = _Log(engine, event_log, recipe, report)
        findings: list[Finding] = []
        for table, read in (("actions", log.read_actions), ("impressions", log.read_impressions)):
            days = sorted({each.day for each in event_log.files_of(table) if each.day})
            for found in run_in_threads(read, days, num_workers, f"days of {table}"):
                findings += found
        findings += log.match()
        for table in ("pins", "users"):
            files = event_log.files_of(table)
            for found in run_in_threads(log.read_keys, files, num_workers, table):
                findings += found
        return [*findings, *pin_time_problems(event_log), *log.count_in_use()]


class _Log:
    """A log on its way into the database."""

    def __init__(
        self,
        engine: duckdb.DuckDBPyConnection,
        event_log: EventLog,
        recipe: RunConfig | None,
        report: LogReport,
    ) -> None:
        self._engine, self._event_log, self._report = engine, event_log, report
        self._features = recipe.features if recipe else None
        self._label_window_ms = report.label_window_hours * HOUR_MS

    def read_actions(self, day: date) -> list[Finding]:
        """Bring a day's actions into the database; return what breaks a rule."""
        with self._engine.cursor() as cursor:
            cursor.execute(queries.EMPTY_DAY_OF_ACTIONS)
            findings = self._fill(cursor, "actions", day, queries.FILL_ACTIONS)
            self._count(day, cursor.execute(queries.OF_ACTIONS).fetchall())
            cursor.execute("insert into a from own")
        return findings

    def read_impressions(self, day: date) -> list[Finding]:
        """Measure a day's impressions with the actions around them; return what breaks a rule."""
        number, window_days = (day - _EPOCH).days, -(-self._label_window_ms // DAY_MS)
        with self._engine.cursor() as cursor:
            cursor.execute(queries.EMPTY_DAY_OF_IMPRESSIONS)
            findings = self._fill(cursor, "impressions", day, queries.FILL_IMPRESSIONS)
            around = {"first": number - 1, "last": number + window_days}
            cursor.execute(queries.ACTIONS_AROUND, around)
            cursor.execute(queries.HITS, {"window": self._label_window_ms, "day": number})
            self._count(day, cursor.execute(queries.OF_IMPRESSIONS).fetchall())
            for statement in (queries.REQUESTS, queries.PINS_SHOWN, queries.PAIRS, queries.NEAREST):
                cursor.execute(statement, {"day": number} if "$day" in statement else None)
        return findings

    def _fill(
        self, cursor: duckdb.DuckDBPyConnection, table: str, day: date, statement: str
    ) -> list[Finding]:
        """Bring the usable rows of a day into a table of the cursor's own."""
        findings: list[Finding] = []
        counts = self._report.days[day]
        counts.setdefault(table, {})
        for number, file in enumerate(f for f in self._event_log.files_of(table) if f.day == day):
            found: _FoundInFile = {}
            for offset, rows in self._read(cursor, file, found):
                names = rows.schema.names
                if not set(_NEEDED[table]) <= set(names):
                    counts["unread"][table] = counts["unread"].get(table, 0) + len(rows)
                    continue
                place = (number << 40) + offset
                options = {
                    "request_id": "request_id" if "request_id" in names else "null::varchar",
                    "is_exploration": "is_exploration" if "is_exploration" in names else "false",
                }
                places = pa.array(np.arange(place, place + len(rows)))
                cursor.register("part", rows.append_column("place", places))
                cursor.execute(statement.format(**options), {"day": (day - _EPOCH).days})
                cursor.unregister("part")
            findings += found.values()
        return findings

    def _read(
        self, cursor: duckdb.DuckDBPyConnection, file: LogFile, found: "_FoundInFile"
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield each batch of a file with the number of its first row, as far as it can be used.

        The columns are those of the contract that the file has in a type of the right kind. Rows
        stay even where they break a rule, so that row numbers are those of the file.
        """
        table, path, asked = file.table, file.path, self._features
        categorical = asked.categorical_of(table) if asked else ()
        extra = extra_columns(EVENT_LOG_TABLES[table], categorical)
        held = asked.numeric_held if asked else ()
        numbers = number_columns(held, table) if table in LOG_TABLES else ()
        features = [each.name for each in categorical]
        try:
            dataset = open_file(self._event_log, file)
            schema = contract_of(table, dataset.schema.names)
            problems = list(column_problems(path, dataset.schema, schema, extra, numbers))
            _add(found, file, problems)
            bad = {problem.column for problem in problems}
            wished = dict.fromkeys((*schema.names, *numbers, *features))
            names, offset = [name for name in wished if name not in bad], 0
            types = asked.action_types if asked else ()
            for batch in iterate_batches(dataset, file, names, BATCH_ROWS):
                rows, wrong = fitted(path, pa.Table.from_batches([batch]), schema)
                _add(found, file, wrong, offset)
                _add(found, file, null_problems(path, rows, ["embedding"], schema), offset)
                unfit = [each.column for each in wrong if each.rule == "does_not_fit"]
                rows = rows.drop_columns(unfit)
                values = value_problems(path, table, rows, types, numbers, file.day)
                _add(found, file, values, offset)
                for name in (name for name in features if name in rows.schema.names):
                    cursor.register("part", rows.select([name]))
                    column = '"' + name.replace('"', '""') + '"'
                    told = {"name": f"{table}.{name}"}
                    cursor.execute(queries.COUNT_VALUES.format(column=column), told)
                yield offset, rows
                offset += len(rows)
        except DataContractError as error:
            _add(found, file, [Finding("unreadable", "", str(error), "")])

    def _count(self, day: date, rows: Iterable[tuple[str, Any, int | None]]) -> None:
        for name, key, num in rows:
            if num is not None:  # of no rows there is no smallest one
                self._report.days[day][name][str(key)] = num

    def match(self) -> list[Finding]:
        """Match the actions of all days with the requests of all days, and count both."""
        engine, report, findings = self._engine, self._report, list[Finding]()
        engine.execute(queries.REQUESTS_OF_ALL_DAYS)
        report.num_requests, report.num_users = _one(engine, queries.NUM_REQUESTS)
        report.candidates = dict(engine.execute(queries.CANDIDATES).fetchall())
        for request, one, other, num in engine.execute(queries.OF_TWO_USERS).fetchall():
            facts = {"request_id": self._name("impressions", request), "one": one, "other": other}
            findings.append(across_files("request_of_two_users", facts, num_rows=num))
        shown = [(day - _EPOCH).days for day in report.days_of("impressions")]
        span = {"first": min(shown, default=1), "last": max(shown, default=0)}
        engine.execute(queries.MATCHES, span)
        for query in (queries.NAMED, queries.UNNAMED):
            for number, name, key, num in engine.execute(query).fetchall():
                self._count(date.fromordinal(number + _EPOCH.toordinal()), [(name, key, num)])
        for pin, acted_at, request, first, num in engine.execute(queries.FIRST_EARLY).fetchall():
            facts = {"acted_at": acted_at, "impressed_at": first}
            facts["request_id"] = self._name("actions", request)
            ids = [("pin_id", pin)]
            findings.append(across_files("action_before_request", facts, ids, num))
        for length, num in engine.execute(queries.EARLIER_ACTIONS).fetchall():
            report.lengths[int(np.searchsorted(LENGTH_EDGES, length, side="right")) - 1] += num
        return findings

    def _name(self, table: str, request: int) -> str:
        """Return the text of a request whose hash is known; the files are read until it is found.

        Where no file that can be read names it any more, it is a question mark.
        """
        for file in self._event_log.files_of(table):
            with contextlib.suppress(DataContractError, pa.ArrowInvalid):
                dataset = open_file(self._event_log, file)
                for batch in iterate_batches(dataset, file, ["request_id"], BATCH_ROWS):
                    self._engine.register("part", pa.Table.from_batches([batch]))
                    named = self._engine.execute(queries.NAME_OF, {"req": request}).fetchall()
                    if named:
                        return str(named[0][0])
        return "?"

    def read_keys(self, file: LogFile) -> list[Finding]:
        """Bring the keys of a file of pins or users into the database; return what breaks a rule.

        With each stands how wide its embedding is, -1 without one, and whether that is zero.
        """
        found: _FoundInFile = {}
        key, other = _NEEDED[file.table]
        with self._engine.cursor() as cursor:
            for offset, rows in self._read(cursor, file, found):
                names = rows.schema.names
                widths, is_zero = np.full(len(rows), -1), np.zeros(len(rows), dtype=bool)
                if "embedding" in names:
                    widths, is_zero, is_bad = _looked_at(rows["embedding"].combine_chunks())
                    wrong = embedding_number_problems(file.path, rows, is_bad)
                    _add(found, file, wrong, offset)
                if {key, other} <= set(names):
                    part = rows.select([key, other]).append_column("width", pa.array(widths))
                    cursor.register("part", part.append_column("is_zero", pa.array(is_zero)))
                    statement = queries.FILL_KEYS
                    cursor.execute(statement.format(table=file.table, key=key, other=other))
        return list(found.values())

    def count_in_use(self) -> list[Finding]:
        """Count pins, users, embeddings and values of features; return what stands twice."""
        engine, report = self._engine, self._report
        for table, version in (("pins", "version"), ("users", "''")):
            query = queries.EMBEDDINGS.format(table=table, version=version)
            for name, width, num, num_zero in engine.execute(query).fetchall():
                of = (
                    report.users if table == "users" else report.pins.setdefault(name, Embeddings())
                )
                of.rows, of.zero, of.widths[width] = of.rows + num, of.zero + num_zero, num
        engine.execute(queries.PINS_IN_USE)
        (report.num_pins,) = _one(engine, "select count(*) from in_use")
        for name, of in report.pins.items():
            told = {"version": name}
            (of.num_in_use,) = _one(engine, queries.PINS_WITH_ROW, told)
            missing = engine.execute(queries.PINS_WITHOUT_ROW, told).fetchall()
            of.missing = tuple(pin for (pin,) in missing)
        (report.users.num_in_use,) = _one(engine, queries.USERS_WITH_ROW)
        for feature in self._features.categorical if self._features else ():
            column = f"{feature.table}.{feature.name}"
            asked = {"name": column, "listed": list(feature.values)}
            rows, nulls, others = _one(engine, queries.UNLISTED, asked)
            values = engine.execute(queries.UNLISTED_VALUES, asked | {"most": _VALUES_NAMED})
            report.unlisted[column] = Unlisted(rows, nulls, others, tuple(values.fetchall()))
        return [
            *(
                across_files("repeated_embedding", {"version": version}, [("pin_id", pin)], num)
                for version, pin, num in engine.execute(queries.REPEATED_PINS).fetchall()
            ),
            *(
                across_files("repeated_user_row", {}, [("user_id", user), ("as_of", as_of)], num)
                for user, as_of, num in engine.execute(queries.REPEATED_USERS).fetchall()
            ),
        ]


_FoundInFile = dict[tuple[str, str], Finding]
"""What many batches of a file break: one finding for each rule and column."""


def _add(found: _FoundInFile, file: LogFile, findings: Iterable[Finding], offset: int = 0) -> None:
    """Add findings of a batch whose first row is `offset` rows from the start of its file."""
    for each in findings:
        key = each.rule, each.column
        if key in found:
            found[key] = replace(found[key], num_rows=found[key].num_rows + each.num_rows)
        else:
            row = None if each.row is None else each.row + offset
            found[key] = replace(each, table=file.table, row=row)


def _one(
    engine: duckdb.DuckDBPyConnection, query: str, values: dict[str, Any] | None = None
) -> tuple[Any, ...]:
    (row,) = engine.execute(query, values).fetchall()  # the query counts
    return row


def _looked_at(
    embeddings: pa.Array,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return of each embedding its width (-1: null), if it is zero, and if it is not finite."""
    widths = widths_of(embeddings)
    is_zero, is_bad = np.zeros(len(widths), dtype=bool), np.zeros(len(widths), dtype=bool)
    for width in np.unique(widths[widths >= 0]):
        places = np.flatnonzero(widths == width)
        flat = embeddings.take(pa.array(places)).flatten().cast(pa.float32(), safe=False)
        matrix = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32)
        matrix = matrix.reshape(len(places), width)
        is_zero[places] = (matrix == 0).all(axis=1)
        is_bad[places] = ~np.isfinite(matrix).all(axis=1)
    return widths, is_zero, is_bad
