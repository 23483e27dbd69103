"""Pins that are born, shown for a while and fade: what is then shown, and what ranks well."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.time import DAY_MS
from pipelines.sources.publish import ingest
from pipelines.sources.world.adapter import FADING_PINS, WorldAdapter
from pipelines.sources.world.parameters import make_parameters
from support.small_world import SIZES, log_views, one

FADING = make_parameters(**SIZES | {"num_pins": 600}, pin_lifetime_days=2.0)
SHOWN_MS = 8 * DAY_MS  # four half-lives


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fading") / "event_log"
    ingest(WorldAdapter(FADING), str(folder))
    return folder


@pytest.fixture(scope="module")
def sql(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with log_views(folder) as connection:
        yield connection


def test_only_such_a_world_says_when_its_pins_were_born(folder: Path, written) -> None:
    assert pq.read_schema(next((folder / "pins").iterdir())).equals(FADING_PINS)
    usual = pq.read_schema(next((written[0] / "event_log" / "pins").iterdir()))
    assert "created_at" not in usual.names
    born = np.asarray(pq.read_table(folder / "pins")["created_at"])
    first_ms, end_ms = FADING.start_ms - SHOWN_MS, FADING.end_ms
    assert (np.diff(born) >= 0).all()
    counts, _ = np.histogram(born, bins=np.linspace(first_ms, end_ms, 7))
    np.testing.assert_allclose(counts, 100, atol=1)


def test_what_is_shown_is_born_and_not_too_old(sql: duckdb.DuckDBPyConnection) -> None:
    shown = "SELECT impressed_at - created_at AS age FROM impressions JOIN pins USING (pin_id)"
    youngest, middle, oldest = one(sql, f"SELECT min(age), median(age), max(age) FROM ({shown})")
    assert 0 <= youngest < DAY_MS / 100
    assert SHOWN_MS * 0.99 < oldest <= SHOWN_MS
    assert middle == pytest.approx(SHOWN_MS / 2, rel=0.05)


def test_exploration_is_uniform_over_the_pins_of_its_time(sql: duckdb.DuckDBPyConnection) -> None:
    """The propensity is 12 / the pins alive then; each of eight ages is shown equally often."""
    wrong = one(
        sql,
        "SELECT count(*) FROM (SELECT impressed_at, any_value(propensity) AS chance FROM "
        "impressions WHERE is_exploration GROUP BY request_id, impressed_at) r WHERE abs(chance - "
        f"12 / (SELECT count(*) FROM pins WHERE created_at <= r.impressed_at AND created_at >= "
        f"r.impressed_at - {SHOWN_MS})) > 1e-6",
    )
    assert wrong == (0,)
    counts = sql.execute(
        f"SELECT (impressed_at - created_at) // {DAY_MS} AS days, count(*) FROM impressions "
        "JOIN pins USING (pin_id) WHERE is_exploration GROUP BY 1 HAVING days < 8"
    ).fetchall()
    shown = np.array([count for _, count in counts])
    assert len(shown) == 8
    assert ((shown - shown.mean()) ** 2 / shown.mean()).sum() < 7 + 5 * 14**0.5


def test_the_newest_first_beats_chance_and_four_weeks_of_clicks_do_not(
    sql: duckdb.DuckDBPyConnection,
) -> None:
    [by_chance] = one(sql, "SELECT 3 / 12 * sum(expected_repins) FROM truth")
    weeks = 28 * DAY_MS
    [first_days] = one(sql, "SELECT min(impressed_at) + 2592000000 FROM truth")
    popularity = (
        f"(SELECT pin_id, count(*) AS n FROM actions WHERE action_type != 'hide' AND acted_at < "
        f"{first_days} AND acted_at >= {first_days} - {weeks} GROUP BY pin_id)"
    )

    def top_3(key: str, where: str = "true") -> float:
        ranked = (
            f"SELECT expected_repins, row_number() OVER (PARTITION BY request_id ORDER BY {key} "
            f"DESC, hash(request_id || pin_id)) AS place FROM truth JOIN pins USING (pin_id) "
            f"LEFT JOIN {popularity} USING (pin_id) WHERE {where}"
        )
        [total] = one(sql, f"SELECT sum(expected_repins) FROM ({ranked}) WHERE place <= 3")
        return total

    assert top_3("created_at") > 1.4 * by_chance
    assert top_3("-created_at") < 0.8 * by_chance
    assert top_3("oracle") > top_3("filtered") > top_3("no_sequence") > top_3("created_at")
    day = f"impressed_at >= {first_days} AND impressed_at < {first_days} + {DAY_MS}"
    [of_that_day] = one(sql, f"SELECT 3 / 12 * sum(expected_repins) FROM truth WHERE {day}")
    assert top_3("coalesce(n, 0)", day) < of_that_day < top_3("created_at", day)


def test_repins_come_as_often_as_the_truth_says_at_every_age(
    sql: duckdb.DuckDBPyConnection,
) -> None:
    rows = sql.execute(
        f"SELECT sum(is_repin::INT), sum(expected_repins), sum(expected_repins * (1 - "
        f"expected_repins)), count(*) FROM truth JOIN pins USING (pin_id) "
        f"GROUP BY least((impressed_at - created_at) // {DAY_MS}, 7) ORDER BY min(impressed_at - "
        "created_at)"
    ).fetchall()
    assert len(rows) == 8
    rates = []
    for happened, expected, variance, count in rows:
        assert abs(happened - expected) < 4.5 * variance**0.5
        rates.append(happened / count)
    assert rates[0] > 1.5 * rates[2] > 1.5 * rates[6]
