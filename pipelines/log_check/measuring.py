"""Checks a whole event log: reads it once, measures its days in DuckDB, has them judged.

Actions come first, then each day's impressions with the actions around them, then the requests of
all days against all actions; pins and users beside. What does not fit into memory DuckDB writes to
a scratch folder. The rule for labels is the kernel's: an action that names its request counts for
that request alone, one that names none for every impression of the pin to the user within the label
window. The tables are those of `_TABLES`; a query that counts gives (name, key, num) of a day.

Not for what it comes to (`judgements`). Tested in tests/pipelines/log_check/test_measuring.py.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, get_args

import duckdb
import numpy as np
import pyarrow as pa

from pipelines import storage
from pipelines.contracts.config import FeatureConfig, RunConfig, number_columns
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.features import LOG_TABLES
from pipelines.contracts.files import own_temporary_folder
from pipelines.contracts.schemas import EVENT_LOG_TABLES, contract_of
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.event_log.log_files import EPOCH, EventLog, LogFile, find_event_log
from pipelines.event_log.reader import (
    IdColumn,
    extra_columns,
    iterate_batches,
    names_of,
    open_file,
    pin_time_problems,
)
from pipelines.event_log.rules import (
    Finding,
    Severity,
    column_problems,
    embedding_number_problems,
    finding,
    fitted,
    null_problems,
    value_problems,
    widths_of,
)
from pipelines.log_check.judgements import judge
from pipelines.log_check.report import SHIFT_HOURS, Embeddings, LogReport, Unlisted
from pipelines.preconditions.cycle import QUESTIONS_OF_RECIPE, Asked, refusals
from pipelines.settings import Settings
from pipelines.snapshot.build import check_covered
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.pool import run_in_threads, usable_cores

BATCH_ROWS = 1 << 18
"""Rows of a file that are in memory at a time."""
_VALUES_NAMED = 5
_FAR_MS = 1 << 61
"""Stands for "no impression on this side"."""
_REACH_MS = SHIFT_HOURS * HOUR_MS
_NEEDED = {
    "impressions": ("request_id", "user_id", "pin_id", "impressed_at", "known_at"),
    "actions": ("user_id", "pin_id", "action_type", "acted_at", "known_at"),
    "pins": ("pin_id", "embedding_version"),
    "users": ("user_id", "as_of"),
}
"""A row that lacks one of them counts for nothing."""

_TABLES = """
-- Actions: their file and row, a hash of the request or null, user, pin, time, known_at - time.
create table a (day int, place bigint, req ubigint, u bigint, p bigint, t bigint, lag bigint,
                kind varchar);
-- Requests by day and user, with their first time and number of candidates.
create table r (day int, req ubigint, u bigint, first bigint, size bigint);
create table shown (p bigint);
-- Actions whose request showed their pin on one of the days around them.
create table paired (day int, place bigint);
-- Actions without a request: how many ms before and after them the user was shown the pin.
create table nearest (day int, place bigint, before bigint, after bigint);
create table pins (p bigint, version varchar, width int, is_zero bool);
create table users (u bigint, as_of bigint, width int, is_zero bool);
create table valued (name varchar, value varchar, num bigint);
"""
_NEW_DAY = {  # of one reader: a day's rows
    "actions": "create or replace temp table own as from a limit 0",
    "impressions": """create or replace temp table i (req ubigint, u bigint, p bigint, t bigint,
                      lag bigint, hour tinyint, expl bool)""",
}
_FILL = {
    "actions": """
insert into own
select $day, place, case when {request_id} is null then null else hash({request_id}) end,
       user_id, pin_id, acted_at, known_at - acted_at, action_type
from part where {is_whole}
""",
    "impressions": f"""
insert into i
select hash({{request_id}}), user_id, pin_id, impressed_at, known_at - impressed_at,
       greatest(0, least(23, (impressed_at - $day::bigint * {DAY_MS}) // {HOUR_MS})),
       coalesce({{is_exploration}}, false)
from part where {{is_whole}}
""",
}
_TIMES = f"""
select '{{table}}.' || name, '', num from (
  unpivot (select quantile_disc(lag, 0.5)::bigint as median_lag_ms,
                  greatest(0, max(lag))::bigint as longest_lag_ms,
                  min(t % {DAY_MS})::bigint as first_ms, max(t % {DAY_MS})::bigint as last_ms
           from {{rows}}) on columns(*) into name name value num)
union all
"""
_COUNTED = {"actions": f"""{_TIMES.format(table="actions", rows="own")}
select 'actions', kind, count(*) from own group by kind
union all select 'named', 'all', count(req) from own
""", "impressions": f"""{_TIMES.format(table="impressions", rows="i")}
select 'impressions', 'rows', count(*) from i
union all select 'impressions', 'exploration', count(*) filter (expl) from i
union all select 'impressions', 'repeated', count(*) - count(distinct hash(req, p)) from i
union all select 'impressions.hour', hour::varchar, count(*) from i group by hour
union all select 'labelled', kind, count(*) from hit group by kind
union all select 'labelled.hour', hour::varchar, count(distinct row) from hit group by hour
"""}  # fmt: skip
_HITS = """
create or replace temp table around as from a where day between $day - 1 and $last;
create or replace temp table hit as
select i.rowid as row, i.hour, x.kind from i join around x on x.req = i.req and x.p = i.p
where x.day >= $day and x.t >= i.t and x.t < i.t + $window
union
select i.rowid, i.hour, x.kind from i join around x on x.u = i.u and x.p = i.p
where x.req is null and x.day >= $day and x.t >= i.t and x.t < i.t + $window
"""
_KEPT = {"actions": "insert into a from own", "impressions": f"""
insert into r select $day, req, u, min(t), count(*) from i group by req, u;
insert into shown select distinct p from i;
insert into paired
select day, place from around x where exists (select 1 from i where i.req = x.req and i.p = x.p);
insert into nearest
with x as (select day, place, u, p, t from around where req is null and day <= $day + 1),
near as (select u, p, t from i where exists (select 1 from x where x.u = i.u and x.p = i.p)),
found as (
  select x.day, x.place, coalesce(x.t - b.t, {_FAR_MS}) as before,
         coalesce(f.t - x.t, {_FAR_MS}) as after
  from x asof left join near b on x.u = b.u and x.p = b.p and x.t >= b.t
  asof left join near f on x.u = f.u and x.p = f.p and x.t < f.t
)
from found where least(before, after) < {_REACH_MS}
"""}  # fmt: skip
_MATCH = """
create table q as select req, u, min(first) as first, sum(size) as size from r group by req, u;
create table matched as
select a.day, a.place, a.p, a.t, a.req, q.first,
       a.req in (select req from q) as is_there, a.t < q.first as is_early
from a left join q on q.req = a.req and q.u = a.u
where a.req is not null and a.day between $first and $last
"""
_OF_TWO_USERS = """
select req, users[1], users[2], count(*) over () from (
  select req, list(u order by u) as users, min(first) as first from q group by req
  having count(*) > 1
) order by first, users limit 1
"""
_MATCHED = f"""
with x as (
  select day, min(before) as before, min(after) as after from nearest group by day, place
)
select day, 'named', 'in_span', count(*) from matched group by day
union all select day, 'named', 'found', count(first) from matched group by day
union all select day, 'named', 'of_other_user', count(*) from matched
  where is_there and first is null group by day
union all select day, 'named', 'early', count(*) from matched where is_early group by day
union all select day, 'named', 'pair_found', count(distinct place) from paired
  where day between $first and $last group by day
union all select day, 'named.early', least({SHIFT_HOURS - 1}, (first - t) // {HOUR_MS})::varchar
  as key, count(*) from matched where is_early group by day, key
union all select day, 'unnamed', 'near', count(*) from x group by day
union all select day, 'unnamed', 'early', count(*) from x where before >= {_REACH_MS} group by day
union all select day, 'unnamed.shift', greatest(-{SHIFT_HOURS}, least({SHIFT_HOURS - 1},
  floor((case when before <= after then before else -after end) / {HOUR_MS}.0)))::int::varchar
  as key, count(*) from x group by day, key
"""
_FIRST_EARLY = """
select p, t, req, first, count(*) over () from matched where is_early order by day, place limit 1
"""
_IN_USE = "create table in_use as select distinct p from (from shown union all select p from a)"
_WITHOUT_ROW = """
select p, count(*) over () from in_use
where p not in (select p from pins where version = $version) order by p limit 5
"""
_REPEATED_PINS = """
select version, min(p), sum(n - 1)::bigint
from (select version, p, count(*) as n from pins group by version, p having count(*) > 1)
group by version order by version
"""
_REPEATED_USERS = """
select u, as_of, (sum(n - 1) over ())::bigint
from (select u, as_of, count(*) as n from users group by u, as_of having count(*) > 1)
order by u, as_of limit 1
"""
_UNLISTED = """
select coalesce(sum(num), 0)::bigint, coalesce(sum(num) filter (value is null), 0)::bigint,
       coalesce(sum(num) filter (not list_contains($listed, value)), 0)::bigint
from valued where name = $name
"""
_UNLISTED_VALUES = f"""
select value, sum(num)::bigint as num from valued
where name = $name and not list_contains($listed, value)
group by value order by num desc, value limit {_VALUES_NAMED}
"""

_FoundInFile = dict[tuple[str, str], Finding]
"""What many batches of a file break: one finding for each rule and column."""


def check_log(
    location: str,
    recipe: RunConfig | None = None,
    first: date | None = None,
    last: date | None = None,
    num_workers: int | None = None,
    settings: Settings | None = None,
) -> LogReport:
    """Return what an event log looks like and all that is wrong with it, the worst first.

    Args:
        location: Path or URI of the log.
        recipe: What the log shall serve; None checks what holds for any recipe.
        first: The first day that is looked at; None is open.
        last: The last one, included; None is open.
        num_workers: Threads that read; None takes as many as there are cores.
        settings: Whether stages run on this machine; None takes the usual ones.

    Raises:
        DataContractError: there is no log at all.
        ConfigurationError: the log has no day in the span.
        TransientStorageError: the storage failed.
    """
    uri = storage.to_uri(location)
    whole, problems = find_event_log(uri)
    start, end = first or date.min, last or date.max
    files = tuple(file for file in whole.files if file.day is None or start <= file.day <= end)
    event_log = replace(whole, files=files)
    if not any(file.day for file in files) and not problems:
        raise ConfigurationError(
            f"the event log at {uri} has no day from {first} to {last}; expected days that it "
            f"covers; correct --from or --to"
        )
    hours = recipe.snapshot.label_window_hours if recipe else 24
    report = LogReport(uri, recipe.recipe if recipe else "", hours)
    findings = [*problems, *measure(report, event_log, recipe, num_workers or usable_cores())]
    findings += judge(report, recipe)
    if recipe is not None:
        # Why it can come to no verdict, whatever the log is: a cycle would be refused.
        asked = Asked.beforehand(recipe, settings or Settings(), datetime.now(UTC))
        for error in refusals(asked, QUESTIONS_OF_RECIPE):
            for each in error.problems or (str(error),):
                said = f"recipe {recipe.reference} cannot be run: {each}"
                findings.append(Finding("recipe", "", said, ""))
        if event_log == whole and event_log.files_of("impressions"):
            # A cycle of the day after the last. What else it needs is judged by the rows.
            newest = datetime.combine(event_log.span("impressions")[1], time(), UTC)
            try:
                check_covered(event_log, plan_of(recipe, newest + timedelta(days=1)))
            except DataContractError as error:
                findings.append(Finding("window_without_impressions", "", str(error), ""))
    report.problems = sorted(findings, key=lambda each: list(Severity).index(each.severity))
    for column in get_args(IdColumn):
        ids = {each for p in report.problems for name, each in p.ids if name == column}
        with contextlib.suppress(DataContractError):  # the ids alone say which row it is
            names = names_of(event_log, column, ids - {None})
            what = column.removesuffix("_id")
            report.names |= {number: f"{what} {name!r}" for number, name in names.items()}
    return report


def measure(
    report: LogReport, event_log: EventLog, recipe: RunConfig | None, num_workers: int
) -> list[Finding]:
    """Fill a report with what a log looks like, and return what breaks a rule of the contract.

    The recipe says which further columns and action types there are; None asks for none. As many
    threads read as there are workers.

    Raises:
        TransientStorageError: the storage failed.
    """
    from validation.data_gate.days.measure import open_engine

    # Where this process is killed, the next check removes the folder.
    scratch_uri = own_temporary_folder("scratch").as_uri()
    with storage.scratch_folder(scratch_uri) as scratch, open_engine(str(scratch)) as engine:
        engine.execute(_TABLES)
        log = _Log(engine, event_log, report, recipe.features if recipe else None)
        findings: list[Finding] = []
        for table in ("actions", "impressions"):
            days = sorted({each.day for each in event_log.files_of(table) if each.day})
            read_day = functools.partial(log.read_day, table)
            for found in run_in_threads(read_day, days, num_workers, f"days of {table}"):
                findings += found
        findings += log.match()
        for table in ("pins", "users"):
            files = event_log.files_of(table)
            for found in run_in_threads(log.read_keys, files, num_workers, table):
                findings += found
        return [*findings, *pin_time_problems(event_log), *log.count_in_use()]


@dataclass(frozen=True)
class _Log:
    """A log on its way into the database."""

    _engine: duckdb.DuckDBPyConnection
    _event_log: EventLog
    _report: LogReport
    _features: FeatureConfig | None

    def read_day(self, table: str, day: date) -> list[Finding]:
        """Measure a day's impressions, with the actions around them, or actions.

        Rows that lack a needed column are counted and left out.

        Returns:
            What breaks a rule.
        """
        number, hours = (day - EPOCH).days, self._report.label_window_hours
        asked = {"day": number, "last": number - (-hours // 24), "window": hours * HOUR_MS}
        is_whole = " and ".join(f"{name} is not null" for name in _NEEDED[table])
        findings, counts = list[Finding](), self._report.days[day]
        counts.setdefault(table, {})
        with self._engine.cursor() as cursor:
            cursor.execute(_NEW_DAY[table])
            files = (file for file in self._event_log.files_of(table) if file.day == day)
            for place, file in enumerate(files):
                found: _FoundInFile = {}
                for offset, rows in self._read(cursor, file, found):
                    names = rows.schema.names
                    if not set(_NEEDED[table]) <= set(names):
                        counts["unread"][table] = counts["unread"].get(table, 0) + len(rows)
                        continue
                    optional = {
                        "request_id": "request_id" if "request_id" in names else "null::varchar",
                        "is_exploration": "is_exploration" if "is_exploration" in names else "null",
                    }
                    places = pa.array(np.arange(len(rows)) + offset + (place << 40))
                    cursor.register("part", rows.append_column("place", places))
                    fill = _FILL[table].format(is_whole=is_whole, **optional)
                    cursor.execute(fill, {"day": number})
                    cursor.unregister("part")
                findings += found.values()
            if table == "impressions":
                _execute_all(cursor, _HITS, asked)
            self._count(day, cursor.execute(_COUNTED[table]).fetchall())
            _execute_all(cursor, _KEPT[table], asked)
        return findings

    def _read(
        self, cursor: duckdb.DuckDBPyConnection, file: LogFile, found: _FoundInFile
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
        features, types = [each.name for each in categorical], asked.action_types if asked else ()
        try:
            dataset, offset = open_file(self._event_log, file), 0
            schema = contract_of(table, dataset.schema.names)
            problems = list(column_problems(path, dataset.schema, schema, extra, numbers))
            _add(found, file, problems)
            bad = {problem.column for problem in problems}
            wished = dict.fromkeys((*schema.names, *numbers, *features))
            for batch in iterate_batches(
                dataset, file, [name for name in wished if name not in bad], BATCH_ROWS
            ):
                rows, wrong = fitted(path, pa.Table.from_batches([batch]), schema)
                _add(found, file, wrong, offset)
                _add(found, file, null_problems(path, rows, ["embedding"], schema), offset)
                rows = rows.drop_columns([p.column for p in wrong if p.rule == "does_not_fit"])
                values = value_problems(path, table, rows, types, numbers, file.day)
                _add(found, file, values, offset)
                for name in (name for name in features if name in rows.schema.names):
                    cursor.register("part", rows.select([name]))
                    column = '"' + name.replace('"', '""') + '"'
                    count = f"select $name, {column}::varchar, count(*) from part group by all"
                    cursor.execute(f"insert into valued {count}", {"name": f"{table}.{name}"})
                yield offset, rows
                offset += len(rows)
        except DataContractError as error:
            _add(found, file, [Finding("unreadable", "", str(error), "")])

    def _count(self, day: date, rows: Iterable[tuple[str, Any, int | None]]) -> None:
        for name, key, num in rows:
            self._report.days[day][name][str(key)] = int(num or 0)

    def match(self) -> list[Finding]:
        """Match the actions of all days with the requests of all days, and count both."""
        engine, report, findings = self._engine, self._report, list[Finding]()
        shown = [(day - EPOCH).days for day in report.days_of("impressions")]
        span = {"first": min(shown, default=1), "last": max(shown, default=0)}
        _execute_all(engine, _MATCH, span)
        counts = "count(distinct req), count(distinct u), quantile_disc(size, [0.05, 0.5, 0.95])"
        report.num_requests, report.num_users, sizes = _one(engine, f"select {counts} from q")
        report.candidates = tuple(int(size) for size in sizes or ())
        for request, one, other, num in engine.execute(_OF_TWO_USERS).fetchall():
            name = self._name("impressions", request)
            told = {"request_id": name, "one": one, "other": other, "num_rows": num}
            findings.append(finding("request_of_two_users", **told))
        for number, name, key, num in engine.execute(_MATCHED, span).fetchall():
            self._count(EPOCH + timedelta(days=number), [(name, key, num)])
        for pin, acted_at, request, first, num in engine.execute(_FIRST_EARLY).fetchall():
            name = self._name("actions", request)
            told = {"acted_at": acted_at, "impressed_at": first, "request_id": name}
            ids = (("pin_id", pin),)
            findings.append(finding("action_before_request", **told, ids=ids, num_rows=num))
        return findings

    def _name(self, table: str, request: int) -> str:
        """Return the text of a request whose hash is known; the files are read until it is found.

        Where no file that can be read names it any more, it is a question mark.
        """
        query = "select request_id from part where hash(request_id) = $req limit 1"
        for file in self._event_log.files_of(table):
            with contextlib.suppress(DataContractError, pa.ArrowInvalid):
                dataset = open_file(self._event_log, file)
                for batch in iterate_batches(dataset, file, ["request_id"], BATCH_ROWS):
                    self._engine.register("part", pa.Table.from_batches([batch]))
                    if named := self._engine.execute(query, {"req": request}).fetchall():
                        return str(named[0][0])
        return "?"

    def read_keys(self, file: LogFile) -> list[Finding]:
        """Bring the keys of a file of pins or users into the database; return what breaks a rule.

        With each stands how wide its embedding is, -1 without one, and whether that is zero.
        """
        found, keys = _FoundInFile(), _NEEDED[file.table]
        is_whole = " and ".join(f"{key} is not null" for key in keys)
        with self._engine.cursor() as cursor:
            for offset, rows in self._read(cursor, file, found):
                names = rows.schema.names
                widths, is_zero = np.full(len(rows), -1), np.zeros(len(rows), dtype=bool)
                if "embedding" in names:
                    embeddings = rows["embedding"].combine_chunks()
                    widths, is_bad = widths_of(embeddings), np.zeros(len(rows), dtype=bool)
                    for width in np.unique(widths[widths >= 0]):
                        places = np.flatnonzero(widths == width)
                        flat = embeddings.take(pa.array(places)).flatten()
                        numbers = flat.cast(pa.float32(), safe=False)
                        matrix = np.asarray(numbers.to_numpy(zero_copy_only=False))
                        matrix = matrix.reshape(len(places), width)
                        is_zero[places] = (matrix == 0).all(axis=1)
                        is_bad[places] = ~np.isfinite(matrix).all(axis=1)
                    wrong = embedding_number_problems(file.path, rows, is_bad)
                    _add(found, file, wrong, offset)
                if set(keys) <= set(names):
                    part = rows.select(keys).append_column("width", pa.array(widths))
                    cursor.register("part", part.append_column("is_zero", pa.array(is_zero)))
                    cursor.execute(f"insert into {file.table} from part where {is_whole}")
        return list(found.values())

    def count_in_use(self) -> list[Finding]:
        """Count pins, users, embeddings and values of features; return what stands twice."""
        engine, report = self._engine, self._report
        for table, version in (("pins", "version"), ("users", "''")):
            columns = f"{version}, width, count(*), count(*) filter (is_zero)"
            query = f"select {columns} from {table} where width >= 0 group by all"
            for name, width, num, num_zero in engine.execute(query).fetchall():
                is_pin = table == "pins"
                of = report.pins.setdefault(name, Embeddings()) if is_pin else report.users
                of.rows, of.zero, of.widths[width] = of.rows + num, of.zero + num_zero, num
        engine.execute(_IN_USE)
        (report.num_pins,) = _one(engine, "select count(*) from in_use")
        for version, of in report.pins.items():
            missing = engine.execute(_WITHOUT_ROW, {"version": version}).fetchall()
            of.num_in_use = report.num_pins - (missing[0][1] if missing else 0)
            of.missing = tuple(pin for pin, _ in missing)
        asked = "select count(distinct u) from q where u in (select u from users)"
        (report.users.num_in_use,) = _one(engine, asked)
        for feature in self._features.categorical if self._features else ():
            name = f"{feature.table}.{feature.name}"
            listed = {"name": name, "listed": list(feature.values)}
            rows, nulls, others = _one(engine, _UNLISTED, listed)
            values = tuple(engine.execute(_UNLISTED_VALUES, listed).fetchall())
            report.unlisted[name] = Unlisted(rows, nulls, others, values)
        findings = list[Finding]()
        for version, pin, num in engine.execute(_REPEATED_PINS).fetchall():
            ids = (("pin_id", pin),)
            findings.append(finding("repeated_embedding", version=version, ids=ids, num_rows=num))
        for user, as_of, num in engine.execute(_REPEATED_USERS).fetchall():
            of_user = (("user_id", user), ("as_of", as_of))
            findings.append(finding("repeated_user_row", ids=of_user, num_rows=num))
        return findings


def _add(found: _FoundInFile, file: LogFile, findings: Iterable[Finding], offset: int = 0) -> None:
    """Add findings of a batch whose first row is `offset` rows from the start of its file."""
    for each in findings:
        key = each.rule, each.column
        if key in found:
            found[key] = replace(found[key], num_rows=found[key].num_rows + each.num_rows)
        else:
            row = None if each.row is None else each.row + offset
            found[key] = replace(each, table=file.table, row=row)


def _execute_all(cursor: duckdb.DuckDBPyConnection, statements: str, values: dict) -> None:
    """Execute statements, each with those of the values that it names."""
    for each in statements.split(";"):
        cursor.execute(each, {name: value for name, value in values.items() if f"${name}" in each})


def _one(engine: duckdb.DuckDBPyConnection, query: str, values: Any = None) -> tuple[Any, ...]:
    (row,) = engine.execute(query, values).fetchall()  # the query counts
    return row
