"""Compares rows with earlier rows in all columns at once, and in what they say of each other.

A rule knows the defect that it was written for. Defects that nobody thought of have in common that
rows no longer look like the rows before: a column has other values, or has the same values but no
longer belongs to the other columns. So a few quantities are taken of each impression, request,
action and user of a day, joined with the user's row and the pin's embedding, and every quantity's
mean, its deviation, and its correlation with every other quantity are numbers of the day. Each
is judged by the days before like any other (`limits`), and the furthest is named.

It is a two-sample test: the distance between the means of two samples under the polynomial kernel
of degree two, one coordinate at a time (Gretton et al., A Kernel Two-Sample Test, JMLR 2012). A
classifier that tells the two samples apart (Lopez-Paz and Oquab, ICLR 2017; Rabanser et al.,
Failing Loudly, NeurIPS 2019) was tried on the same quantities: it finds no more, tells any two
fortnights apart by a little, and needs the rows of earlier days (docs/decisions.md).

Of a large day, the rows of some users are taken, chosen by their ids; small days are looked at
together, in one query. A quantity looks at the day and the day before, like any number (`queries`).
Not for what a number may be (`limits`). Tested in
tests/validation/data_gate/days/test_moments.py.
"""

import math
import re
from collections.abc import Iterator, Sequence

import duckdb
import numpy as np
import numpy.typing as npt

from pipelines.contracts.day_profile import Number
from validation.data_gate.days.queries import NUM_PROJECTIONS, quoted

MOST_ROWS = 30_000
"""Impressions of a day that are looked at, about."""
FEWEST_ROWS = 50
"""So many rows have to differ from the median before a quantity is said to belong to others."""
PREFIX, PAIR = "joint", "~"

_YES_OR_NO = ("acted ", "is ", "exploration", "named", "shown", "same_", "has_row", "whole_hour")
"""Names of quantities that are 0 or 1, whose deviation says what their mean says."""
_COSINES, _SIGNED = ("cosine", "likeness", "hour_"), ("_length", "delay", "_gain")

Floats = npt.NDArray[np.float64]

_SAMPLE = f"""
create or replace temp table chosen as
select day, u from (
  select day, u, sum(n) as n from r where day between {{first}} and {{last}} group by day, u
) qualify (u::hugeint * 6364136223846793005 + 1442695040888963407) % 2305843009213693951
  <= {MOST_ROWS} / sum(n) over (partition by day) * 2305843009213693951
"""
_COSINE = (
    f"({' + '.join(f'q{n} * p{n}' for n in range(NUM_PROJECTIONS))}) / nullif(length * pin_size, 0)"
)
_CODE = "(md5_number_lower(coalesce({}::varchar, '')) % 1000)::double / 1000"
"""A text as a number in [0, 1), the same in every release of the database."""
_HOURS = "sin({0} * 2 * pi() / 86400000) as hour_sin, cos({0} * 2 * pi() / 86400000) as hour_cos"
_OF_USER = f"""
{_CODE.format("state")} as "code state", same_state::double as same_state,
same_vector::double as same_vector, likeness, ln(1e-6 + length) as user_length,
ln(1 + greatest(0, day - as_of / 86400000.0)) as row_age
"""
_OF_PIN = f"ln(1e-6 + pin_size) as pin_length, {_COSINE} as cosine"

_IMPRESSIONS = f"""
with h as (
  select i.*, [column: case when lag(true) over w then
    ({{column}} is not distinct from lag({{column}}) over w)::double end
    as "same_of_pin {{name}}", ]
  from i join chosen using (day, u) window w as (partition by day, p order by t, u, req, pos)
), acted as (select day, u, p, [each: bool_or(kind = {{text}}) as "n {{name}}", ]
          from a join chosen using (day, u) group by day, u, p),
often as (select day, p, count(*) as times from h group by day, p),
active as (select day, u, count(distinct req) as requests from h group by day, u),
size as (select day, req, count(*) as size from h group by day, req),
twice as (
  select h.day, h.req, h.p, count(*) as shown from h
  join (select day, u, p, t from i where day between {{first}} - 1 and {{last}}) x
  on x.u = h.u and x.p = h.p and x.t < h.t and x.day >= h.day - 1 group by all
), last as (
  select distinct h.day, h.u, h.t, x.t as acted from (select distinct day, u, t from h) h
  asof join (select day, u, t from a where day between {{first}} - 1 and {{last}}) x
  on x.u = h.u and h.t > x.t where x.day >= h.day - 1
)
select day, [each: coalesce("n {{name}}", false)::double as "acted {{name}}", ]
  ln(1.0 + pos) as position, ln(1.0 + abs(p)) as pin_id, ln(1.0 + abs(h.u)) as user_id,
  ln(size) as size, {_HOURS.format("h.t")}, expl::double as exploration,
  propensity, ln(1 + greatest(0, known - h.t) / 1000.0) as lag,
  [column: {_CODE.format("{column}")} as "code {{name}}", "same_of_pin {{name}}", ]
  ln(times) as popularity, ln(requests) as activity, ln(1 + coalesce(shown, 0)) as seen_before,
  ln(1 + least(coalesce(h.t - last.acted, 86400000), 86400000) / 1000.0) as since_action,
  {_OF_USER}, {_OF_PIN}
from h left join acted using (day, u, p) join size using (day, req) join often using (day, p)
join active using (day, u) left join s using (day, u) left join pin_rows using (p)
left join twice using (day, req, p) left join last on last.u = h.u and last.t = h.t
order by all
"""
_REQUESTS = f"""
with acted as (select distinct day, u, p, 1 as has_acted from a join chosen using (day, u)),
h as (
  select i.*, coalesce(has_acted, 0) as acted, {_COSINE} as cosine,
  [axis: p{{n}} / nullif(pin_size, 0) as e{{n}}, ]
  from i join chosen using (day, u) left join acted using (day, u, p)
  left join s using (day, u) left join pin_rows using (p)
)
select day, ln(count(*)) as size, ln(1.0 + sum(acted)) as acted_pins,
  ln(1.0 + max(pos) - min(pos)) as span, stddev_pop(cosine) as cosine_spread,
  avg(ln(1.0 + pos)) filter (acted = 1) - avg(ln(1.0 + pos)) as position_gain,
  sqrt([axis: avg(e{{n}}) ** 2 + ] 0) as alike
from h group by day, req order by all
"""
_ACTIONS = f"""
with g as (
  select *, lag(day) over w >= day - 1 as is_near,
  if(is_near, lag(t) over w, null) as before, if(is_near, lag(p) over w, null) as pin_before,
  if(is_near, lag(kind) over w, null) as kind_before
  from a where day between {{first}} - 1 and {{last}}
  window w as (partition by u order by t, kind, p)
), h as (select g.* from g join chosen using (day, u)),
often as (select day, p, count(*) as times from h group by day, p),
active as (select day, u, count(*) as acts from h group by day, u),
seen as (
  select day, u, p, min(t) as seen, min(pos) as pos
  from i join chosen using (day, u) group by day, u, p
)
select day, [each: (kind = {{text}})::double as "is {{name}}", ]
  (req is not null)::double as named, {_HOURS.format("t")},
  (t % 3600000 = 0)::double as whole_hour, ln(1 + greatest(0, known - t) / 1000.0) as lag,
  sign(t - seen) * ln(1 + abs(t - seen) / 1000.0) as delay, (seen is not null)::double as shown,
  ln(1.0 + pos) as position, ln(times) as popularity, ln(acts) as activity,
  ln(1 + least(coalesce(t - before, 86400000), 86400000) / 1000.0) as since_action,
  coalesce((pin_before = p)::double, 0) as same_pin,
  coalesce((kind_before = kind)::double, 0) as same_kind, {_OF_USER}, {_OF_PIN}
from h join often using (day, p) join active using (day, u) left join seen using (day, u, p)
left join s using (day, u) left join pin_rows using (p)
order by all
"""
_USERS = f"""
with h as (
  select day, u, count(*) as requests, sum(n) as rows, min(t) as t, max(t) - min(t) as span
  from r join chosen using (day, u) group by day, u
), acted as (
  select day, u, count(distinct p) as pins,
  [each: count(*) filter (kind = {{text}}) as "n {{name}}", ]
  from a join chosen using (day, u) group by day, u
), before as (select day + 1 as day, u, count(*) as n from r
              where day between {{first}} - 1 and {{last}} group by day, u)
select day, [each: ln(1.0 + coalesce("n {{name}}", 0)) as "acts {{name}}", ]
  ln(1.0 + requests) as requests, ln(1.0 + rows) as rows, ln(1.0 + coalesce(pins, 0)) as acted_pins,
  ln(1.0 + coalesce(n, 0)) as yesterday, {_HOURS.format("t")}, ln(1 + span / 1000.0) as span,
  (as_of is not null)::double as has_row, {_OF_USER}
from h left join acted using (day, u) left join before using (day, u) left join s using (day, u)
order by all
"""


def range_of(quantity: str) -> tuple[float, float]:
    """Return what a quantity of a row can be, so its mean: most are logarithms from 0 on."""
    if quantity.startswith((*_YES_OR_NO, "propensity")):
        return 0.0, 1.0
    if quantity.startswith(_COSINES):
        return -1.0, 1.0
    return (-math.inf if quantity.endswith(_SIGNED) else 0.0), math.inf


def is_judged(number: str) -> bool:
    """Return whether a number says something by itself: no deviation of 0 and 1 does."""
    quantity = number.split(".", 2)[-1]
    return not (quantity.endswith(".deviation") and quantity.startswith(_YES_OR_NO))


def joint_numbers(
    engine: duckdb.DuckDBPyConnection, days: range, categories: Sequence[str]
) -> Iterator[tuple[int, str, Number]]:
    """Yield the day, name and value of every number that rows give together.

    Args:
        engine: With the tables of `queries`, and pin_rows of `measure`.
        days: Which, since the epoch.
        categories: Columns of impressions that are looked at besides the contract's.
    """
    kinds = [
        kind for (kind,) in engine.execute("select distinct kind from a order by 1").fetchall()
    ]
    of_tables = (("impressions", _IMPRESSIONS), ("requests", _REQUESTS), ("actions", _ACTIONS),
                 ("users", _USERS))  # fmt: skip
    queries = {table: _filled(q, kinds, ("surface", *categories)) for table, q in of_tables}
    for first, last in _blocks(engine, days):
        engine.execute(_SAMPLE.replace("{first}", str(first)).replace("{last}", str(last)))
        for table, query in queries.items():
            asked = query.replace("{first}", str(first)).replace("{last}", str(last))
            found = engine.execute(asked).fetchnumpy()
            names = [name for name in found if name != "day"]
            columns = [np.ma.filled(found[name].astype(np.float64), np.nan) for name in names]
            rows, of_day = np.stack(columns, axis=1), np.asarray(found["day"])
            for day in np.unique(of_day).tolist():
                for name, number in _moments(names, rows[of_day == day]):
                    yield day, f"{PREFIX}.{table}.{name}", number


def _blocks(engine: duckdb.DuckDBPyConnection, days: range) -> Iterator[tuple[int, int]]:
    """Yield first and last days of stretches whose rows are looked at together, in one query."""
    counted = dict(engine.execute("select day, sum(n) from r group by day").fetchall())
    first, num_rows = days.start, 0
    for day in days:
        more = min(int(counted.get(day, 0)), MOST_ROWS)
        if day > first and num_rows + more > MOST_ROWS:
            yield first, day - 1
            first, num_rows = day, 0
        num_rows += more
    if len(days):
        yield first, days.stop - 1


def _filled(query: str, kinds: Sequence[str], columns: Sequence[str]) -> str:
    """Return the query with the parts in brackets repeated.

    `[each: ...]` stands once for each action type, `[column: ...]` for each category's column,
    `[axis: ...]` for each direction that embeddings are projected onto.
    """
    values: dict[str, Sequence[str]] = {
        "each": kinds, "column": columns, "axis": [str(n) for n in range(NUM_PROJECTIONS)]
    }  # fmt: skip

    def repeated(part: re.Match[str]) -> str:
        forms = [
            {"n": v, "text": quoted(v, "'"), "column": quoted(v), "name": v.replace('"', '""')}
            for v in values[part[1]]
        ]
        return "".join(
            re.sub(r"\{(\w+)\}", lambda m, f=f: f.get(m[1], m[0]), part[2]) for f in forms
        )

    return re.sub(r"\[(each|column|axis): (.*?)\]", repeated, query, flags=re.DOTALL)


def _moments(names: Sequence[str], rows: Floats) -> Iterator[tuple[str, Number]]:
    """Yield what a day's rows [rows, quantities] give; NaN where a row has no value."""
    is_known = ~np.isnan(rows)
    nums = is_known.sum(axis=0)
    means = np.where(is_known, rows, 0).sum(axis=0) / np.maximum(nums, 1)
    centred = np.where(is_known, rows - means, 0.0)
    spreads = np.sqrt((centred**2).sum(axis=0) / np.maximum(nums, 1))
    medians = [np.median(column[known]) if known.any() else 0.0
               for column, known in zip(rows.T, is_known.T, strict=True)]  # fmt: skip
    says = ((rows != medians) & is_known).sum(axis=0) >= FEWEST_ROWS
    products, pairs = centred.T @ centred, is_known.astype(np.float64).T @ is_known
    for n, name in enumerate(names):
        is_rare = name.startswith(("acted ", "is ", "acts ")) and not says[n]
        if nums[n] >= FEWEST_ROWS and not name.startswith("code ") and not is_rare:
            yield f"{name}.mean", Number(value=float(means[n]), num=int(nums[n]))
            yield f"{name}.deviation", Number(value=float(spreads[n]), num=int(nums[n]))
        for m in range(n):
            is_of_codes = name.startswith("code ") and names[m].startswith("code ")
            if says[n] and says[m] and pairs[n, m] >= FEWEST_ROWS and not is_of_codes:
                value = products[n, m] / (pairs[n, m] * spreads[n] * spreads[m])
                yield f"{names[m]}{PAIR}{name}", Number(value=float(value), num=int(pairs[n, m]))
