"""Three worlds against their truth: the usual one, one like production, and one whose pins fade."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.contracts.time import DAY_MS
from pipelines.recipes import production
from pipelines.sources.publish import ingest
from pipelines.sources.world import draws
from pipelines.sources.world.parameters import make_parameters
from support.small_world import SIZES, log_views, one
from support.world_adapter import TRUTH, TRUTH_IMPRESSIONS, WorldAdapter

WORLDS = ("usual", "production")


@pytest.fixture(scope="package")
def logs(tmp_path_factory: pytest.TempPathFactory, written) -> dict[str, Path]:
    folders = {"usual": written[0] / "event_log"}
    fading = SIZES | {"num_pins": 600, "pin_lifetime_days": 2.0}
    for name, sizes in (("production", SIZES | {"like": "production"}), ("fading", fading)):
        folders[name] = tmp_path_factory.mktemp(name) / "event_log"
        ingest(WorldAdapter(make_parameters(**sizes)), str(folders[name]))
    return folders


@pytest.fixture(params=WORLDS)
def world(request, logs: dict[str, Path]) -> Iterator[tuple[Path, duckdb.DuckDBPyConnection]]:
    with log_views(logs[request.param]) as connection:
        yield logs[request.param], connection


def of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("world", names, indirect=True)


def test_the_tables_are_those_of_an_event_log_and_its_truth(world) -> None:
    log, sql = world
    for table, schema in (*EVENT_LOG_TABLES.items(), (TRUTH, TRUTH_IMPRESSIONS)):
        files = sorted((log / table).rglob("*.parquet"))
        assert files and all(pq.read_schema(path).equals(schema) for path in files), table
    [total] = one(sql, "SELECT count(*) FROM truth")
    joined = "impressions i JOIN truth t USING (request_id, pin_id, user_id, impressed_at)"
    assert (
        one(sql, f"SELECT count(*), 12 * count(DISTINCT request_id) FROM {joined}") == (total,) * 2
    )
    repins = "(FROM actions WHERE action_type = 'repin')"
    assert one(sql, f"SELECT count(*) FROM {repins}") == one(
        sql, f"SELECT count(*) FROM truth t SEMI JOIN {repins} USING (request_id, pin_id) "
        "WHERE is_repin",
    )  # fmt: skip
    # an action follows its impression; nothing is known before it happened
    [wrong, late] = one(
        sql,
        "SELECT sum((acted_at <= impressed_at OR a.known_at < acted_at OR i.known_at < "
        "impressed_at)::INT), avg((a.known_at - acted_at > 120000)::INT) FROM actions a "
        "JOIN impressions i USING (request_id, pin_id)",
    )
    assert wrong == 0 and 0.02 < late < 0.06


@of(*WORLDS, "fading")
def test_repins_come_as_often_as_the_truth_and_the_filter_say(world) -> None:
    """In every tenth, by the filter."""
    rows = (
        world[1]
        .execute(
            "SELECT sum(is_repin::INT), sum(expected_repins), sum(filtered * expected_repins / "
            "oracle), sum(expected_repins * (1 - expected_repins)) FROM (SELECT *, ntile(10) OVER "
            "(ORDER BY filtered) AS n FROM truth) GROUP BY n"
        )
        .fetchall()
    )
    assert len(rows) == 10
    for happened, expected, filtered, variance in rows:
        assert abs(happened - expected) < 4.5 * variance**0.5
        # outcomes of a request share the hidden state, so the spread is wider than independent
        assert abs(happened - filtered) < 9 * variance**0.5


_DAY = "impressed_at // 86400000"
_POPULARITY = f"""(SELECT count(*) FROM actions a
  WHERE a.pin_id = t.pin_id AND a.action_type <> 'hide'
  AND a.acted_at // 86400000 BETWEEN t.{_DAY} - 28 AND t.{_DAY} - 1)"""


def top_3(sql: duckdb.DuckDBPyConnection, score: str, worth: str = "expected_repins") -> float:
    """Return a worth among a ranking's top 3, mean over requests.

    Ties are broken by the pin's number, which says nothing.
    """
    [mean] = one(
        sql,
        f"""SELECT sum(worth) / count(DISTINCT request_id) FROM (
            SELECT request_id, {worth}::DOUBLE AS worth FROM
              (SELECT *, {score} AS score FROM truth t JOIN pins USING (pin_id))
            QUALIFY row_number() OVER
              (PARTITION BY request_id ORDER BY score DESC, hash(pin_id, request_id)) <= 3)""",
    )
    return mean


@of("usual")
def test_who_knows_more_ranks_better_and_what_happens_is_what_is_expected(world) -> None:
    sql = world[1]
    [num_requests] = one(sql, "SELECT count(DISTINCT request_id) FROM truth")
    scores = ("oracle", "filtered", "no_sequence", _POPULARITY, "0")
    expected = [top_3(sql, score) for score in scores]
    realised = [top_3(sql, score, "is_repin") for score in scores]
    for oracle, filtered, no_sequence, popularity, chance in (expected, realised):
        assert oracle > filtered + 0.05 > no_sequence + 0.15
        assert no_sequence > popularity > chance
    # at most 3 a request, of variance below 0.75: four standard errors
    np.testing.assert_allclose(expected, realised, atol=4 * (0.75 / num_requests) ** 0.5)


@of("fading")
def test_pins_that_fade_are_shown_while_they_are_new_and_the_newest_rank_best(world) -> None:
    sql, shown_ms = world[1], 8 * DAY_MS  # four half-lives
    alive = f"created_at BETWEEN i.impressed_at - {shown_ms} AND i.impressed_at"
    oldest, num_dead, num_wrong = one(
        sql,
        f"SELECT max(impressed_at - created_at), sum((NOT {alive})::INT), sum((abs(propensity - "
        f"12 / (SELECT count(*) FROM pins WHERE {alive})) > 1e-6)::INT) "
        f"FROM impressions i JOIN pins p USING (pin_id)",
    )
    assert oldest > 0.99 * shown_ms and num_dead == num_wrong == 0
    [by_chance] = one(sql, "SELECT 3 * avg(expected_repins) FROM truth")
    newest = top_3(sql, "created_at")
    assert newest > 1.4 * by_chance > 2 * top_3(sql, "-created_at")
    assert top_3(sql, "filtered") > newest > top_3(sql, _POPULARITY)


@of("usual")
def test_exploration_is_uniform_over_the_pins_and_says_so(world) -> None:
    """The propensity is 12 / the pins; every pin is shown equally often."""
    shares = one(
        world[1],
        "SELECT avg(is_exploration::INT), sum((is_exploration = (propensity IS NULL))::INT), "
        "min(propensity), max(propensity) FROM impressions",
    )
    assert shares == pytest.approx((0.05, 0, 0.04, 0.04), abs=0.01)
    assert shares[1:] == pytest.approx((0, 0.04, 0.04), abs=1e-6)
    counts = world[1].execute(
        "SELECT count(*) FROM impressions WHERE is_exploration GROUP BY pin_id"
    )
    shown = np.array([count for (count,) in counts.fetchall()])
    assert len(shown) == 300
    # chi-square: its mean is the degrees of freedom, its variance twice that
    degrees = len(shown) - 1
    chi_square = ((shown - shown.mean()) ** 2 / shown.mean()).sum()
    assert chi_square < degrees + 5 * (2 * degrees) ** 0.5


@of("production")
def test_a_world_like_production_has_the_recipe_s_actions_and_embeddings(world) -> None:
    recipe, sql = production(), world[1]
    versions = sql.execute("SELECT DISTINCT embedding_version FROM pins").fetchall()
    assert versions == [(recipe.snapshot.embedding_version,)]
    rows = sql.execute(
        "SELECT told, count(*), max(last) FROM (SELECT string_agg(action_type, ' ' ORDER BY "
        "acted_at) AS told, max(acted_at - impressed_at) AS last FROM actions JOIN impressions "
        "USING (request_id, pin_id) GROUP BY request_id, pin_id) GROUP BY 1"
    ).fetchall()
    counts = {told: count for told, count, _ in rows}
    assert set(counts) == {" ".join(types) for types in draws.OUTCOMES["production"]}
    assert {each for told in counts for each in told.split()} == {*recipe.features.action_types}
    assert max(last for _, _, last in rows) < draws.MAX_ACTING_MS
    repins, clicks = counts["closeup repin"], counts["click long_click"]
    assert repins / (counts["repin"] + repins) == pytest.approx(0.5, abs=0.03)
    # s(-0.8) to s(0.4), by whether the topic is intended
    assert 0.31 < clicks / (counts["click"] + clicks) < 0.60
