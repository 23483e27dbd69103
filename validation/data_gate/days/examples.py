"""Rows that show what is unusual about a number, for whoever has to find where it comes from.

A number has a query where single rows can show it: a request that shows a pin twice, an action on
a request that is not there, the busiest user. Volumes have none. Tested in
tests/validation/data_gate/days/test_examples.py.
"""

from collections.abc import Mapping, Sequence

import duckdb

from validation.data_gate.days.measure import DayRows, load_rows

NUM_EXAMPLES = 2

_AT = "strftime(make_timestamp({t} * 1000), '%H:%M:%S')"
_ROW = "'user ' || u || ', pin ' || p || ' at ' || " + _AT.format(t="t")
_LAG = _ROW + " || ', known ' || (known - t) // 60000 || ' minutes later'"
_OF_ACTION = "'user ' || a.u || ', pin ' || a.p || ' at ' || " + _AT.format(t="a.t")
_SHOWN = "i where day = $day"
_NAMED = """a left join r on a.req = r.req and r.day between a.day - 1 and a.day
    where a.day = $day and a.kind = $kind and a.req is not null"""

_QUERIES = {
    "impressions.pin_repeated": f"""select {_ROW} || ', shown ' || n || ' times in its request'
        from (select *, count(*) over (partition by req, p) as n from {_SHOWN})
        where n > 1 order by n desc, t, u, p""",
    "impressions.place_repeated": f"""select {_ROW} || ', position ' || pos || ' of its request'
        from (select *, count(*) over (partition by req, pos) as n from {_SHOWN})
        where n > 1 order by n desc, t, u, p""",
    "impressions.known_after_an_hour": f"""select {_LAG}
        from {_SHOWN} and known - t > 3600000 order by known - t desc, t, u, p""",
    "impressions.known_after_a_day": f"""select {_LAG}
        from {_SHOWN} and known - t > 86400000 order by known - t desc, t, u, p""",
    "impressions.busiest_user": f"""select 'user ' || u || ', ' || count(*) || ' impressions'
        from {_SHOWN} group by u order by count(*) desc, u""",
    "impressions.busiest_pin": f"""select 'pin ' || p || ', ' || count(*) || ' impressions'
        from {_SHOWN} group by p order by count(*) desc, p""",
    "impressions.acted_upon_before": f"""select {_ROW}
        || ', acted upon without a request in the day before' from i
        where day = $day and exists (select 1 from a where a.req is null and a.u = i.u
        and a.p = i.p and a.t < i.t and i.t - a.t < 86400000) order by t, u, p""",
    "actions.busiest_user": """select 'user ' || u || ', ' || count(*) || ' actions'
        from a where day = $day group by u order by count(*) desc, u""",
    "actions.*.known_after_a_day": f"""select {_LAG} from a
        where day = $day and kind = $kind and known - t > 86400000
        order by known - t desc, t, u, p""",
    "named.*.known": f"""select {_OF_ACTION}
        || ', of a request that is not there on the day or the one before'
        from {_NAMED} and r.req is null order by a.t, a.u, a.p""",
    "named.*.own": f"""select {_OF_ACTION} || ', on a request of user ' || r.u
        from {_NAMED} and r.u <> a.u order by a.t, a.u, a.p""",
    "named.*.early": f"""select {_OF_ACTION} || ', ' || (r.t - a.t) // 1000
        || ' s before its request' from {_NAMED} and a.t < r.t order by r.t - a.t desc, a.u, a.p""",
    "named.*.shown": f"""select {_OF_ACTION} || ', which its request did not show'
        from {_NAMED} and r.req is not null
        and not exists (select 1 from i where i.req = r.req and i.day = r.day and i.p = a.p)
        order by a.t, a.u, a.p""",
    "users.without_row": """select 'user ' || u from s
        where day = $day and as_of is null order by u""",
    "users.row_over_28_days": """select 'user ' || u || ', whose newest row is ' ||
        (day - as_of // 86400000) || ' days old' from s
        where day = $day and day - as_of / 86400000.0 > 28 order by as_of, u""",
    "users.zero_embedding": """select 'user ' || u from s
        where day = $day and is_zero order by u""",
    "users.embedding_repeated": """select 'users ' || min(u) || ' and ' || max(u) from s
        where day = $day and vector is not null group by vector having count(*) > 1
        order by count(*) desc, min(u)""",
}


def can_show(name: str) -> bool:
    """Return whether rows can show what is unusual about a number."""
    return _pattern(name)[0] in _QUERIES


def find_examples(
    engine: duckdb.DuckDBPyConnection,
    rows: DayRows,
    day: int,
    names: Sequence[str],
    categories: Sequence[str] = (),
) -> Mapping[str, tuple[str, ...]]:
    """Return, for each number that rows can show, a phrase about each of its first rows.

    Args:
        engine: See `open_engine`.
        rows: Of the day, and of the day before.
        day: Days since the epoch.
        names: Of numbers.
        categories: As for `measure_days`.
    """
    load_rows(engine, rows, categories)
    found = {}
    for name in names:
        pattern, kind = _pattern(name)
        if query := _QUERIES.get(pattern):
            values = {"day": day} | ({"kind": kind} if "$kind" in query else {})
            lines = engine.execute(f"{query} limit {NUM_EXAMPLES}", values).fetchall()
            found[name] = tuple(str(line) for (line,) in lines if line)
    return found


def _pattern(name: str) -> tuple[str, str]:
    """Return a number's name without the action type, and the action type."""
    first, _, rest = name.partition(".")
    kind, _, last = rest.rpartition(".")
    return (f"{first}.*.{last}", kind) if kind and first in ("actions", "named") else (name, "")
