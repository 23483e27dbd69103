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
from datetime import date, timedelta
from typing import Any, get_args

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines import storage
from pipelines.contracts import data_rules as bounds
from pipelines.contracts.config import FeatureConfig, RunConfig, number_columns
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.features import LOG_TABLES
from pipelines.contracts.files import own_temporary_folder
from pipelines.contracts.schemas import EVENT_LOG_TABLES, contract_of
from pipelines.contracts.time import DAY_MS, EARLIEST_MS, HOUR_MS, LATEST_MS
from pipelines.event_log.completeness import completeness
from pipelines.event_log.log_files import EPOCH, EventLog, LogFile, find_event_log
from pipelines.event_log.reader import (
    IdColumn,
    extra_columns,
    iterate_batches,
    names_of,
    open_file,
    pin_time_problems,
    read_file,
)
from pipelines.event_log.record import NO_ZONE, ZONE_OF
from pipelines.event_log.rules import (
    KEY_COLUMNS,
    Finding,
    Severity,
    column_kind,
    column_problems,
    embedding_number_problems,
    finding,
    fitted,
    null_problems,
    value_problems,
    widths_of,
)
from pipelines.log_check.judgements import judge, judge_embeddings
from pipelines.log_check.report import SHIFT_HOURS, Embeddings, LogReport, Unlisted
from pipelines.snapshot.build import check_covered
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.pool import run_in_threads, usable_cores
from pipelines.sources.event_log_writer import id_of, quoted

WORDS_FOR_NONE = ["", *r"- -1 ? \N NA N/A NaN nan None none NULL null nil undefined".split()]
"""What tables often have where they know no user or no item."""
BATCH_ROWS = 1 << 18
"""Rows of a file that are in memory at a time."""
OWN_ROWS = 1 << 11
"""Rows of a file of impressions whose columns beyond the contract are held against labels."""
_FAR_MS = 1 << 61
"""Stands for "no impression on this side"."""
_REACH_MS = SHIFT_HOURS * HOUR_MS
_TABLES = """
-- Actions: their place in the day, a hash of the request or null, user, pin, time, known_at - time.
create table a (day int, place bigint, req ubigint, u bigint, p bigint, t bigint, lag bigint,
                kind varchar);
-- Requests by day and user, with their first time.
create table r (day int, req ubigint, u bigint, first bigint);
-- Pins by day, with when they were first shown, how often they were, and how often got an action.
create table shown (p bigint, first bigint, num bigint, hits bigint);
-- Impressions by user, and how many got an action.
create table shown_to (u bigint, num bigint, hits bigint);
-- Values of columns beyond the contract, of pins and users, and of impressions by what they got.
create table own_pins (p bigint, name varchar, value varchar);
create table own_users (u bigint, name varchar, value varchar);
create table told (name varchar, value varchar, num bigint, hits bigint);
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
                      lag bigint, hour tinyint, expl bool);
create or replace temp table own_shown (req ubigint, p bigint, name varchar, value varchar)""",
}
_FILL = {
    "actions": """
insert into own
select $day, null, case when request_id is null then null else hash(request_id) end,
       user_id, pin_id, acted_at, known_at - acted_at, action_type
from part
where columns(['user_id', 'pin_id', 'action_type', 'acted_at', 'known_at']) is not null
""",
    "impressions": f"""
insert into i
select hash(request_id), user_id, pin_id, impressed_at, known_at - impressed_at,
       greatest(0, least(23, (impressed_at - $day::bigint * {DAY_MS}) // {HOUR_MS})),
       coalesce(is_exploration, false)
from part
where columns(['request_id', 'user_id', 'pin_id', 'impressed_at', 'known_at']) is not null
""",
    "pins": """
insert into pins select pin_id, embedding_version, width, is_zero from part
where columns(['pin_id', 'embedding_version']) is not null
""",
    "users": """
insert into users select user_id, as_of, width, is_zero from part
where columns(['user_id', 'as_of']) is not null
""",
}
"""A row that lacks what is needed of it counts for nothing."""
_TIMES = f"""
select '{{table}}.' || name, '', num from (
  unpivot (select greatest(0, max(lag))::bigint as longest_lag_ms,
                  min(t % {DAY_MS})::bigint as first_ms, max(t % {DAY_MS})::bigint as last_ms
           from {{rows}}) on columns(*) into name name value num)
union all
"""
_COUNTED = {"actions": f"""{_TIMES.format(table="actions", rows="own")}
select 'actions', kind, count(*) from own group by kind
union all select 'named', 'all', count(req) from own
""", "impressions": f"""{_TIMES.format(table="impressions", rows="i")}
select 'impressions', 'exploration', count(*) filter (expl) from i
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
_KEPT = {"actions": "insert into a select * replace (rowid as place) from own", "impressions": f"""
insert into r select $day, req, u, min(t) from i group by req, u;
create or replace temp table got as
select i.*, h.row is not null as hit from i left join (select distinct row from hit) h
on h.row = i.rowid;
insert into shown select p, min(t), count(*), count(*) filter (hit) from got group by p;
insert into shown_to select u, count(*), count(*) filter (hit) from got group by u;
insert into told select name, value, count(*), count(*) filter (hit)
from own_shown join got using (req, p) group by all;
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
create table q as select req, u, min(first) as first from r group by req, u;
create table matched as
select a.day, a.place, a.p, a.t, a.req, q.first,
       a.req in (select req from q) as is_there, a.t < q.first as is_early
from a left join q on q.req = a.req and q.u = a.u
where a.req is not null and a.day between $first and $last
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
union all select day, 'named.late', least({SHIFT_HOURS - 1}, (t - first) // {HOUR_MS})::varchar
  as key, count(*) from matched where t >= first group by day, key
union all select day, 'unnamed', 'near', count(*) from x group by day
union all select day, 'unnamed', 'early', count(*) from x where before >= {_REACH_MS} group by day
union all select day, 'unnamed.shift', greatest(-{SHIFT_HOURS}, least({SHIFT_HOURS - 1},
  floor((case when before <= after then before else -after end) / {HOUR_MS}.0)))::int::varchar
  as key, count(*) from x group by day, key
"""
_IN_USE = """
create table pins_in_use as select distinct p from (select p from shown union all select p from a);
create table users_in_use as select u, max(first) as last from q group by u;
select (select count(distinct req) from q), (select count(*) from users_in_use),
       (select count(*) from pins_in_use)
"""
_EMBEDDINGS = """
with of_width as (
  select {version} as version, width, count(*) as num, count(*) filter (is_zero) as zero
  from {table} where width >= 0 group by all
), missing as (
  select version, count(*) as num, list({key} order by {key})[:5] as first
  from (select distinct version from of_width) cross join {table}_in_use
  anti join (select {version} as version, {key} from {seen}) using (version, {key})
  group by version
)
select version, sum(o.num)::bigint, sum(zero)::bigint, list((width, o.num) order by o.num desc),
       coalesce(any_value(m.num), 0), coalesce(any_value(m.first), [])
from of_width o left join missing m using (version) group by version
"""
_REFUSED = {
    "request_of_two_users": """
select req as request, users[1] as one, users[2] as other, count(*) over () as num_rows from (
  select req, list(u order by u) as users, min(first) as first from q group by req
  having count(*) > 1
) order by first, users limit 1
""",
    "action_before_request": """
select p as pin_id, t as acted_at, req as request, first as impressed_at,
       count(*) over () as num_rows
from matched where is_early order by day, place limit 1
""",
    "long_request": """
select req as request, min(first) as start, max(first) as stop, count(*) over () as num_rows
from r group by req, u having max(first) - min(first) > $window order by start limit 1
""",
    "repeated_embedding": """
select version, min(p) as pin_id, sum(n - 1)::bigint as num_rows
from (select version, p, count(*) as n from pins group by version, p having count(*) > 1)
group by version order by version
""",
    "repeated_user_row": """
select u as user_id, as_of, (sum(n - 1) over ())::bigint as num_rows
from (select u, as_of, count(*) as n from users group by u, as_of having count(*) > 1)
order by u, as_of limit 1
""",
}
"""What the kernel would refuse, by rule: the facts that its sentences name."""
_VALUED = "insert into valued select $name, {0}::varchar, count(*) from part group by all"
_CREATED = f"""
select name, count(*), count(*) filter (first < t or t not between {EARLIEST_MS} and {LATEST_MS})
from (select p, name, try_cast(value as double) as t from own_pins)
join (select p, min(first) as first from shown group by p) using (p) where t > 0 group by name
"""
_OWN = {
    "impressions": "insert into own_shown select hash(request_id), pin_id, $name, v from part",
    "pins": "insert into own_pins select pin_id, $name, v from part",
    "users": "insert into own_users select user_id, $name, v from part",
}
_TELLING = f"""
with of as (select name, coalesce(format('{{:.1e}}', try_cast(value as double)), value) as value,
  sum(num) as num, sum(hits) as hits from (from told union all
  select 'pins.' || name, value, num, hits from own_pins join shown using (p) union all
  select 'users.' || name, value, num, hits from own_users join shown_to using (u)) group by all),
pooled as (select name, case when num < {bounds.TELLING.fewest} then '' else value end as v,
  sum(num) as num, sum(hits) as hits from of group by all),
ranked as (select *, sum(num - hits) over (partition by name order by hits / num) as below
  from pooled)
select name, sum(hits * (below - (num - hits) / 2)) / (sum(hits) * sum(num - hits)) as area
from ranked group by name having sum(hits) >= {bounds.TELLING.fewest} and sum(num - hits) > 0
order by area desc, name
"""
_WORDS = """
with of as (select unnest($ids) as id, unnest($words) as word)
select name, word, sum(num)::bigint from of join (
  select 'user_id' as name, u as id, num from shown_to union all
  select 'pin_id', p, num from shown union all
  select unnest(['user_id', 'pin_id']), unnest([u, p]), 1 from a
) using (id) group by all order by name, word
"""
_UNLISTED = """
with of as (select value, sum(num)::bigint as num from valued where name = $name group by value),
unlisted as (from of where value is null or not list_contains($listed, value))
select (select coalesce(sum(num), 0)::bigint from of), coalesce(sum(num), 0)::bigint,
       coalesce(list((value, num) order by value is not null, num desc, value)[:5], [])
from unlisted
"""


def check_log(
    location: str,
    recipe: RunConfig | None = None,
    first: date | None = None,
    last: date | None = None,
) -> LogReport:
    """Return what an event log looks like and all that is wrong with it, the worst first.

    Args:
        location: Path or URI of the log.
        recipe: What the log shall serve: its columns, action types and windows; None checks what
            holds for any recipe.
        first: The first day that is looked at; None is open.
        last: The last one, included; None is open.

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
    findings = [*problems, *measure(report, event_log, recipe)]
    # Where rows break a rule, what rows come to follows from that, and is told once it is mended.
    rules = {each.rule for each in findings}
    if rules & {"implausible_time", "wrong_day"}:
        findings = [each for each in findings if each.rule != "action_before_request"]
    if rules and rules <= _REFUSED.keys():
        findings += judge_embeddings(report, recipe)
    if not rules:
        is_whole = event_log == whole and report.days_of("impressions")
        of_its_end = list(_of_its_end(report, event_log, recipe)) if is_whole else []
        findings += [*judge(report, recipe), *of_its_end]
        findings += _of_its_record(event_log)
    report.problems = sorted(findings, key=lambda each: list(Severity).index(each.severity))
    for column in get_args(IdColumn):
        ids = {each for p in report.problems for name, each in p.ids if name == column}
        with contextlib.suppress(DataContractError):  # the ids alone say which row it is
            names = names_of(event_log, column, ids - {None})
            what = column.removesuffix("_id")
            report.names |= {number: f"{what} {name!r}" for number, name in names.items()}
    return report


def _of_its_end(
    report: LogReport, event_log: EventLog, recipe: RunConfig | None
) -> Iterator[Finding]:
    """Say to when a log is complete, and yield what that means for a cycle of then."""
    report.complete = known = completeness(event_log)
    if known.cut_at:
        told = {"cut_at": known.cut_at, "usual": known.usual}
        yield finding("cut_day", as_of=known.as_of, **told)
    if recipe is not None:
        # What else such a cycle needs is judged by the rows.
        try:
            check_covered(event_log, plan_of(recipe, known.as_of))
        except DataContractError as error:
            yield finding("window_without_impressions", error=error)


def _of_its_record(event_log: EventLog) -> Iterator[Finding]:
    """Yield that candidates were drawn, and that times were given with a zone and without."""
    if event_log.record and (how := event_log.record.candidates):
        yield finding("drawn_candidates", how=how)
    settled = event_log.record.settled if event_log.record else {}
    zones = {name.removeprefix(ZONE_OF): zone for name, zone in settled.items() if ZONE_OF in name}
    without = [name for name, zone in zones.items() if zone == NO_ZONE]
    if without and (others := zones.keys() - without):
        table, _, column = without[0].partition(".")
        told = {"without": ", ".join(without), "others": ", ".join(sorted(others))}
        yield finding("mixed_zones", table=table, column=column, **told)


def measure(report: LogReport, event_log: EventLog, recipe: RunConfig | None) -> list[Finding]:
    """Fill a report with what a log looks like, and return what breaks a rule of the contract.

    The recipe says which further columns and action types there are; None asks for none. As many
    threads read as there are cores.

    Raises:
        TransientStorageError: the storage failed.
    """
    from validation.data_gate.days.measure import open_engine

    # Where this process is killed, the next check removes the folder.
    scratch_uri = own_temporary_folder("scratch").as_uri()
    with storage.scratch_folder(scratch_uri) as scratch, open_engine(str(scratch)) as engine:
        engine.execute(_TABLES)
        num_workers = usable_cores()
        log = _Log(engine, event_log, report, recipe.features if recipe else None)
        findings: list[Finding] = []
        for table in ("actions", "impressions"):
            days = sorted({each.day for each in event_log.files_of(table) if each.day})
            read_day = functools.partial(log.read_day, table)
            for found in run_in_threads(read_day, days, num_workers, f"days of {table}"):
                findings += found
        files = (*event_log.files_of("pins"), *event_log.files_of("users"))
        for found in run_in_threads(log.read_keys, files, num_workers, "pins and users"):
            findings += found
        return [*findings, *pin_time_problems(event_log), *log.match()]


@dataclass(frozen=True)
class _Log:
    """A log on its way into the database."""

    _engine: duckdb.DuckDBPyConnection
    _event_log: EventLog
    _report: LogReport
    _features: FeatureConfig | None

    def read_day(self, table: str, day: date) -> list[Finding]:
        """Measure a day's impressions, with the actions around them, or actions.

        Returns:
            What breaks a rule.
        """
        number, hours = (day - EPOCH).days, self._report.label_window_hours
        asked = {"day": number, "last": number - (-hours // 24), "window": hours * HOUR_MS}
        findings, counts = list[Finding](), self._report.days[day]
        with self._engine.cursor() as cursor:
            _execute_all(cursor, _NEW_DAY[table], {})
            files = [file for file in self._event_log.files_of(table) if file.day == day]
            counts["rows"][table] = sum(self._read(cursor, file, findings) for file in files)
            if table == "impressions":
                _execute_all(cursor, _HITS, asked)
            for name, key, num in cursor.execute(_COUNTED[table]).fetchall():
                counts[name][str(key)] = num
            _execute_all(cursor, _KEPT[table], asked)
        return findings

    def read_keys(self, file: LogFile) -> list[Finding]:
        """Bring the keys of a file of pins or users into the database; return what breaks a rule.

        With each stands how wide its embedding is, -1 without one, and whether that is zero.
        """
        findings = list[Finding]()
        with self._engine.cursor() as cursor:
            self._read(cursor, file, findings)
        return findings

    def _read(
        self, cursor: duckdb.DuckDBPyConnection, file: LogFile, findings: list[Finding]
    ) -> int:
        """Bring a file's rows into the database, as far as they can be used.

        Columns of the contract that the file lacks, or has in a type of another kind, are null; a
        row that lacks a needed one is left out.

        Returns:
            The file's rows; findings of many batches are one for each rule and column.
        """
        table, path, asked, offset = file.table, file.path, self._features, 0
        categorical = asked.categorical_of(table) if asked else ()
        extra = extra_columns(EVENT_LOG_TABLES[table], categorical)
        held = asked.numeric_held if asked else ()
        numbers = number_columns(held, table) if table in LOG_TABLES else ()
        features, types = [each.name for each in categorical], asked.action_types if asked else ()
        found = dict[tuple[str, str], Finding]()

        def add(problems: Iterable[Finding]) -> None:
            for each in problems:
                row = None if each.row is None else each.row + offset
                first = found.get((each.rule, each.column), replace(each, row=row, num_rows=0))
                total = replace(first, table=table, num_rows=first.num_rows + each.num_rows)
                found[each.rule, each.column] = total

        try:
            dataset = open_file(self._event_log, file)
            schema = contract_of(table, dataset.schema.names)
            problems = list(column_problems(path, dataset.schema, schema, extra, numbers))
            add(problems)
            bad = {problem.column for problem in problems}
            own = {*dataset.schema.names} - {*schema.names} - bad if table in _OWN else set[str]()
            wished = sorted({*schema.names, *numbers, *features, *own} - bad)
            for batch in iterate_batches(dataset, file, wished, BATCH_ROWS):
                rows, wrong = fitted(path, pa.Table.from_batches([batch]), schema)
                add([*wrong, *null_problems(path, rows, ["embedding"], schema)])
                rows = rows.drop_columns([p.column for p in wrong if p.rule == "does_not_fit"])
                add(value_problems(path, table, rows, types, numbers, file.day))
                for field in (each for each in schema if each.name not in rows.schema.names):
                    rows = rows.append_column(field.name, pa.nulls(len(rows), field.type))
                if "embedding" in schema.names:
                    widths, is_zero, is_bad = _looked_at(rows["embedding"].combine_chunks())
                    add(embedding_number_problems(path, rows, is_bad))
                    rows = rows.append_column("width", pa.array(widths))
                    rows = rows.append_column("is_zero", pa.array(is_zero))
                some = rows.slice(0, max(0, OWN_ROWS - offset)) if file.day else rows
                _keep_own(cursor, table, some, own)
                unread = {"embedding", *numbers} & {*rows.schema.names}  # not every type can be
                cursor.register("part", rows.drop_columns(unread))
                for name in (name for name in features if name not in bad):
                    cursor.execute(_VALUED.format(quoted(name)), {"name": f"{table}.{name}"})
                _execute_all(cursor, _FILL[table], {"day": file.day and (file.day - EPOCH).days})
                cursor.unregister("part")
                offset += len(rows)
        except DataContractError as error:
            add([finding("unreadable", error=error)])
        findings += found.values()
        return offset

    def match(self) -> list[Finding]:
        """Match the actions of all days with the requests of all days, and pins with their rows.

        Returns:
            What the kernel would refuse.
        """
        engine, report, findings = self._engine, self._report, list[Finding]()
        shown = [(day - EPOCH).days for day in report.days_of("impressions")]
        span = {"first": min(shown, default=1), "last": max(shown, default=0)}
        _execute_all(engine, _MATCH, span)
        for number, name, key, num in engine.execute(_MATCHED, span).fetchall():
            report.days[EPOCH + timedelta(days=number)][name][str(key)] = num
        [counts] = engine.execute(_IN_USE).fetchall()
        report.num_requests, report.num_users, report.num_pins = counts
        for_pins = _EMBEDDINGS.format(table="pins", version="version", key="p", seen="pins")
        for version, *of in engine.execute(for_pins).fetchall():
            report.pins[version] = Embeddings(*of)
        seen = "users join users_in_use using (u) where as_of <= last"
        for_users = _EMBEDDINGS.format(table="users", version="''", key="u", seen=seen)
        report.users = Embeddings(num_missing=report.num_users)
        for _, *of in engine.execute(for_users).fetchall():
            report.users = Embeddings(*of)
        for feature in self._features.categorical if self._features else ():
            name = f"{feature.table}.{feature.name}"
            listed = {"name": name, "listed": list(feature.values)}
            [values] = engine.execute(_UNLISTED, listed).fetchall()
            report.unlisted[name] = Unlisted(*values)
        for name, pins, wrong in engine.execute(_CREATED).fetchall():
            report.created[name] = pins, wrong
        report.telling = dict(engine.execute(_TELLING).fetchall())
        words = {"words": WORDS_FOR_NONE, "ids": [id_of(word) for word in WORDS_FOR_NONE]}
        report.words = engine.execute(_WORDS, words).fetchall()
        window = {"window": report.label_window_hours * HOUR_MS}
        for rule, query in _REFUSED.items():
            rows = engine.execute(query, window if "$window" in query else None)
            names = [column[0] for column in rows.description or ()]
            for row in rows.fetchall():
                told = dict(zip(names, row, strict=True))
                if "request" in told:
                    told["request_id"] = self._name(told.pop("request"))
                ids = tuple((name, told[name]) for name in KEY_COLUMNS if name in told)
                each = finding(rule, ids=ids, **told)
                if rule == "action_before_request":
                    [(hours, _)] = report.total("named.early").most_common(1)
                    most = f"{each.problem}, most of them by {hours} to {int(hours) + 1} h"
                    each = replace(each, problem=most)
                findings.append(each)
        return findings

    def _name(self, request: int) -> str:
        """Return the text of a request whose hash is known; files are read until it is found."""
        query = "select request_id from part where hash(request_id::varchar) = $req limit 1"
        for file in self._event_log.files_of("impressions"):
            with contextlib.suppress(DataContractError, pa.ArrowInvalid):
                rows = read_file(open_file(self._event_log, file), file, ["request_id"], None)
                self._engine.register("part", rows)
                if named := self._engine.execute(query, {"req": request}).fetchall():
                    return str(named[0][0])
        return "?"


def _keep_own(
    cursor: duckdb.DuckDBPyConnection, table: str, rows: pa.Table, own: Iterable[str]
) -> None:
    """Bring columns beyond the contract into the database, as texts."""
    keys = rows.select([n for n in ("request_id", "user_id", "pin_id") if n in rows.schema.names])
    for name in own:
        if column_kind(rows[name].type) in ("text", "integer", "float", "bool"):
            cursor.register("part", keys.append_column("v", rows[name].cast(pa.string())))
            cursor.execute(_OWN[table], {"name": name})


def _looked_at(embeddings: pa.Array) -> tuple[npt.NDArray[Any], ...]:
    """Return each embedding's width, -1 without one, whether it is all zero, and not all finite."""
    widths = widths_of(embeddings)
    is_zero, is_bad = np.zeros((2, len(widths)), dtype=bool)
    for width in np.unique(widths[widths > 0]):
        places = np.flatnonzero(widths == width)
        numbers = embeddings.take(pa.array(places)).flatten().cast(pa.float32(), safe=False)
        matrix = np.asarray(numbers.to_numpy(zero_copy_only=False)).reshape(len(places), width)
        is_zero[places] = (matrix == 0).all(axis=1)
        is_bad[places] = ~np.isfinite(matrix).all(axis=1)
    return widths, is_zero, is_bad


def _execute_all(cursor: duckdb.DuckDBPyConnection, statements: str, values: dict) -> None:
    """Execute statements, each with those of the values that it names."""
    for each in statements.split(";"):
        cursor.execute(each, {name: value for name, value in values.items() if f"${name}" in each})
