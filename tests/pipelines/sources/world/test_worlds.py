"""Three worlds against their truth: the usual one, one like production, and one whose pins fade."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, PINS, USERS
from pipelines.contracts.time import DAY_MS
from pipelines.recipes import production
from pipelines.sources.publish import ingest
from pipelines.sources.world import draws
from pipelines.sources.world.adapter import FADING_PINS, TRUTH, TRUTH_IMPRESSIONS, WorldAdapter
from pipelines.sources.world.parameters import make_parameters
from support.small_world import SIZES, SMALL, log_views, one

SHOWN_MS = 8 * DAY_MS  # four half-lives
WORLDS = {
    "usual": SMALL,
    "production": make_parameters(**SIZES, like="production"),
    "fading": make_parameters(**SIZES | {"num_pins": 600}, pin_lifetime_days=2.0),
}


@pytest.fixture(scope="package")
def logs(tmp_path_factory: pytest.TempPathFactory, written) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) / "event_log" for name in WORLDS}
    for name in ("production", "fading"):
        ingest(WorldAdapter(WORLDS[name]), str(folders[name]))
    return folders | {"usual": written[0] / "event_log"}


@pytest.fixture(params=WORLDS)
def world(request, logs: dict[str, Path]) -> Iterator[tuple[str, Path, duckdb.DuckDBPyConnection]]:
    with log_views(logs[request.param]) as connection:
        yield request.param, logs[request.param], connection


def of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("world", names, indirect=True)


def test_the_tables_are_those_of_an_event_log_and_its_truth(world) -> None:
    name, log, sql = world
    for table, schema in (
        ("impressions", IMPRESSIONS),
        ("actions", ACTIONS),
        ("pins", FADING_PINS if name == "fading" else PINS),
        ("users", USERS),
        (TRUTH, TRUTH_IMPRESSIONS),
    ):
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


def test_repins_come_as_often_as_the_truth_and_the_filter_say(world) -> None:
    """In every tenth, by the filter; and where pins fade, at every age too."""
    name, _, sql = world
    groups = ["ntile(10) OVER (ORDER BY filtered)"]
    if name == "fading":
        groups.append(f"least((impressed_at - created_at) // {DAY_MS}, 7)")
    for group in groups:
        rows = sql.execute(
            "SELECT sum(is_repin::INT), sum(expected_repins), sum(filtered * seen), "
            "sum(expected_repins * (1 - expected_repins)), count(*) FROM (SELECT *, "
            f"expected_repins / oracle AS seen, {group} AS n FROM truth JOIN pins USING (pin_id)) "
            "GROUP BY n ORDER BY n"
        ).fetchall()
        assert len(rows) in (10, 8)
        for happened, expected, filtered, variance, _ in rows:
            assert abs(happened - expected) < 4.5 * variance**0.5
            # outcomes of a request share the hidden state, so the spread is wider than independent
            assert abs(happened - filtered) < 9 * variance**0.5
    if name == "fading":
        rates = [happened / count for happened, *_, count in rows]
        assert rates[0] > 1.5 * rates[2] > 1.5 * rates[6]


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
    sql = world[2]
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
def test_the_newest_first_beats_chance_and_four_weeks_of_clicks_do_not(world) -> None:
    sql = world[2]
    [by_chance] = one(sql, "SELECT 3 * avg(expected_repins) FROM truth")
    newest = top_3(sql, "created_at")
    assert newest > 1.4 * by_chance
    assert top_3(sql, "-created_at") < 0.8 * by_chance
    assert top_3(sql, "oracle") > top_3(sql, "filtered") > top_3(sql, "no_sequence") > newest
    assert top_3(sql, _POPULARITY) < newest


@of("fading")
def test_what_is_shown_is_born_and_not_too_old(world) -> None:
    _, log, sql = world
    born = np.asarray(pq.read_table(log / "pins")["created_at"])
    first_ms, end_ms = WORLDS["fading"].start_ms - SHOWN_MS, WORLDS["fading"].end_ms
    assert (np.diff(born) >= 0).all()
    counts, _ = np.histogram(born, bins=np.linspace(first_ms, end_ms, 7))
    np.testing.assert_allclose(counts, 100, atol=1)
    shown = "SELECT impressed_at - created_at AS age FROM impressions JOIN pins USING (pin_id)"
    youngest, middle, oldest = one(sql, f"SELECT min(age), median(age), max(age) FROM ({shown})")
    assert 0 <= youngest < DAY_MS / 100
    assert SHOWN_MS * 0.99 < oldest <= SHOWN_MS
    assert middle == pytest.approx(SHOWN_MS / 2, rel=0.05)


@of("usual", "fading")
def test_exploration_is_uniform_over_the_pins_of_its_time_and_says_so(world) -> None:
    """The propensity is 12 / the pins alive then; every pin, or age, is shown equally often."""
    name, _, sql = world
    share, wrong = one(
        sql,
        "SELECT avg(is_exploration::INT), sum((is_exploration = (propensity IS NULL))::INT) "
        "FROM impressions",
    )
    assert 0.04 < share < 0.06 and wrong == 0
    alive, by = "true", "pin_id"
    if name == "fading":
        alive = f"created_at BETWEEN r.impressed_at - {SHOWN_MS} AND r.impressed_at"
        by = f"(impressed_at - created_at) // {DAY_MS}"
    explored = "(FROM impressions WHERE is_exploration)"
    assert one(
        sql,
        f"SELECT count(*) FROM (SELECT impressed_at, any_value(propensity) AS chance "
        f"FROM {explored} GROUP BY request_id, impressed_at) r WHERE abs(chance - 12 / "
        f"(SELECT count(*) FROM pins WHERE {alive})) > 1e-6",
    ) == (0,)
    counts = sql.execute(
        f"SELECT {by} AS n, count(*) FROM {explored} JOIN pins USING (pin_id) GROUP BY 1 HAVING "
        f"n < {8 if name == 'fading' else 300}"
    ).fetchall()
    shown = np.array([count for _, count in counts])
    assert len(shown) == (8 if name == "fading" else 300)
    # chi-square: its mean is the degrees of freedom, its variance twice that
    degrees = len(shown) - 1
    chi_square = ((shown - shown.mean()) ** 2 / shown.mean()).sum()
    assert chi_square < degrees + 5 * (2 * degrees) ** 0.5


@of("production")
def test_a_world_like_production_has_the_recipe_s_actions_and_embeddings(world) -> None:
    recipe, sql = production(), world[2]
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
