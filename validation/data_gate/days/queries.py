"""The SQL that measures days. Every row of a day counts; nothing is drawn at random.

The tables `i` (impressions) and `a` (actions) hold the days that are measured and the day before,
to which the first requests and actions reach back. No query looks at other days than its own and
the one before, so that a day's numbers do not depend on which days are measured with it. `s` has
one row for each user that was shown something on a day, with the user's row of the daily batch in
use then. A query gives rows of (day, name, value, num); a count query gives (day, name, key, num,
hits), hits being the rows that were acted upon. Not for what a number must be
(`kinds`).
"""

IMPRESSION_COLUMNS = """
  impressed_at // 86400000 as day, hash(request_id) as req, user_id as u, pin_id as p,
  impressed_at as t, known_at as known, position as pos, surface, is_exploration as expl, propensity
"""
ACTION_COLUMNS = """
  acted_at // 86400000 as day, case when request_id is null then null else hash(request_id) end
  as req, user_id as u, pin_id as p, acted_at as t, known_at as known, action_type as kind
"""

REQUESTS = """
create or replace temp table r as
select day, req, min(u) as u, min(t) as t, count(*) as n, count(distinct p) as pins,
       count(distinct pos) as places, max(pos) - min(pos) + 1 as span, min(surface) as surface
from i group by day, req
"""

USERS_IN_USE = """
create or replace temp table s as
select d.day, d.u, x.* exclude (u)
from (select distinct day, u from r) d
asof left join (from user_rows) x on d.u = x.u and d.day * 86400000 >= x.as_of
"""

IMPRESSIONS = """
with of_rows as (
  select day, count(*) as rows, count(distinct p) as pins, avg(expl::int) as exploration,
         1.0 - count(propensity) / count(*) as no_propensity, avg(propensity) as propensity,
         avg(pos) as position,
         avg((known = t)::int) as at_once, quantile_cont((known - t) / 1000.0, 0.5) as lag_50,
         avg((known - t > 3600000)::int) as late_hour, avg((known - t > 86400000)::int) as late_day
  from i group by day
), of_requests as (
  select day, count(*) as requests, count(distinct u) as users, sum(n) as rows,
         sum(pins) as pins, sum(places) as places, sum(span) as span
  from r group by day
), of_pins as (
  select day, max(n) as top from (select day, p, count(*) as n from i group by day, p) group by day
), of_users as (
  select day, max(n) as most from (select day, u, sum(n) as n from r group by day, u) group by day
)
select day, unnest([
  {'name': 'impressions.rows', 'value': o.rows, 'num': o.rows},
  {'name': 'impressions.requests', 'value': q.requests, 'num': q.requests},
  {'name': 'impressions.users', 'value': q.users, 'num': q.users},
  {'name': 'impressions.requests_per_user', 'value': q.requests / q.users, 'num': q.users},
  {'name': 'impressions.pins_per_request', 'value': o.rows / q.requests, 'num': q.requests},
  {'name': 'impressions.different_pins', 'value': o.pins / o.rows, 'num': o.rows},
  {'name': 'impressions.pin_repeated', 'value': 1 - q.pins / q.rows, 'num': o.rows},
  {'name': 'impressions.place_repeated', 'value': 1 - q.places / q.rows, 'num': o.rows},
  {'name': 'impressions.places_used', 'value': q.span / q.rows, 'num': o.rows},
  {'name': 'impressions.mean_position', 'value': o.position, 'num': o.rows},
  {'name': 'impressions.exploration', 'value': o.exploration, 'num': o.rows},
  {'name': 'impressions.without_propensity', 'value': o.no_propensity, 'num': o.rows},
  {'name': 'impressions.mean_propensity', 'value': o.propensity, 'num': o.rows},
  {'name': 'impressions.known_at_once', 'value': o.at_once, 'num': o.rows},
  {'name': 'impressions.lag_median_s', 'value': o.lag_50, 'num': o.rows},
  {'name': 'impressions.known_after_an_hour', 'value': o.late_hour, 'num': o.rows},
  {'name': 'impressions.known_after_a_day', 'value': o.late_day, 'num': o.rows},
  {'name': 'impressions.busiest_user', 'value': w.most / o.rows, 'num': q.users},
  {'name': 'impressions.busiest_pin', 'value': b.top / o.rows, 'num': o.rows}
], recursive := true)
from of_rows o join of_requests q using (day) join of_users w using (day)
join of_pins b using (day)
"""

ACTIONS = """
with requests as (select day, count(*) as requests from r group by day),
of_kind as (
  select day, kind, count(*) as n, count(distinct u) as users, avg((req is not null)::int) as named,
         avg((known = t)::int) as at_once,
         quantile_cont((known - t) / 1000.0, 0.5) as lag_50,
         avg((known - t > 3600000)::int) as late_hour, avg((known - t > 86400000)::int) as late_day
  from a group by day, kind
)
select day, unnest([
  {'name': 'actions.' || kind || '.rows', 'value': n, 'num': n},
  {'name': 'actions.' || kind || '.per_request', 'value': n / requests, 'num': n},
  {'name': 'actions.' || kind || '.per_user', 'value': n / users, 'num': n},
  {'name': 'actions.' || kind || '.name_a_request', 'value': named, 'num': n},
  {'name': 'actions.' || kind || '.known_at_once', 'value': at_once, 'num': n},
  {'name': 'actions.' || kind || '.lag_median_s', 'value': lag_50, 'num': n},
  {'name': 'actions.' || kind || '.known_after_an_hour', 'value': late_hour, 'num': n},
  {'name': 'actions.' || kind || '.known_after_a_day', 'value': late_day, 'num': n}
], recursive := true)
from of_kind join requests using (day)
"""

ACTORS = """
with of_user as (select day, u, count(*) as n from a group by day, u),
acted as (
  select x.day, x.u, x.rows, coalesce(o.n, 0) as n
  from (select day, u, sum(n) as rows from r group by day, u) x
  left join of_user o using (day, u)
)
select day, unnest([
  {'name': 'actions.busiest_user', 'value': most / n, 'num': users},
  {'name': 'actions.different_pins', 'value': pins / n, 'num': n}
], recursive := true)
from (select day, count(*) as n, count(distinct p) as pins from a group by day)
join (select day, max(n) as most, count(*) as users from of_user group by day) using (day)
union all
select day, unnest([
  {'name': 'impressions.of_idle_users', 'value': coalesce(sum(rows) filter (n = 0), 0) / sum(rows),
   'num': sum(rows)},
  {'name': 'impressions.idle_users', 'value': avg((n = 0)::int), 'num': count(*)}
], recursive := true)
from acted group by day
"""

NAMED = """
with named as (
  select a.day, a.kind, a.u, a.t, r.t as asked, r.u as asker, (x.p is not null) as was_shown
  from a left join r on a.req = r.req and r.day between a.day - 1 and a.day
  left join (select distinct day, req, p from i) x
    on r.req = x.req and r.day = x.day and a.p = x.p
  where a.req is not null
)
select day, unnest([
  {'name': 'named.' || kind || '.known', 'value': avg((asked is not null)::int), 'num': count(*)},
  {'name': 'named.' || kind || '.shown', 'value': avg(was_shown::int), 'num': count(*)},
  {'name': 'named.' || kind || '.own', 'value': avg((asker = u)::int), 'num': count(asker)},
  {'name': 'named.' || kind || '.early', 'value': avg((t < asked)::int), 'num': count(asked)},
  {'name': 'named.' || kind || '.delay_median_s',
   'value': quantile_cont((t - asked) / 1000.0, 0.5), 'num': count(asked)},
  {'name': 'named.' || kind || '.after_an_hour',
   'value': avg((t - asked > 3600000)::int), 'num': count(asked)}
], recursive := true)
from named group by day, kind
"""

UNNAMED = """
with unnamed as (select day, kind, u, p, t from a where req is null),
newest as (
  select i.day, i.t, x.t as acted
  from i asof left join unnamed x on i.u = x.u and i.p = x.p and i.t > x.t
), shown as (
  select a.day, a.kind, a.t, x.t as seen
  from unnamed a asof left join (select u, p, t from i) x
  on a.u = x.u and a.p = x.p and a.t >= x.t
)
select day, 'impressions.acted_upon_before' as name,
       avg((acted is not null and t - acted < 86400000)::int) as value, count(*) as num
from newest group by day
union all
select day, 'unnamed.' || kind || '.shown_before',
       avg((seen is not null and t - seen < 86400000)::int), count(*)
from shown group by day, kind
"""

NUM_PROJECTIONS = 16
_USERS = """
select day, unnest([
  {'name': 'users.without_row', 'value': avg((as_of is null)::int), 'num': count(*)},
  {'name': 'users.row_age_days', 'value': median(day - as_of / 86400000.0), 'num': count(as_of)},
  {'name': 'users.row_over_28_days', 'value': avg((day - as_of / 86400000.0 > 28)::int),
   'num': count(as_of)},
  {'name': 'users.zero_embedding', 'value': avg(is_zero::int), 'num': count(as_of)},
  {'name': 'users.embedding_repeated',
   'value': 1 - count(distinct vector) / count(vector), 'num': count(as_of)},
  {'name': 'users.embedding_length', 'value': median(length), 'num': count(as_of)},
  {'name': 'users.spread', 'value': 1 - ({mean_squares}) / nullif({squares}, 0),
   'num': count(as_of)},
  {'name': 'users.like_themselves', 'value': avg(likeness), 'num': count(likeness)}
], recursive := true)
from s group by day
"""

_AXES = [f"q{n}" for n in range(NUM_PROJECTIONS)]
USERS = _USERS.replace("{mean_squares}", " + ".join(f"avg({axis}) ** 2" for axis in _AXES)).replace(
    "{squares}", " + ".join(f"avg({axis} ** 2)" for axis in _AXES)
)

NUMBERS = (IMPRESSIONS, ACTIONS, ACTORS, NAMED, UNNAMED, USERS)

COUNTS = """
select day, 'impressions.hour' as name, (t // 3600000 % 24)::varchar as key, count(*) as num,
       0 as hits
from r group by day, key
union all
select day, 'actions.hour', (t // 3600000 % 24)::varchar as key, count(*), 0
from a group by day, key
union all
select day, 'impressions.surface', coalesce(surface, '(null)') as key, count(*), 0
from r group by day, key
union all
select day, 'users.state', coalesce(state, '(no row)') as key, count(*), 0
from s group by day, key
union all
select day, 'actions.kind_and_state', kind || ' ' || coalesce(state, '(no row)') as key, count(*), 0
from a left join s using (day, u) group by day, key
"""

NUM_FOLLOWED = 256
_HASHED = """
select day, '{what}' as name, list(h order by h)[:{num}] as ids
from (
  select day, ((xor(h, h >> 29))::hugeint * 3202034522624059733 % 2305843009213693951)::bigint as h
  from (
    select day, (({column}::hugeint * 6364136223846793005 + 1442695040888963407)
                 % 2305843009213693951)::bigint as h
    from (select distinct day, {column} from {table})
  )
)
group by day
"""
FOLLOWED = "union all".join(
    _HASHED.format(what=what, num=NUM_FOLLOWED, column=column, table=table)
    for what, column, table in (("users", "u", "r"), ("pins", "p", "i"))
)
"""The smallest hashes of a day's users and pins: two products modulo the prime 2 ** 61 - 1.

The database's own hash may be another in its next release, and these are kept for a year.
"""

CATEGORY = """
select i.day, {name}, coalesce({column}::varchar, '(null)') as key, count(*) as num,
       count(hit) as hits
from i left join (select distinct day, req, p, true as hit from a where req is not null)
using (day, req, p) group by i.day, key
"""
"""The rows of a category by value, and those of them that were acted upon on their day."""


def quoted(name: str, quote: str = '"') -> str:
    """Return a column's name for a query, or a text with another quote, whatever is in it."""
    return quote + name.replace(quote, 2 * quote) + quote
