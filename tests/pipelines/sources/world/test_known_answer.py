"""The world's known answer: who knows more of its truth ranks better."""

import duckdb
import pytest

from support.small_world import one

RANKINGS = ("oracle", "filtered", "no_sequence", "popularity", "random")
_DAY = "impressed_at // 86400000"
_POPULARITY = f"""(SELECT count(*) FROM actions a
  WHERE a.pin_id = t.pin_id AND a.action_type <> 'hide'
  AND a.acted_at // 86400000 BETWEEN t.{_DAY} - 28 AND t.{_DAY} - 1)"""
_SCORES = dict(zip(RANKINGS, (*RANKINGS[:3], _POPULARITY, "0"), strict=True))


def top_3(sql: duckdb.DuckDBPyConnection, ranking: str, worth: str) -> tuple[float, int]:
    """Return a worth among a ranking's top 3, mean over requests, and how many requests there are.

    Ties are broken by the pin's number, which says nothing.
    """
    return one(
        sql,
        f"""SELECT sum(worth) / count(DISTINCT request_id), count(DISTINCT request_id) FROM (
            SELECT request_id, {worth}::DOUBLE AS worth FROM
              (SELECT *, {_SCORES[ranking]} AS score FROM truth t)
            QUALIFY row_number() OVER
              (PARTITION BY request_id ORDER BY score DESC, hash(pin_id, request_id)) <= 3)""",
    )


@pytest.mark.parametrize("worth", ["expected_repins", "is_repin"])
def test_who_knows_more_ranks_better(sql: duckdb.DuckDBPyConnection, written, worth: str) -> None:
    found = {name: top_3(sql, name, worth) for name in RANKINGS}
    assert {num for _, num in found.values()} == {written[1].num_rows["impressions"] // 12}
    mean = {name: value for name, (value, _) in found.items()}
    assert mean["oracle"] > mean["filtered"] + 0.05 > mean["no_sequence"] + 0.15
    assert mean["no_sequence"] > mean["popularity"] > mean["random"]


def test_what_happens_is_what_is_expected(sql: duckdb.DuckDBPyConnection) -> None:
    for name in RANKINGS:
        expected, num_requests = top_3(sql, name, "expected_repins")
        realised, _ = top_3(sql, name, "is_repin")
        # at most 3 a request, of variance below 0.75: four standard errors
        assert abs(expected - realised) < 4 * (0.75 / num_requests) ** 0.5, name
