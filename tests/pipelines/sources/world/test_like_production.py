"""A world that writes what the `production` recipe reads: its actions and its embeddings."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pipelines.event_log.record import EventLogRecord
from pipelines.recipes import production
from pipelines.sources.publish import ingest
from pipelines.sources.world import draws
from pipelines.sources.world.adapter import WorldAdapter
from pipelines.sources.world.parameters import make_parameters
from support.small_world import SIZES, log_views, one

LIKE_PRODUCTION = make_parameters(**SIZES, like="production")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EventLogRecord]:
    folder = tmp_path_factory.mktemp("like_production") / "event_log"
    return folder, ingest(WorldAdapter(LIKE_PRODUCTION), str(folder))


@pytest.fixture(scope="module")
def sql(made: tuple[Path, EventLogRecord]) -> Iterator[duckdb.DuckDBPyConnection]:
    with log_views(made[0]) as connection:
        yield connection


def test_it_has_the_recipe_s_actions_and_embeddings(
    made: tuple[Path, EventLogRecord], sql: duckdb.DuckDBPyConnection
) -> None:
    recipe = production()
    found = {row[0] for row in sql.execute("SELECT DISTINCT action_type FROM actions").fetchall()}
    assert found == set(recipe.features.action_types)
    versions = sql.execute("SELECT DISTINCT embedding_version FROM pins").fetchall()
    assert versions == [(recipe.snapshot.embedding_version,)]


def test_actions_of_one_outcome_come_in_their_order(sql: duckdb.DuckDBPyConnection) -> None:
    rows = sql.execute(
        "SELECT told, count(*), max(last) FROM (SELECT string_agg(action_type, ' ' ORDER BY "
        "acted_at) AS told, max(acted_at - impressed_at) AS last FROM actions JOIN impressions "
        "USING (request_id, pin_id) GROUP BY request_id, pin_id) GROUP BY 1"
    ).fetchall()
    expected = {" ".join(types) for types in draws.outcomes(LIKE_PRODUCTION)}
    assert {told for told, _, _ in rows} == expected
    assert max(last for _, _, last in rows) < draws.MAX_ACTING_MS
    counts = {told: count for told, count, _ in rows}
    assert counts["closeup repin"] / (counts["repin"] + counts["closeup repin"]) == pytest.approx(
        0.5, abs=0.03
    )
    # s(-0.8) to s(0.4), by whether the topic is intended
    share = counts["click long_click"] / (counts["click"] + counts["click long_click"])
    assert 0.31 < share < 0.60


def test_repins_come_as_often_as_the_truth_says(sql: duckdb.DuckDBPyConnection) -> None:
    """Every kind of repin counts, and the filter learns from closeups and long clicks rightly."""
    rows = sql.execute(
        "SELECT sum(is_repin::INT), sum(expected_repins), sum(filtered * seen), "
        "sum(expected_repins * (1 - expected_repins)) FROM (SELECT *, expected_repins / oracle AS "
        "seen, ntile(10) OVER (ORDER BY filtered) AS n FROM truth) GROUP BY n"
    ).fetchall()
    assert len(rows) == 10
    for happened, expected, filtered, variance in rows:
        assert abs(happened - expected) < 4.5 * variance**0.5
        assert abs(happened - filtered) < 9 * variance**0.5
    repins = "(SELECT request_id, pin_id FROM actions WHERE action_type = 'repin')"
    assert one(sql, f"SELECT count(*) FROM {repins}") == one(
        sql, "SELECT count(*) FROM truth WHERE is_repin"
    )
