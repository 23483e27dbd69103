"""The SQL that measures a log, in DuckDB. A count query gives (name, key, num) of a day's own rows.

    a          actions of all days: place (which file and row), req (hash of the request, or null),
               u(ser), p(in), t(ime), lag (known_at - t), kind
    r          requests by day and user, with their first time and their number of candidates
    paired     actions whose request showed their pin on one of the days around them
    nearest    actions without a request: how far the nearest impression of the same user and pin
               lies before and after them, in ms
    pins, users, in_use, valued    keys of the tables, pins in use, values of categorical features
    i, own, hit, around            of one reader: a day's rows, its labels, the actions around it

Not for reading files (`measuring`), nor for what it comes to (`judgements`).
"""

from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.log_check.report import LAG_STEP, NUM_LAGS, SHIFT_HOURS

MAX_CANDIDATES = 1000
"""Larger requests are counted as if they had as many."""
_FAR_MS = 1 << 61
"""Stands for "no impression on this side"."""
_REACH_MS = SHIFT_HOURS * HOUR_MS

TABLES = (
    "create table a (day int, place bigint, req ubigint, u bigint, p bigint, t bigint, lag bigint, "
    "kind varchar)",
    "create table r (day int, req ubigint, u bigint, first bigint, size bigint)",
    "create table shown (p bigint)",
    "create table paired (day int, place bigint)",
    "create table nearest (day int, place bigint, before bigint, after bigint)",
    "create table pins (p bigint, version varchar, width int, is_zero bool)",
    "create table users (u bigint, as_of bigint, width int, is_zero bool)",
    "create table valued (name varchar, value varchar, num bigint)",
)

EMPTY_DAY_OF_ACTIONS = "create or replace temp table own as from a limit 0"
FILL_ACTIONS = """
insert into own
select $day, place, case when {request_id} is null then null else hash({request_id}) end,
       user_id, pin_id, acted_at, known_at - acted_at, action_type
from part
where user_id is not null and pin_id is not null and acted_at is not null and known_at is not null
  and action_type is not null
"""
EMPTY_DAY_OF_IMPRESSIONS = """
create or replace temp table i
  (req ubigint, u bigint, p bigint, t bigint, lag bigint, hour tinyint, expl bool)
"""
FILL_IMPRESSIONS = f"""
insert into i
select hash({{request_id}}), user_id, pin_id, impressed_at, known_at - impressed_at,
       greatest(0, least(23, (impressed_at - $day::bigint * {DAY_MS}) // {HOUR_MS})),
       coalesce({{is_exploration}}, false)
from part
where {{request_id}} is not null and user_id is not null and pin_id is not null
  and impressed_at is not null and known_at is not null
"""
COUNT_VALUES = "insert into valued select $name, {column}::varchar, count(*) from part group by all"

_LAG_BIN = (
    f"case when lag < 1 then 0 else least(1 + floor(ln(lag) / {LAG_STEP})::int, {NUM_LAGS - 1}) end"
)
FILL_KEYS = """
insert into {table} select {key}, {other}, width, is_zero from part
where {key} is not null and {other} is not null
"""
_TIMES = f"""
select '{{table}}.lag' as name, bin::varchar as key, num
from (select {_LAG_BIN} as bin, count(*) as num from {{rows}} group by bin)
union all
select '{{table}}.longest_lag_ms', '', greatest(0, max(lag)) from {{rows}}
union all
select '{{table}}.first_ms', '', min(t % {DAY_MS}) from {{rows}}
union all
select '{{table}}.last_ms', '', max(t % {DAY_MS}) from {{rows}}
"""
OF_ACTIONS = (
    _TIMES.format(table="actions", rows="own")
    + """
union all
select 'actions', kind, count(*) from own group by kind
union all
select 'named', 'all', count(req) from own
"""
)
OF_IMPRESSIONS = (
    _TIMES.format(table="impressions", rows="i")
    + """
union all
select 'impressions', 'rows', count(*) from i
union all
select 'impressions', 'exploration', count(*) filter (expl) from i
union all
select 'impressions', 'repeated', count(*) - count(distinct hash(req, p)) from i
union all
select 'impressions.hour', hour::varchar, num
from (select hour, count(*) as num from i group by hour)
union all
select 'labelled', kind, count(*) from hit group by kind
union all
select 'labelled.hour', hour::varchar, count(distinct row) from hit group by hour
"""
)

ACTIONS_AROUND = """
create or replace temp table around as from a where day between $first and $last
"""
HITS = """
create or replace temp table hit as
select i.rowid as row, i.hour, x.kind from i join around x on x.req = i.req and x.p = i.p
where x.day >= $day and x.t >= i.t and x.t < i.t + $window
union
select i.rowid, i.hour, x.kind from i join around x on x.u = i.u and x.p = i.p
where x.req is null and x.day >= $day and x.t >= i.t and x.t < i.t + $window
"""
REQUESTS = "insert into r select $day, req, u, min(t), count(*) from i group by req, u"
PINS_SHOWN = "insert into shown select distinct p from i"
PAIRS = """
insert into paired
select day, place from around x where exists (select 1 from i where i.req = x.req and i.p = x.p)
"""
NEAREST = f"""
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
"""

REQUESTS_OF_ALL_DAYS = """
create table q as select req, u, min(first) as first, sum(size) as size from r group by req, u
"""
NUM_REQUESTS = "select count(distinct req), count(distinct u) from q"
CANDIDATES = f"select least(size, {MAX_CANDIDATES})::int, count(*) from q group by 1 order by 1"
OF_TWO_USERS = """
select req, users[1], users[2], count(*) over () from (
  select req, list(u order by u) as users, min(first) as first from q group by req
  having count(*) > 1
) order by first, users limit 1
"""
MATCHES = """
create table matched as
select a.day, a.place, a.p, a.t, a.req, q.first,
       a.req in (select req from q) as is_there, a.t < q.first as is_early
from a left join q on q.req = a.req and q.u = a.u
where a.req is not null and a.day between $first and $last
"""
NAMED = f"""
with counted as (
  select day, count(*) as in_span, count(first) as found,
         count(*) filter (is_there and first is null) as of_other_user,
         count(*) filter (is_early) as early
  from matched group by day
), pairs as (
  select day, count(distinct place) as n from paired where day in (select day from counted)
  group by day
)
select day, 'named', 'in_span', in_span from counted
union all select day, 'named', 'found', found from counted
union all select day, 'named', 'of_other_user', of_other_user from counted
union all select day, 'named', 'early', early from counted
union all select day, 'named', 'pair_found', n from pairs
union all
select day, 'named.early', least({SHIFT_HOURS - 1}, (first - t) // {HOUR_MS})::varchar as key,
       count(*)
from matched where is_early group by day, key
"""
FIRST_EARLY = """
select p, t, req, first, count(*) over () from matched where is_early order by day, place limit 1
"""
UNNAMED = f"""
with x as (
  select day, min(before) as before, min(after) as after from nearest group by day, place
)
select day, 'unnamed', 'near', count(*) from x group by day
union all
select day, 'unnamed', 'early', count(*) from x where before >= {_REACH_MS} group by day
union all
select day, 'unnamed.shift', greatest(-{SHIFT_HOURS}, least({SHIFT_HOURS - 1},
       floor((case when before <= after then before else -after end) / {HOUR_MS}.0)))::int::varchar
       as key, count(*)
from x group by day, key
"""
EARLIER_ACTIONS = """
with done as (
  select u, day, sum(n) over (partition by u order by day) as total
  from (select u, day, count(*) as n from a group by u, day)
), asked as (select u, day, count(*) as n from r group by u, day)
select coalesce(d.total, 0) as length, sum(x.n)
from asked x asof left join done d on x.u = d.u and x.day > d.day group by length
"""
EMBEDDINGS = """
select {version}, width, count(*), count(*) filter (is_zero) from {table} where width >= 0
group by all
"""
NAME_OF = "select request_id from part where hash(request_id) = $req limit 1"

PINS_IN_USE = (
    "create table in_use as select distinct p from (select p from shown union all select p from a)"
)
PINS_WITH_ROW = """
select count(*) from in_use where p in (select p from pins where version = $version)
"""
PINS_WITHOUT_ROW = """
select p from in_use where p not in (select p from pins where version = $version)
order by p limit 5
"""
USERS_WITH_ROW = "select count(*) from (select distinct u from q) where u in (select u from users)"
REPEATED_PINS = """
select version, min(p), sum(n - 1)::bigint
from (select version, p, count(*) as n from pins group by version, p having count(*) > 1)
group by version order by version
"""
REPEATED_USERS = """
select u, as_of, (sum(n - 1) over ())::bigint
from (select u, as_of, count(*) as n from users group by u, as_of having count(*) > 1)
order by u, as_of limit 1
"""
UNLISTED = """
select coalesce(sum(num), 0)::bigint, coalesce(sum(num) filter (value is null), 0)::bigint,
       coalesce(sum(num) filter (not list_contains($listed, value)), 0)::bigint
from valued where name = $name
"""
UNLISTED_VALUES = """
select value, sum(num)::bigint as num from valued
where name = $name and not list_contains($listed, value)
group by value order by num desc, value limit $most
"""
