"""What is written: the tables of an event log, and the truth that belongs to it."""

import pyarrow.parquet as pq

from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, PINS, USERS
from pipelines.sources.world.tables import TRUTH_IMPRESSIONS
from support.small_world import one


def test_the_tables_are_those_of_an_event_log(written, sql) -> None:
    log, counts = written[0] / "event_log", written[1]
    for name, schema in (
        ("impressions", IMPRESSIONS),
        ("actions", ACTIONS),
        ("pins", PINS),
        ("users", USERS),
        ("truth/impressions", TRUTH_IMPRESSIONS),
    ):
        files = sorted((log / name).rglob("*.parquet"))
        assert files
        assert all(pq.read_schema(path).equals(schema) for path in files), name
    assert one(sql, "SELECT count(*), count(DISTINCT request_id) FROM impressions") == (
        counts.num_impressions,
        counts.num_requests,
    )
    assert one(sql, "SELECT count(*) FROM actions") == (counts.num_actions,)
    assert one(sql, "SELECT count(*) FROM users") == (counts.num_user_rows,)
    assert counts.num_impressions == 12 * counts.num_requests
    assert sql.execute("SELECT DISTINCT action_type FROM actions ORDER BY 1").fetchall() == [
        ("click",),
        ("hide",),
        ("repin",),
    ]


def test_the_truth_belongs_to_the_log(sql) -> None:
    joined = "impressions i JOIN truth t USING (request_id, pin_id, user_id, impressed_at)"
    [total] = one(sql, "SELECT count(*) FROM truth")
    assert one(sql, f"SELECT count(*) FROM {joined}") == (total,)
    repins = "actions WHERE action_type = 'repin'"
    assert one(sql, "SELECT count(*) FROM truth WHERE is_repin") == one(
        sql, f"SELECT count(*) FROM {repins}"
    )
    assert one(
        sql,
        "SELECT count(*) FROM truth t ANTI JOIN (SELECT * FROM actions WHERE action_type = 'repin')"
        " USING (request_id, pin_id) WHERE is_repin",
    ) == (0,)
    # an action follows its impression; nothing is known before it happened
    assert one(
        sql,
        "SELECT count(*) FROM actions a JOIN impressions i USING (request_id, pin_id) "
        "WHERE acted_at <= impressed_at OR a.known_at < acted_at OR i.known_at < impressed_at",
    ) == (0,)
    [late] = one(sql, "SELECT avg((known_at - acted_at > 120000)::INT) FROM actions")
    assert 0.02 < late < 0.06
