"""The world with a known answer: what it writes, and that its answer is the right one."""

import hashlib
import itertools
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.artifacts import DataReport
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import ACTIONS, EMBEDDING_DIM, IMPRESSIONS, PINS, USERS
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.recipes import world as recipe
from pipelines.sources.world import actions as world_actions
from pipelines.sources.world import adapter as world
from pipelines.sources.world import filter as world_filter
from pipelines.sources.world import people as world_people
from pipelines.sources.world import requests as world_requests
from pipelines.sources.world.adapter import World, ingest
from pipelines.sources.world.parameters import WorldParameters, make_parameters
from pipelines.sources.world.tables import TRUTH_IMPRESSIONS
from pipelines.sources.world.truth import known_answer, read_truth
from pipelines.stages import runner
from pipelines.storage import local_path, to_uri
from support.runs import make_run, save_run

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 10, tzinfo=UTC)
SMALL = make_parameters(num_users=250, num_pins=300, num_days=40, start="2024-01-01", seed=7)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    """Return the log's parent folder and what the ingest said of it."""
    folder = tmp_path_factory.mktemp("world")
    return folder, ingest(str(folder / "event_log"), SMALL)


@pytest.fixture(scope="module")
def sql(written: tuple[Path, World]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    log = written[0] / "event_log"
    tables = {
        "impressions": "impressions/*/*",
        "actions": "actions/*/*",
        "pins": "pins/*",
        "users": "users/*",
        "truth": "truth/impressions/*/*",
        "hidden_users": "truth/users/*",
    }
    for table, path in tables.items():
        place = log / f"{path}.parquet"
        connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{place}')")
    return connection


def one(sql: duckdb.DuckDBPyConnection, query: str) -> tuple:
    row = sql.execute(query).fetchone()
    assert row is not None
    return row


def digest(folder: Path) -> str:
    """Return a digest of all files' names and bytes."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()


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


def test_the_same_seed_gives_the_same_bytes(written, tmp_path: Path) -> None:
    ingest(str(tmp_path / "again"), SMALL)
    assert digest(tmp_path / "again") == digest(written[0] / "event_log")
    other = SMALL.model_copy(update={"seed": 8, "num_users": 40})
    small = SMALL.model_copy(update={"num_users": 40})
    for name, parameters in (("a", small), ("b", other)):
        ingest(str(tmp_path / name), parameters)
    assert digest(tmp_path / "a" / "pins") != digest(tmp_path / "b" / "pins")


def test_an_ingest_that_is_done_is_not_done_again(written, monkeypatch) -> None:
    folder, counts = written
    monkeypatch.setattr(
        "pipelines.sources.world.adapter._write", lambda *_: pytest.fail("written again")
    )
    assert ingest(str(folder / "event_log"), SMALL) == counts


def test_exploration_is_uniform_and_says_so(sql) -> None:
    share, wrong, least, most = one(
        sql,
        "SELECT avg(is_exploration::INT), sum((is_exploration = (propensity IS NULL))::INT), "
        "min(propensity), max(propensity) FROM impressions",
    )
    assert 0.04 < share < 0.06
    assert wrong == 0
    assert least == most == pytest.approx(12 / 300)
    shown = np.zeros(300)
    for pin_id, count in sql.execute(
        "SELECT pin_id, count(*) FROM impressions WHERE is_exploration GROUP BY 1"
    ).fetchall():
        shown[pin_id] = count
    # chi-square with 299 degrees of freedom: mean 299, deviation 24.5 (less: without repeats)
    chi_square = ((shown - shown.mean()) ** 2 / shown.mean()).sum()
    assert chi_square < 299 + 5 * 24.5


def test_the_chances_are_those_of_the_outcomes(sql) -> None:
    """Expected repins and expected filtered repins both meet the count, in every tenth."""
    rows = sql.execute(
        "SELECT sum(is_repin::INT), sum(expected_repins), sum(filtered * seen), "
        "sum(expected_repins * (1 - expected_repins)), sum(filtered * seen * (1 - filtered * seen))"
        " FROM (SELECT *, expected_repins / oracle AS seen, ntile(10) OVER (ORDER BY filtered) AS n"
        " FROM truth) GROUP BY n"
    ).fetchall()
    assert len(rows) == 10
    for happened, expected, filtered, variance, filtered_variance in rows:
        assert abs(happened - expected) < 4.5 * variance**0.5
        # outcomes of a request share the hidden state, so the spread is wider than independent
        assert abs(happened - filtered) < 9 * filtered_variance**0.5


def test_the_filter_equals_the_sum_over_all_hidden_paths() -> None:
    world = WorldParameters(num_users=1, num_pins=60, late_share=0.0, min_tastes=2, max_tastes=2)
    rng = np.random.default_rng(5)
    catalogue = world_people.draw_catalogue(rng, world)
    users = world_people.draw_users(rng, world, 0, 1)
    requests = world_requests.draw_requests(rng, world, catalogue, users)
    shown = world_actions.describe(world, catalogue, users, requests)
    truth = world_actions.chances(world, shown, *world_filter.hidden_flags(shown, requests))
    outcome_RC = world_actions.draw_outcomes(rng, shown, truth)
    found_RC = world_filter.predict(world, users, requests, shown, outcome_RC).filtered_RC

    states = list(itertools.product(range(world.num_topics), repeat=2))
    prior = np.array([users.taste_UK[0, i] * users.dislike_prior_UK[0, d] for i, d in states])
    repin_RXC, likelihood_RX = [], []
    for intent, dislike in states:
        flags = shown.topic_RC == intent, shown.topic_RC == dislike
        chance_ARC = world_actions.chances(world, shown, *flags)
        repin_RXC.append(chance_ARC[0])
        logs = world_actions.log_likelihood(shown, chance_ARC, outcome_RC)
        likelihood_RX.append(np.exp(logs.sum(axis=1)))
    likelihood_RX, repin_RXC = np.stack(likelihood_RX, axis=1), np.stack(repin_RXC, axis=1)

    posterior = prior
    for number in range(4):  # the first is predicted from the taste alone
        if number:
            move = np.ones((len(states), len(states)))
            for part, stay, of_state in (
                (users.taste_UK[0], requests.intent_stay_R[number], 0),
                (users.dislike_prior_UK[0], requests.dislike_stay_R[number], 1),
            ):
                for a, b in itertools.product(range(len(states)), repeat=2):
                    old, new = states[a][of_state], states[b][of_state]
                    move[a, b] *= stay * (old == new) + (1 - stay) * part[new]
            posterior = posterior @ move
        expected_C = posterior @ repin_RXC[number]
        np.testing.assert_allclose(found_RC[number], expected_C, rtol=1e-10)
        posterior = posterior * likelihood_RX[number]
        posterior /= posterior.sum()
    assert outcome_RC[:3].any()  # else there would be nothing to infer from
    assert np.abs(found_RC[3] - prior @ repin_RXC[3]).max() > 0.01


def test_the_intent_stays_within_sessions_and_drifts_between_them() -> None:
    world = WorldParameters(num_users=300)
    rng = np.random.default_rng(5)
    catalogue = world_people.draw_catalogue(rng, world)
    users = world_people.draw_users(rng, world, 0, 300)
    requests = world_requests.draw_requests(rng, world, catalogue, users)
    is_same_user = np.diff(requests.user_R) == 0
    gap_ms = np.diff(requests.impressed_at_R)
    is_same = np.diff(requests.intent_R) == 0
    within = is_same[is_same_user & (gap_ms <= world.max_pause_ms)].mean()
    day_later = is_same[is_same_user & (gap_ms > 12 * HOUR_MS) & (gap_ms < DAY_MS)].mean()
    weeks_later = is_same[is_same_user & (gap_ms > 14 * DAY_MS)].mean()
    assert within > 0.95  # stays with chance 0.95, or is drawn again and may be the same
    assert within > day_later + 0.1 > weeks_later + 0.2
    assert (users.taste_UK[requests.user_R, requests.intent_R] > 0).all()
    assert (users.taste_UK[requests.user_R, requests.disliked_R] == 0).all()


def test_who_knows_more_ranks_better(written) -> None:
    answer = known_answer(to_uri(written[0] / "event_log"), START, END)
    assert answer.num_requests == written[1].num_requests
    for mean in (answer.expected, answer.realised):
        assert mean.oracle > mean.filtered + 0.05 > mean.no_sequence + 0.15
        assert mean.no_sequence > mean.popularity > mean.random
    # at most 3 a request, of variance below 0.75: four standard errors
    tolerance = 4 * (0.75 / answer.num_requests) ** 0.5
    for name in type(answer.expected).model_fields:
        assert abs(getattr(answer.expected, name) - getattr(answer.realised, name)) < tolerance


def test_a_window_counts_its_own_requests(written) -> None:
    uri = to_uri(written[0] / "event_log")
    middle = START + timedelta(days=17, hours=5)
    parts = [known_answer(uri, START, middle), known_answer(uri, middle, END)]
    whole = known_answer(uri, START, END)
    assert sum(part.num_requests for part in parts) == whole.num_requests
    total = sum(part.expected.filtered * part.num_requests for part in parts)
    assert total == pytest.approx(whole.expected.filtered * whole.num_requests)
    assert len(read_truth(uri, START, middle)) == 12 * parts[0].num_requests


def test_a_cycle_can_be_run_on_it(written) -> None:
    folder = written[0]
    run = save_run(make_run(folder, config=recipe(), as_of=END))
    runner.run_stage("build_snapshot", run.run_uri)
    runner.run_stage("check_snapshot", run.run_uri)
    assert runner.read_artifact(run.run_uri, "check_snapshot", DataReport).is_accepted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 0}, "--num-users is 0; expected 1 to"),
        ({"num_pins": 59}, "--num-pins is 59; expected 60 to"),
        ({"num_days": 0}, "--num-days is 0; expected 1 to"),
        ({"seed": -1}, "--seed is -1; expected 0 or more"),
        ({"start": "yesterday"}, "--start is 'yesterday'; expected a day such as"),
        ({"start": "1999-12-31"}, "--start is 1999-12-31 with --num-days 60"),
        ({"start": "2099-12-31"}, "expected days from 2000-01-01 to before 2100-01-01"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message: str) -> None:
    given = {"num_users": 10, "num_pins": 60, "num_days": 60, "start": "2024-01-01", "seed": 1}
    with pytest.raises(ConfigurationError, match=message):
        make_parameters(**(given | arguments))


def test_an_upload_that_was_cut_off_leaves_no_part_behind(tmp_path: Path, monkeypatch) -> None:
    def upload(folder: Path, uri: str) -> None:
        shutil.copytree(folder, local_path(uri), dirs_exist_ok=True)

    monkeypatch.setattr(world, "is_local", lambda uri: False)
    monkeypatch.setattr(world, "publish_folder", upload)
    stale = tmp_path / "log" / "impressions" / "day=2024-01-01" / "part-00009.parquet"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of a larger world")
    (tmp_path / "log" / "ingesting.json").write_text("{}")
    small = SMALL.model_copy(update={"num_users": 40})
    world.ingest(to_uri(tmp_path / "log"), small)
    assert not stale.exists()
    assert (tmp_path / "log" / world.MARKER).exists()
    assert not (tmp_path / "log" / "ingesting.json").exists()


def test_a_folder_with_something_else_is_left_alone(written, tmp_path: Path) -> None:
    folder, _ = written
    other = SMALL.model_copy(update={"seed": 8})
    with pytest.raises(ConfigurationError, match=r"other parameters \(seed is 7 there and 8 here"):
        ingest(str(folder / "event_log"), other)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="thesis.txt.* and would be overwritten"):
        ingest(str(tmp_path), SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_world_without_requests_is_refused(tmp_path: Path) -> None:
    nobody = make_parameters(num_users=1, num_pins=60, num_days=1, start="2024-01-01", seed=1)
    with pytest.raises(ConfigurationError, match="1 users over 1 days gave .* raise --num-users"):
        ingest(str(tmp_path / "log"), nobody)
    assert not (tmp_path / "log").exists()


def test_only_a_world_has_a_known_answer(written, tmp_path: Path) -> None:
    uri = to_uri(written[0] / "event_log")
    with pytest.raises(ConfigurationError, match="no other has a known answer"):
        known_answer(to_uri(tmp_path), START, END)
    with pytest.raises(ConfigurationError, match="no requests in .*; it covers 2024-01-01 to"):
        known_answer(uri, END, END + timedelta(days=1))
    with pytest.raises(ConfigurationError, match="k is 13; expected 1 to 12"):
        known_answer(uri, START, END, k=13)
    with pytest.raises(ConfigurationError, match="no other has a known answer"):
        read_truth(to_uri(tmp_path), START, END)


def test_embeddings_are_unit_vectors_that_tell_topics_apart(written) -> None:
    pins = pq.read_table(written[0] / "event_log" / "pins")
    vectors = np.array(pins["embedding"].to_pylist())
    assert vectors.shape == (300, EMBEDDING_DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    topic = np.asarray(pq.read_table(written[0] / "event_log" / "truth" / "pins")["topic"])
    cosines = vectors @ vectors.T
    is_same = topic[:, None] == topic[None, :]
    assert cosines[is_same].mean() > 0.5
    assert abs(cosines[~is_same].mean()) < 0.2
