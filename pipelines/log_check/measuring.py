"""Reads a whole event log once, collects what breaks a rule, and measures its days in DuckDB.

Actions come first, then each day's impressions with the actions around them, then the requests of
all days against all actions; pins and users beside. What does not fit into memory DuckDB writes to
a scratch folder. The rule for labels is the kernel's: an action that names its request counts for
that request alone, one that names none for every impression of the pin to the user within the label
window. Not for what it comes to (`judgements`). Tested in tests/pipelines/log_check/test_run.py.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import storage
from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.day_profile import DayProfile, Number
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import own_temporary_folder
from pipelines.contracts.schemas import contract_of
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.parquet_files import iterate_batches, open_file
from pipelines.event_log.reader import pin_time_problems
from pipelines.event_log.rules import (
    KEY_COLUMNS,
    Finding,
    action_before_request,
    column_problems,
    embedding_number_problems,
    fitted,
    null_problems,
    repeated_embedding,
    repeated_user_row,
    request_of_two_users,
    value_problems,
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


@dataclass(frozen=True)
class RecipeColumns:
    """What the recipe of a check asks of the rows, where there is one."""

    action_types: tuple[str, ...] = ()
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # beyond the contract
    numbers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    categorical: tuple[CategoricalFeature, ...] = ()


class _Findings:
    """Findings of many batches of a file: one for each rule and column."""

    def __init__(self, file: LogFile) -> None:
        self._file, self.found = file, dict[tuple[str, str], Finding]()

    def add(self, findings: Iterable[Finding], offset: int = 0) -> None:
        """Add findings of a batch whose first row is `offset` rows from the start of its file."""
        for each in findings:
            key = each.rule, each.column
            if key in self.found:
                num_rows = self.found[key].num_rows + each.num_rows
                self.found[key] = replace(self.found[key], num_rows=num_rows)
            else:
                row = None if each.row is None else each.row + offset
                self.found[key] = replace(each, table=self._file.table, row=row)


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Give an empty folder in this user's part of the machine's temporary folder.

    Where this process is killed, the next check or look removes it.
    """
    with storage.scratch_folder(own_temporary_folder("scratch").as_uri()) as folder:
        yield folder


def measure(
    report: LogReport, event_log: EventLog, columns: RecipeColumns, num_workers: int
) -> list[Finding]:
    """Fill a report with what a log looks like, and return what breaks a rule of the contract.

    Args:
        report: Receives days and totals.
        event_log: The log.
        columns: What a recipe asks for.
        num_workers: Threads that read.

    Raises:
        TransientStorageError: the storage failed.
    """
    from validation.data_gate.days.measure import open_engine

    with own_folder() as scratch, open_engine(str(scratch)) as engine:
        for statement in queries.TABLES:
            engine.execute(statement)
        log = _Log(engine, event_log, columns, report.label_window_hours * HOUR_MS)
        findings: list[Finding] = []
        for table in ("actions", "impressions"):
            days = sorted({each.day for each in event_log.files_of(table) if each.day})
            read = log.read_actions if table == "actions" else log.read_impressions
            for found in run_in_threads(read, days, num_workers, f"days of {table}"):
                findings += found
        findings += log.match(report)
        for table in ("pins", "users"):
            files = event_log.files_of(table)
            found_of: dict[str, Embeddings] = {}
            for problems, parts in run_in_threads(log.read_vectors, files, num_workers, table):
                findings += problems
                for version, part in parts.items():
                    own = found_of.setdefault(version, Embeddings())
                    own.rows, own.zero = own.rows + part.rows, own.zero + part.zero
                    own.widths.update(part.widths)
            findings += _several_widths(table, found_of)
            if table == "pins":
                report.pins = found_of
            else:
                report.users = found_of.get("", report.users)
        findings += pin_time_problems(event_log)
        findings += log.count_in_use(report)
        report.unlisted = {
            f"{each.table}.{each.name}": log.unlisted(each) for each in columns.categorical
        }
        report.days = log.profiles()
        return findings


class _Log:
    """A log on its way into the database."""

    def __init__(
        self,
        engine: duckdb.DuckDBPyConnection,
        event_log: EventLog,
        columns: RecipeColumns,
        label_window_ms: int,
    ) -> None:
        self._engine, self._event_log, self._columns = engine, event_log, columns
        self._label_window_ms = label_window_ms
        self._counts: dict[date, dict[str, dict[str, int]]] = defaultdict(dict)
        self._numbers: dict[date, dict[str, Number]] = defaultdict(dict)

    def profiles(self) -> dict[date, DayProfile]:
        """Return all days, in order."""
        return {
            day: DayProfile(
                day=(day - _EPOCH).days, numbers=self._numbers[day], counts=self._counts[day]
            )
            for day in sorted(self._counts)
        }

    def read_actions(self, day: date) -> list[Finding]:
        """Bring a day's actions into the database; return what breaks a rule."""
        with self._engine.cursor() as cursor:
            cursor.execute(queries.EMPTY_DAY_OF_ACTIONS)
            findings = self._fill(cursor, "actions", day, queries.FILL_ACTIONS)
            self._count(cursor, day, queries.OF_ACTIONS)
            cursor.execute("insert into a from own")
        return findings

    def read_impressions(self, day: date) -> list[Finding]:
        """Measure a day's impressions with the actions around them; return what breaks a rule."""
        number, window_days = (day - _EPOCH).days, -(-self._label_window_ms // DAY_MS)
        with self._engine.cursor() as cursor:
            cursor.execute(queries.EMPTY_DAY_OF_IMPRESSIONS)
            findings = self._fill(cursor, "impressions", day, queries.FILL_IMPRESSIONS)
            around = {"first": number - 1, "day": number, "last": number + window_days}
            cursor.execute(queries.ACTIONS_AROUND, {"first": number - 1, "last": around["last"]})
            cursor.execute(queries.HITS, {"window": self._label_window_ms, "day": number})
            self._count(cursor, day, queries.OF_IMPRESSIONS)
            for statement in (queries.REQUESTS, queries.PINS_SHOWN, queries.PAIRS, queries.NEAREST):
                values = {"day": number} if "$day" in statement else None
                cursor.execute(statement, values)
        return findings

    def _fill(
        self, cursor: duckdb.DuckDBPyConnection, table: str, day: date, statement: str
    ) -> list[Finding]:
        """Bring the usable rows of a day into a table of the cursor's own."""
        findings: list[Finding] = []
        counts = self._counts[day]
        counts.setdefault(table, {})
        for number, file in enumerate(f for f in self._event_log.files_of(table) if f.day == day):
            found = _Findings(file)
            for offset, rows in self._read(cursor, file, found):
                names = rows.schema.names
                if not set(_NEEDED[table]) <= set(names):
                    unread = counts.setdefault("unread", {})
                    unread[table] = unread.get(table, 0) + len(rows)
                    continue
                place = (number << 40) + offset
                options = {
                    "request_id": "request_id" if "request_id" in names else "null::varchar",
                    "is_exploration": "is_exploration" if "is_exploration" in names else "false",
                }
                places = pa.array(np.arange(place, place + len(rows)))
                cursor.register("part", rows.append_column("place", places))
                start = {"day": (day - _EPOCH).days}
                cursor.execute(statement.format(**options), start)
                cursor.unregister("part")
            findings += found.found.values()
        return findings

    def _read(
        self, cursor: duckdb.DuckDBPyConnection, file: LogFile, findings: _Findings
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield each batch of a file with the number of its first row, as far as it can be used.

        The columns are those of the contract that the file has in a type of the right kind. Rows
        stay even where they break a rule, so that row numbers are those of the file.
        """
        asked = self._columns
        extra, numbers = asked.texts.get(file.table, ()), asked.numbers.get(file.table, ())
        try:
            dataset = open_file(self._event_log, file)
            schema = contract_of(file.table, dataset.schema.names)
            problems = list(column_problems(file.path, dataset.schema, schema, extra, numbers))
            findings.add(problems)
            bad = {problem.column for problem in problems}
            features = [each.name for each in asked.categorical if each.table == file.table]
            wished = dict.fromkeys((*schema.names, *numbers, *features))
            offset = 0
            names = [name for name in wished if name not in bad]
            for batch in iterate_batches(dataset, file, names, BATCH_ROWS):
                rows = pa.Table.from_batches([batch])
                fit, found, unfit = fitted(file.path, rows, schema)
                fit = fit.select([name for name in fit.schema.names if name not in unfit])
                values = value_problems(
                    file.path, file.table, fit, asked.action_types, numbers, file.day
                )
                findings.add((*found, *_null_embeddings(file, rows, schema), *values), offset)
                for name in (name for name in features if name in fit.schema.names):
                    cursor.register("part", fit.select([name]))
                    column = '"' + name.replace('"', '""') + '"'
                    told = {"name": f"{file.table}.{name}"}
                    cursor.execute(queries.COUNT_VALUES.format(column=column), told)
                yield offset, fit
                offset += len(rows)
        except DataContractError as error:
            # The reader's message is whole: it says what was expected and what to change.
            problem, _, remedy = str(error).rpartition("; ")
            findings.add([Finding("unreadable", "", problem, "a Parquet file", remedy)])

    def _count(self, cursor: duckdb.DuckDBPyConnection, day: date, statement: str) -> None:
        for name, key, num, of in cursor.execute(statement).fetchall():
            if of is not None:
                self._numbers[day][name] = Number(value=num, num=of)
            elif num is not None:  # of no rows there is no smallest one
                self._counts[day].setdefault(name, {})[str(key)] = num

    def match(self, report: LogReport) -> list[Finding]:
        """Match the actions of all days with the requests of all days, and count both."""
        engine, findings = self._engine, list[Finding]()
        engine.execute(queries.REQUESTS_OF_ALL_DAYS)
        report.num_requests, report.num_users = _one(engine, queries.NUM_REQUESTS)
        report.candidates = dict(engine.execute(queries.CANDIDATES).fetchall())
        for request, one, other, num in engine.execute(queries.OF_TWO_USERS).fetchall():
            findings.append(
                request_of_two_users(self._name("impressions", request), one, other, num)
            )
        shown = [(d - _EPOCH).days for d, found in self._counts.items() if "impressions" in found]
        span = {"first": min(shown, default=1), "last": max(shown, default=0)}
        engine.execute(queries.MATCHES, span)
        for query in (queries.NAMED, queries.UNNAMED):
            for number, name, key, num in engine.execute(query).fetchall():
                day = date.fromordinal(number + _EPOCH.toordinal())
                self._counts[day].setdefault(name, {})[str(key)] = num
        for pin, acted_at, request, first, num in engine.execute(queries.FIRST_EARLY).fetchall():
            name = self._name("actions", request)
            findings.append(action_before_request(pin, acted_at, name, first, num))
        for length, num in engine.execute(queries.EARLIER_ACTIONS).fetchall():
            place = int(np.searchsorted(LENGTH_EDGES, length, side="right")) - 1
            report.lengths[place] += num
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

    def read_vectors(self, file: LogFile) -> tuple[list[Finding], dict[str, Embeddings]]:
        """Read a file of pins or users: its keys into the database, its embeddings counted.

        Returns:
            What breaks a rule, and the embeddings by version; users' have the version ''.
        """
        findings, found = _Findings(file), dict[str, Embeddings]()
        key, other = _NEEDED[file.table]
        with self._engine.cursor() as cursor:
            for offset, rows in self._read(cursor, file, findings):
                if {key, "embedding"} <= set(rows.schema.names):
                    findings.add(_count_embeddings(file, key, rows, found), offset)
                if {key, other} <= set(rows.schema.names):
                    cursor.register("part", rows.select([key, other]))
                    cursor.execute(
                        f"insert into {file.table} select {key}, {other} from part "
                        f"where {key} is not null and {other} is not null"
                    )
        return list(findings.found.values()), found

    def count_in_use(self, report: LogReport) -> list[Finding]:
        """Count pins and users in use, and those of them that have a row; yield repeated rows."""
        engine = self._engine
        engine.execute(queries.PINS_IN_USE)
        (report.num_pins,) = _one(engine, "select count(*) from in_use")
        for version, known in report.pins.items():
            values = {"version": version}
            (known.num_in_use,) = _one(engine, queries.PINS_WITH_ROW, values)
            missing = engine.execute(queries.PINS_WITHOUT_ROW, values).fetchall()
            known.missing = tuple(pin for (pin,) in missing)
        (report.users.num_in_use,) = _one(engine, queries.USERS_WITH_ROW)
        pins = engine.execute(queries.REPEATED_PINS).fetchall()
        users = engine.execute(queries.REPEATED_USERS).fetchall()
        return [
            *(repeated_embedding(pin, version, num) for version, pin, num in pins),
            *(repeated_user_row(user, as_of, num) for user, as_of, num in users),
        ]

    def unlisted(self, feature: CategoricalFeature) -> Unlisted:
        """Return what the rows have in the column of a feature."""
        told = {"name": f"{feature.table}.{feature.name}", "listed": list(feature.values)}
        rows, nulls, others = _one(self._engine, queries.UNLISTED, told)
        values = self._engine.execute(queries.UNLISTED_VALUES, told | {"most": _VALUES_NAMED})
        return Unlisted(rows, nulls, others, tuple(values.fetchall()))


def _one(
    engine: duckdb.DuckDBPyConnection, query: str, values: dict[str, Any] | None = None
) -> tuple[Any, ...]:
    (row,) = engine.execute(query, values).fetchall()  # the query counts
    return row


def _null_embeddings(file: LogFile, rows: pa.Table, schema: pa.Schema) -> Iterator[Finding]:
    if "embedding" in rows.schema.names:
        names = [name for name in rows.schema.names if name in (*KEY_COLUMNS, "embedding")]
        found = null_problems(file.path, rows.select(names), schema)
        yield from (each for each in found if each.column == "embedding")


def _count_embeddings(
    file: LogFile, key: str, rows: pa.Table, total: dict[str, Embeddings]
) -> Iterator[Finding]:
    """Count a batch's embeddings by version and width; yield those that hold no numbers."""
    rows = rows.append_column("row", pa.array(np.arange(len(rows))))
    rows = rows.filter(rows["embedding"].is_valid())
    has_version = "embedding_version" in rows.schema.names
    texts = rows["embedding_version"].cast(pa.string()) if has_version else None
    for version in pc.unique(texts).drop_null().to_pylist() if texts is not None else [""]:
        own = rows if texts is None else rows.filter(pc.fill_null(pc.equal(texts, version), False))
        known = total.setdefault(version, Embeddings())
        known.rows += len(own)
        widths = pc.list_value_length(own["embedding"])
        for width in pc.unique(widths).to_pylist():
            some = own.filter(pc.equal(widths, width))
            known.widths[width] += len(some)
            flat = pc.list_flatten(some["embedding"]).combine_chunks()
            numbers = flat.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
            matrix = np.asarray(numbers, dtype=np.float32).reshape(len(some), width)
            known.zero += int((matrix == 0).all(axis=1).sum())
            for each in embedding_number_problems(file.path, key, some[key], matrix):
                yield replace(each, row=some["row"][each.row].as_py())


def _several_widths(table: str, embeddings: Mapping[str, Embeddings]) -> Iterator[Finding]:
    """Yield the versions whose embeddings have several widths."""
    for version, known in sorted(embeddings.items()):
        if len(known.widths) > 1:
            usual = max(known.widths, key=lambda width: known.widths[width])
            others = {width: rows for width, rows in known.widths.items() if width != usual}
            said = ", ".join(f"{rows:,} of {width}" for width, rows in sorted(others.items()))
            what = f" of version {version!r}" if version else ""
            yield Finding(
                "embedding_width",
                "",
                f"{table}: embeddings{what} have several widths: {known.widths[usual]:,} of "
                f"{usual} numbers, {said}",
                "one width in a version",
                "write these rows again, or under an embedding_version of their own",
                table=table,
                column="embedding",
                value=said,
                num_rows=sum(others.values()),
            )
