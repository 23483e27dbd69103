"""The world as an event log: the same bytes from the same seed, and a cycle run on it."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.artifacts import DataReport
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, PINS, USERS
from pipelines.recipes import world as recipe
from pipelines.sources.publish import ingest
from pipelines.sources.world.adapter import TRUTH_IMPRESSIONS, WorldAdapter
from pipelines.sources.world.parameters import make_parameters
from pipelines.stages import runner
from support.runs import make_run, save_run
from support.small_world import END, SMALL, one


def digest(folder: Path) -> str:
    """Return a digest of all files' names and bytes."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()


def digest_of_draws(log: Path) -> str:
    """Return a digest of all numbers and texts but fractions, which depend on the processor."""
    found = hashlib.sha256()
    for table in ("impressions", "actions", "pins", "users", "truth/impressions"):
        for path in sorted((log / table).rglob("*.parquet")):
            rows = pq.ParquetFile(path).read()
            found.update(str(path.relative_to(log)).encode())
            for field in rows.schema:
                if not (pa.types.is_floating(field.type) or pa.types.is_nested(field.type)):
                    values = rows[field.name].to_pylist()
                    found.update(f"{field.name}{field.type}{values}".encode())
    return found.hexdigest()


def test_the_usual_world_stays_the_one_that_was_measured(tmp_path: Path) -> None:
    """What only some worlds have changes no draw of the others: figures of docs are about these."""
    sizes = {"num_users": 40, "num_pins": 60, "num_days": 10, "start": "2024-01-01", "seed": 7}
    ingest(WorldAdapter(make_parameters(**sizes)), str(tmp_path / "log"))
    assert digest_of_draws(tmp_path / "log") == (
        "4dc314c3e9b315d0ca21494b668f2e5e5e136a8d3d1835878bc553481d2c450f"
    )


def test_the_same_seed_gives_the_same_bytes(written, tmp_path: Path) -> None:
    ingest(WorldAdapter(SMALL), str(tmp_path / "again"))
    assert digest(tmp_path / "again") == digest(written[0] / "event_log")
    other = SMALL.model_copy(update={"seed": 8, "num_users": 40})
    small = SMALL.model_copy(update={"num_users": 40})
    for name, parameters in (("a", small), ("b", other)):
        ingest(WorldAdapter(parameters), str(tmp_path / name))
    assert digest(tmp_path / "a" / "pins") != digest(tmp_path / "b" / "pins")


def test_a_cycle_can_be_run_on_it(written) -> None:
    folder = written[0]
    run = save_run(make_run(folder, config=recipe(), as_of=END))
    runner.run_stage("build_snapshot", run.run_uri)
    runner.run_stage("check_snapshot", run.run_uri)
    assert runner.read_artifact(run.run_uri, "check_snapshot", DataReport).is_accepted


def test_a_world_of_other_parameters_is_left_alone(written) -> None:
    folder, _ = written
    other = SMALL.model_copy(update={"seed": 8})
    with pytest.raises(ConfigurationError, match=r"something else \(seed is 7 there and 8 here"):
        ingest(WorldAdapter(other), str(folder / "event_log"))


def test_a_world_without_requests_is_refused(tmp_path: Path) -> None:
    nobody = make_parameters(num_users=1, num_pins=60, num_days=1, start="2024-01-01", seed=1)
    with pytest.raises(ConfigurationError, match="1 users over 1 days gave .* raise --num-users"):
        ingest(WorldAdapter(nobody), str(tmp_path / "log"))
    assert not (tmp_path / "log").exists()


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
    for table, number in counts.num_rows.items():
        assert one(sql, f"SELECT count(*) FROM {table}") == (number,)
    [num_requests] = one(sql, "SELECT count(DISTINCT request_id) FROM impressions")
    assert counts.num_rows["impressions"] == 12 * num_requests
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
