"""The Complete Journey adapter on the whole sample, and its snapshot against plain SQL."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS
from pipelines.recipes import completejourney as recipe
from pipelines.snapshot.build import write_snapshot
from pipelines.sources.completejourney import adapter
from pipelines.sources.completejourney.adapter import CompleteJourneyAdapter, data_folder
from pipelines.sources.publish import ingest
from pipelines.storage import local_path, to_uri
from support.runs import make_run

AS_OF = datetime(2017, 6, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completejourney")
    ingest(CompleteJourneyAdapter(), str(folder / "log"))
    return folder


@pytest.fixture(scope="module")
def sql(sample: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    for table, path in (("impressions", "*/*"), ("actions", "*/*"), ("pins", "*"), ("users", "*")):
        place = sample / "log" / table / f"{path}.parquet"
        connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{place}')")
    for table in ("transactions", "promotions"):
        place = data_folder() / f"{table}.parquet"
        connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{place}')")
    return connection


FACTS: dict[str, tuple[str, tuple]] = {
    "requests and their users": (
        "SELECT count(DISTINCT request_id), count(DISTINCT user_id) FROM impressions",
        (87_172, 2_420),
    ),
    # Every purchase is a repin or a click; no hide is invented.
    "actions of each type": (
        "SELECT sum((action_type = 'repin')::INT), "
        "sum((action_type IN ('repin', 'click'))::INT), count(DISTINCT action_type), "
        "sum((action_type IN ('long_click', 'save'))::INT) FROM actions",
        (327_041, 1_469_307, 4, 89_784),
    ),
    "a request shows all that was bought on promotion": (
        "SELECT count(*) FROM actions a ANTI JOIN impressions i USING (request_id, pin_id) "
        "WHERE a.request_id IS NOT NULL",
        (0,),
    ),
    "and others up to 30, each once": (
        "SELECT min(n), max(n), avg((n = 30)::INT) > 0.99, sum(n - d) FROM (SELECT count(*) n, "
        "count(DISTINCT pin_id) d FROM impressions GROUP BY request_id)",
        (30, 52, True, 0),
    ),
    "which were promoted in that store and week": (
        "SELECT count(*) > 1000, count(*) = count(p.product_id) FROM impressions i JOIN (SELECT "
        "DISTINCT basket_id, store_id, week FROM transactions WHERE basket_id % 997 = 0) t "
        "ON t.basket_id = i.request_id::BIGINT LEFT JOIN (SELECT DISTINCT product_id, store_id, "
        "week FROM promotions) p ON (p.product_id, p.store_id, p.week) = "
        "(i.pin_id, t.store_id, t.week)",
        (True, True),
    ),
    "times are the events' own": (
        "SELECT (SELECT count(*) FROM impressions WHERE known_at <> impressed_at), "
        "(SELECT count(*) FROM actions WHERE known_at <> acted_at), (SELECT count(*) FROM "
        "actions a JOIN impressions i USING (request_id, pin_id) "
        "WHERE a.acted_at <> i.impressed_at OR a.user_id <> i.user_id)",
        (0, 0, 0),
    ),
    # What depends on no processor: ids, positions, letters and texts.
    "the draws stay those that were measured": (
        "SELECT count(*), sum((position + 1) * (pin_id % 1009 + ascii(display_location))), "
        "sum((position + 1) * ascii(mailer_location)) FROM impressions",
        (2_615_432, 22_468_433_192, 2_475_233_963),
    ),
    # Of 87,172 requests, the share at a position has a standard error of about 0.0011.
    "the position does not tell the label": (
        "WITH places AS (SELECT count(a.pin_id) / count(*) AS share FROM impressions i "
        "LEFT JOIN (FROM actions WHERE action_type = 'repin') a USING (request_id, pin_id) "
        "WHERE i.position < 30 GROUP BY i.position) "
        "SELECT count(*), max(abs(share - (SELECT avg(share) FROM places))) < 0.005 "
        "FROM places",
        (30, True),
    ),
}


@pytest.mark.parametrize("fact", FACTS)
def test_the_log_says_of_the_data(sql: duckdb.DuckDBPyConnection, fact: str) -> None:
    query, expected = FACTS[fact]
    assert sql.execute(query).fetchone() == expected


def test_embeddings_are_of_length_one_and_say_what_is_bought_together(
    sql: duckdb.DuckDBPyConnection,
) -> None:
    for table in ("pins", "users USING SAMPLE 1000 ROWS (reservoir, 1)"):
        found = sql.execute(f"SELECT embedding FROM {table}").fetchnumpy()["embedding"]
        assert np.linalg.norm(found.tolist(), axis=1) == pytest.approx(1.0, abs=1e-4)
    likeness = """
        SELECT avg(list_dot_product(u.embedding::FLOAT[], p.embedding::FLOAT[])) FROM impressions i
        JOIN pins p USING (pin_id) ASOF JOIN users u
        ON u.user_id = i.user_id AND u.as_of <= i.impressed_at
        {kind} JOIN actions a ON a.request_id = i.request_id AND a.pin_id = i.pin_id
        WHERE i.impressed_at BETWEEN 1496275200000 AND 1496966400000
    """
    bought, others = (
        sql.execute(likeness.format(kind=kind)).fetchall()[0][0] for kind in ("SEMI", "ANTI")
    )
    assert bought > others + 0.05


def test_labels_sequences_and_counts_of_a_snapshot_agree_with_sql(
    sample: Path, sql: duckdb.DuckDBPyConnection
) -> None:
    """Every holdout request's sequence length, and the features' sums, from joins by time."""
    log_uri = to_uri(sample / "log")
    snapshot = write_snapshot(make_run(sample, recipe(), AS_OF, event_log_uri=log_uri))
    history, day = snapshot.training.start_ms - 180 * DAY_MS, DAY_MS
    sql.execute(
        "CREATE OR REPLACE TEMP VIEW shown AS FROM impressions WHERE impressed_at >= "
        f"{snapshot.holdout.start_ms} AND impressed_at < {snapshot.holdout.end_ms}"
    )

    def column(table: str, name: str) -> np.ndarray:
        """Return a column of all shards."""
        folder = local_path(snapshot.uri)
        parts = [open_table(folder, f"{each.name}/{table}.arrow") for each in snapshot.shards]
        return np.concatenate([np.asarray(part[name]) for part in parts])

    is_held_out = column("requests", "split") == 1
    rows = np.repeat(is_held_out, column("requests", "num_examples"))
    for head in ("repin", "long_click", "save"):
        query = (
            "SELECT count(*) FROM shown SEMI JOIN (SELECT request_id, pin_id FROM actions "
            f"WHERE action_type = '{head}') a USING (request_id, pin_id)"
        )
        found = int(column("examples", f"label_{head}")[rows].sum())
        assert sql.execute(query).fetchone() == (found,) and found > 0
    lengths = sql.execute(
        "SELECT r.request_id, count(a.pin_id) FROM "
        "(SELECT DISTINCT request_id, user_id, impressed_at FROM shown) r "
        "LEFT JOIN actions a ON a.user_id = r.user_id AND a.known_at < r.impressed_at "
        f"AND a.acted_at >= {history} GROUP BY 1"
    ).fetchall()
    names = column("requests", "request_id")[is_held_out]
    found = column("requests", "timeline_end") - column("requests", "timeline_start")
    assert dict(zip(names, found[is_held_out], strict=True)) == dict(lengths)
    midnight = f"s.impressed_at // {day} * {day}::BIGINT"
    for name, condition in {
        "past_engagements": "a.user_id = s.user_id AND a.known_at < s.impressed_at "
        f"AND a.acted_at >= {history}",
        "pin_popularity": f"a.known_at < {midnight} "
        f"AND a.acted_at >= {midnight} - 28 * {day}::BIGINT",
    }.items():
        query = (
            f"SELECT count(*) FROM shown s JOIN actions a ON a.pin_id = s.pin_id AND {condition}"
        )
        counts = np.expm1(column("examples", f"num_{name}")[rows].astype(np.float64))
        assert sql.execute(query).fetchone() == (counts.round().sum(),) and counts.any()


def test_a_product_unseen_before_the_basis_is_folded_in_from_its_content() -> None:
    own = np.zeros((4, adapter.EMBEDDING_DIM))
    own[0, 0] = own[1, 1] = 1.0
    department = np.array([0, 1, 0, 1])
    folded = adapter._fold(own, np.array([50.0, 50.0, 0.0, 0.0]), [department])
    assert folded[2] @ folded[0] > 0.9  # same department
    assert folded[2] @ folded[1] < 0.3
    assert np.linalg.norm(folded, axis=1) == pytest.approx(1.0)


def test_user_rows_know_nothing_of_their_own_day_or_later() -> None:
    """Leaving out everything from a Monday on leaves that Monday's rows as they are."""
    monday = int(datetime(2017, 3, 6, tzinfo=UTC).timestamp()) * 1000
    draw = np.random.default_rng(0)
    purchases = {
        "user_id": draw.integers(1, 50, 4000),
        "pin_id": draw.integers(0, 30, 4000),
        "time_ms": np.sort(monday + draw.integers(-60 * DAY_MS, 60 * DAY_MS, 4000)),
        "promotion": draw.integers(-1, 1, 4000),
    }
    past = {name: values[purchases["time_ms"] < monday] for name, values in purchases.items()}
    vectors = adapter.embedding_lists(draw.normal(size=(30, adapter.EMBEDDING_DIM)))
    pins = pa.table({"pin_id": np.arange(30), "embedding": vectors})
    all_rows, past_rows = (
        [row for row in adapter.make_users(each, pins).to_pylist() if row["as_of"] <= monday]
        for each in (purchases, past)
    )
    assert all_rows == past_rows
    assert {row["state"] for row in all_rows} == {"new", "core"}
