"""The world as an event log: the same bytes from the same seed, and a cycle run on it."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.artifacts import DataReport
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import world as recipe
from pipelines.sources.publish import ingest
from pipelines.sources.world.parameters import make_parameters
from pipelines.stages import runner
from support.runs import make_run, save_run
from support.small_world import END, SMALL
from support.world_adapter import WorldAdapter


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
            place = len(list(path.parent.glob("*.parquet"))) - 1
            found.update(f"{path.parent.relative_to(log)}/part-{place:05d}.parquet".encode())
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
    ingest(WorldAdapter(other), str(tmp_path / "other"))
    assert digest(tmp_path / "other" / "pins") != digest(tmp_path / "again" / "pins")


@pytest.mark.slow
def test_a_cycle_can_be_run_on_it(written) -> None:
    run = save_run(make_run(written[0], config=recipe(), as_of=END))
    runner.run_stage("build_snapshot", run.run_uri)
    runner.run_stage("check_snapshot", run.run_uri)
    assert runner.read_artifact(run.run_uri, "check_snapshot", DataReport).is_accepted


def test_a_world_without_requests_is_refused(tmp_path: Path) -> None:
    nobody = make_parameters(num_users=1, num_pins=60, num_days=1, start="2024-01-01", seed=1)
    with pytest.raises(ConfigurationError, match="1 users over 1 days gave .* raise num_users"):
        ingest(WorldAdapter(nobody), str(tmp_path / "log"))
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 0}, "num_users is 0; .*equal to 1"),
        ({"num_pins": 59}, "num_pins is 59; .*equal to 60"),
        ({"num_days": 0}, "num_days is 0; .*equal to 1"),
        ({"seed": -1}, "seed is -1; .*equal to 0"),
        ({"start": "yesterday"}, "start is 'yesterday'; .*valid date"),
        ({"start": "1999-12-31"}, "start is 1999-12-31 with num_days 60"),
        ({"start": "2099-12-31"}, "expected days from 2000-01-01 to before 2100-01-01"),
        ({"pin_lifetime_days": float("nan")}, "pin_lifetime_days is nan"),
        ({"pin_lifetime_days": 1.0}, "pin_lifetime_days 1.0 .* leaves 3 pins .* raise num_p"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message: str) -> None:
    given = {"num_users": 10, "num_pins": 60, "num_days": 60, "start": "2024-01-01", "seed": 1}
    with pytest.raises(ConfigurationError, match=message):
        make_parameters(**(given | arguments))
