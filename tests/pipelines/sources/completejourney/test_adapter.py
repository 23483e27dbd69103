"""The Complete Journey adapter on the whole sample, and its snapshot against plain SQL."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.artifacts import Snapshot
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
    """Ingest the sample, after an ingest to the same place that was killed half-way."""
    folder = tmp_path_factory.mktemp("completejourney")
    command = [sys.executable, "-m", "pipelines.cli", "ingest", "completejourney", "--to"]
    killed = subprocess.Popen([*command, str(folder / "log")])
    time.sleep(3)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (folder / "log").exists()
    ingest(CompleteJourneyAdapter(), str(folder / "log"))
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["log"]
    return folder


@pytest.fixture(scope="module")
def snapshot(sample: Path) -> Snapshot:
    uri = to_uri(sample / "log")
    return write_snapshot(make_run(sample, recipe(), AS_OF, event_log_uri=uri))


@pytest.fixture(scope="module")
def sql(sample: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    for table, path in (("impressions", "*/*"), ("actions", "*/*"), ("pins", "*"), ("users", "*")):
        place = sample / "log" / table / f"{path}.parquet"
        connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{place}')")
    return connection


def one(sql: duckdb.DuckDBPyConnection, query: str) -> tuple:
    row = sql.execute(query).fetchone()
    assert row is not None
    return row


def column_of(snapshot: Snapshot, table: str, name: str) -> np.ndarray:
    """Return a column over all shards, in the shards' order."""
    folder = local_path(snapshot.uri)
    parts = [open_table(folder, f"{shard.name}/{table}.arrow")[name] for shard in snapshot.shards]
    return np.concatenate([np.asarray(part) for part in parts])


def test_requests_and_actions_count_the_same(sql: duckdb.DuckDBPyConnection) -> None:
    requests, users = one(
        sql, "SELECT count(DISTINCT request_id), count(DISTINCT user_id) FROM impressions"
    )
    assert (requests, users) == (87_172, 2_420)
    counts = dict(sql.execute("SELECT action_type, count(*) FROM actions GROUP BY 1").fetchall())
    assert set(counts) == {"repin", "click", "long_click", "save"}  # no hide is invented
    assert counts["repin"] == 327_041
    assert counts["repin"] + counts["click"] == 1_469_307  # every purchase is one of the two
    assert counts["long_click"] / counts["repin"] == pytest.approx(0.26, abs=0.005)
    assert counts["save"] / counts["repin"] == pytest.approx(0.014, abs=0.001)


def test_a_request_shows_all_that_was_bought_and_others_up_to_30(
    sql: duckdb.DuckDBPyConnection,
) -> None:
    missing = one(
        sql,
        "SELECT count(*) FROM actions a ANTI JOIN impressions i USING (request_id, pin_id) "
        "WHERE a.request_id IS NOT NULL",
    )
    assert missing == (0,)
    low, high, full = one(
        sql,
        "SELECT min(n), max(n), avg((n = 30)::INT) FROM "
        "(SELECT count(*) n, count(DISTINCT pin_id) d FROM impressions GROUP BY request_id)",
    )
    assert (low, high) == (30, 52)
    assert full > 0.99
    assert one(sql, "SELECT count(*) - count(DISTINCT (request_id, pin_id)) FROM impressions") == (
        0,
    )


def test_candidates_were_promoted_in_that_store_and_week(sql: duckdb.DuckDBPyConnection) -> None:
    source = data_folder()
    query = f"""
        WITH chosen AS (
            SELECT DISTINCT request_id FROM impressions WHERE request_id::BIGINT % 997 = 0
        ), shown AS (
            SELECT t.store_id, t.week, i.* FROM impressions i JOIN chosen USING (request_id)
            JOIN (SELECT DISTINCT basket_id, store_id, week FROM '{source}/transactions.parquet') t
            ON t.basket_id = i.request_id::BIGINT
        )
        SELECT count(*), count(p.product_id) FROM shown LEFT JOIN
        (SELECT DISTINCT product_id, store_id, week, display_location, mailer_location
         FROM '{source}/promotions.parquet') p
        ON p.product_id = shown.pin_id AND p.store_id = shown.store_id AND p.week = shown.week
    """
    shown, promoted = one(sql, query)
    assert shown > 1000
    assert promoted == shown


def test_the_position_does_not_tell_the_label(sql: duckdb.DuckDBPyConnection) -> None:
    rows = sql.execute(
        "SELECT i.position, count(a.pin_id) / count(*) FROM impressions i LEFT JOIN "
        "(SELECT request_id, pin_id FROM actions WHERE action_type = 'repin') a "
        "USING (request_id, pin_id) WHERE i.position < 30 GROUP BY 1 ORDER BY 1"
    ).fetchall()
    share = np.array([row[1] for row in rows])
    # 87,172 requests: the share at a position has a standard error of about 0.0011.
    assert len(share) == 30
    assert np.abs(share - share.mean()).max() < 0.005


def test_times_are_the_events_own(sql: duckdb.DuckDBPyConnection) -> None:
    assert one(sql, "SELECT count(*) FROM impressions WHERE known_at <> impressed_at") == (0,)
    assert one(sql, "SELECT count(*) FROM actions WHERE known_at <> acted_at") == (0,)
    different = one(
        sql,
        "SELECT count(*) FROM actions a JOIN impressions i USING (request_id, pin_id) "
        "WHERE a.acted_at <> i.impressed_at OR a.user_id <> i.user_id",
    )
    assert different == (0,)


def test_embeddings_are_of_length_one_and_say_what_is_bought_together(
    sql: duckdb.DuckDBPyConnection,
) -> None:
    vectors = np.array(sql.execute("SELECT embedding FROM pins").fetchnumpy()["embedding"].tolist())
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)
    users = sql.execute("SELECT embedding FROM users USING SAMPLE 1000 ROWS (reservoir, 1)")
    rows = np.array(users.fetchnumpy()["embedding"].tolist())
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1.0, abs=1e-4)
    likeness = """
        SELECT avg(list_dot_product(u.embedding::FLOAT[], p.embedding::FLOAT[])) FROM impressions i
        JOIN pins p USING (pin_id) ASOF JOIN users u
        ON u.user_id = i.user_id AND u.as_of <= i.impressed_at
        {kind} JOIN actions a ON a.request_id = i.request_id AND a.pin_id = i.pin_id
        WHERE i.impressed_at BETWEEN 1496275200000 AND 1496966400000
    """
    (bought,), (others,) = (one(sql, likeness.format(kind=kind)) for kind in ("SEMI", "ANTI"))
    assert bought > others + 0.05


def test_the_basis_is_the_same_in_another_process(
    sample: Path, sql: duckdb.DuckDBPyConnection
) -> None:
    """With another hash seed and another number of threads, and with no promotion at all."""
    code = (
        "from pipelines.sources.completejourney import adapter\n"
        "import hashlib, numpy as np\n"
        "source, promotions = adapter.data_folder(), adapter.Promotions(*[np.array([-1])] * 2)\n"
        "purchases = adapter.read_purchases(source, promotions)\n"
        "vectors = adapter.make_pins(source, purchases)['embedding']\n"
        "values = np.asarray(vectors.combine_chunks().values)\n"
        "print(hashlib.sha256(values.tobytes()).hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    vectors = pq.read_table(sample / "log" / "pins")["embedding"].combine_chunks().values
    assert done.stdout.strip() == hashlib.sha256(np.asarray(vectors).tobytes()).hexdigest()


HOLDOUT = "impressed_at >= 1496534400000 AND impressed_at < 1497139200000"  # 4 to 11 June 2017


def test_labels_agree_with_sql(snapshot: Snapshot, sql: duckdb.DuckDBPyConnection) -> None:
    split = np.repeat(
        column_of(snapshot, "requests", "split"), column_of(snapshot, "requests", "num_examples")
    )
    for head in ("repin", "long_click", "save"):
        found = int(column_of(snapshot, "examples", f"label_{head}")[split == 1].sum())
        query = (
            "SELECT count(*) FROM impressions SEMI JOIN (SELECT request_id, pin_id FROM actions "
            f"WHERE action_type = '{head}') a USING (request_id, pin_id) WHERE {HOLDOUT}"
        )
        assert one(sql, query) == (found,)
        assert found > 0


def test_sequences_and_counts_agree_with_sql(
    snapshot: Snapshot, sql: duckdb.DuckDBPyConnection
) -> None:
    """Every holdout request's sequence length, and the features' sums, from joins by time."""
    history = 1495324800000 - 180 * DAY_MS  # training starts on 20 May, 180 days of history
    assert snapshot.training.start_ms - 180 * DAY_MS <= history
    history = snapshot.training.start_ms - 180 * DAY_MS
    lengths = sql.execute(
        f"""
        SELECT r.request_id, count(a.pin_id) FROM
        (SELECT DISTINCT request_id, user_id, impressed_at FROM impressions WHERE {HOLDOUT}) r
        LEFT JOIN actions a ON a.user_id = r.user_id AND a.known_at < r.impressed_at
        AND a.acted_at >= {history} GROUP BY 1
        """
    ).fetchall()
    split = column_of(snapshot, "requests", "split")
    found_lengths = column_of(snapshot, "requests", "timeline_end") - column_of(
        snapshot, "requests", "timeline_start"
    )
    names = column_of(snapshot, "requests", "request_id")
    found = dict(zip(names[split == 1], found_lengths[split == 1], strict=True))
    assert found == dict(lengths)

    engagements, popularity = one(
        sql,
        f"""
        WITH shown AS (FROM impressions WHERE {HOLDOUT}), day AS (
            SELECT *, impressed_at // 86400000 * 86400000::BIGINT AS midnight FROM shown
        )
        SELECT (
            SELECT count(*) FROM shown s JOIN actions a ON a.user_id = s.user_id
            AND a.pin_id = s.pin_id AND a.known_at < s.impressed_at AND a.acted_at >= {history}
        ), (
            SELECT count(*) FROM day d JOIN actions a ON a.pin_id = d.pin_id
            AND a.known_at < d.midnight
            AND a.acted_at >= d.midnight - 28 * 86400000::BIGINT
        )
        """,
    )
    rows = np.repeat(split, column_of(snapshot, "requests", "num_examples")) == 1
    for name, expected in (("past_engagements", engagements), ("pin_popularity", popularity)):
        counts = np.expm1(column_of(snapshot, "examples", f"num_{name}")[rows].astype(np.float64))
        assert counts.round().sum() == expected
        assert expected > 0


def test_simple_rankings_are_worth_what_they_were_measured_at(snapshot: Snapshot) -> None:
    """Mean repins in the top 3 of a holdout request: random, popularity, past purchases."""
    label = column_of(snapshot, "examples", "label_repin")
    popularity = column_of(snapshot, "examples", "num_pin_popularity")
    past = column_of(snapshot, "examples", "num_past_engagements")
    ties = np.random.default_rng(0).random(len(label))
    request = np.repeat(
        np.arange(snapshot.num_requests), column_of(snapshot, "requests", "num_examples")
    )
    is_holdout = column_of(snapshot, "requests", "split") == 1
    first = np.searchsorted(request, np.arange(snapshot.num_requests))
    means = []
    for keys in ((ties,), (ties, -popularity), (ties, -popularity, -past)):
        order = np.lexsort((*keys, request))
        in_top = np.arange(len(label)) - first[request[order]] < 3
        volume = np.bincount(request[order], weights=label[order] * in_top)
        means.append(volume[is_holdout].mean())
    assert means == pytest.approx([0.40, 1.54, 1.74], abs=0.03)


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
    generator = np.random.default_rng(0)
    count = 4000
    time_ms = np.sort(monday + generator.integers(-60 * DAY_MS, 60 * DAY_MS, count))
    purchases = adapter.Purchases(
        user_id=generator.integers(1, 50, count),
        basket_id=np.arange(count),
        pin_id=generator.integers(0, 30, count),
        time_ms=time_ms,
        num_units=np.ones(count, dtype=np.int64),
        has_coupon=np.zeros(count, dtype=bool),
        store_week=np.zeros(count, dtype=np.int64),
        promotion=generator.integers(-1, 1, count),
    )
    before = time_ms < monday
    past = adapter.Purchases(
        *(getattr(purchases, n)[before] for n in purchases.__dataclass_fields__)
    )
    vectors = adapter.embedding_lists(generator.normal(size=(30, adapter.EMBEDDING_DIM)))
    pins = pa.table({"pin_id": np.arange(30), "embedding": vectors})
    all_rows, past_rows = (
        [r for r in adapter.make_users(p, pins).to_pylist() if r["as_of"] <= monday]
        for p in (purchases, past)
    )
    assert all_rows == past_rows
    assert {row["state"] for row in all_rows} == {"new", "core"}


def test_draws_are_hashes_of_ids_alone() -> None:
    """Worked out once with Python's own integers: no generator, no platform, no order of rows."""
    pairs = np.array([31198655051, 7]), np.array([0, 63])
    assert adapter.hash_of(5, *pairs).tolist() == [_hash_of(5, 31198655051, 0), _hash_of(5, 7, 63)]


def _hash_of(seed: int, first: int, second: int) -> int:
    """The same in arbitrary precision."""
    mask, step = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mix(bits: int) -> int:
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & mask
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & mask
        return bits ^ bits >> 31

    return mix((mix((first + seed * step) & mask) + second * step) & mask)
