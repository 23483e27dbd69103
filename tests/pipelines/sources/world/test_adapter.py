"""The world as an event log: the same bytes from the same seed, and a cycle run on it."""

import hashlib
from pathlib import Path

import pytest

from pipelines.contracts.artifacts import DataReport
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import world as recipe
from pipelines.sources.publish import ingest
from pipelines.sources.world.adapter import WorldAdapter
from pipelines.sources.world.parameters import make_parameters
from pipelines.stages import runner
from support.runs import make_run, save_run
from support.small_world import END, SMALL


def digest(folder: Path) -> str:
    """Return a digest of all files' names and bytes."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()


def test_the_same_seed_gives_the_same_bytes(written, tmp_path: Path) -> None:
    ingest(WorldAdapter(SMALL), str(tmp_path / "again"))
    assert digest(tmp_path / "again") == digest(written[0] / "event_log")
    other = SMALL.model_copy(update={"seed": 8, "num_users": 40})
    small = SMALL.model_copy(update={"num_users": 40})
    for name, parameters in (("a", small), ("b", other)):
        ingest(WorldAdapter(parameters), str(tmp_path / name))
    assert digest(tmp_path / "a" / "pins") != digest(tmp_path / "b" / "pins")


def test_an_ingest_that_is_done_is_not_done_again(written, monkeypatch) -> None:
    folder, counts = written
    monkeypatch.setattr(WorldAdapter, "write_tables", lambda *_: pytest.fail("written again"))
    assert ingest(WorldAdapter(SMALL), str(folder / "event_log")) == counts


def test_a_cycle_can_be_run_on_it(written) -> None:
    folder = written[0]
    run = save_run(make_run(folder, config=recipe(), as_of=END))
    runner.run_stage("build_snapshot", run.run_uri)
    runner.run_stage("check_snapshot", run.run_uri)
    assert runner.read_artifact(run.run_uri, "check_snapshot", DataReport).is_accepted


def test_a_folder_with_something_else_is_left_alone(written, tmp_path: Path) -> None:
    folder, _ = written
    other = SMALL.model_copy(update={"seed": 8})
    with pytest.raises(ConfigurationError, match=r"other parameters \(seed is 7 there and 8 here"):
        ingest(WorldAdapter(other), str(folder / "event_log"))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="thesis.txt.* and would be overwritten"):
        ingest(WorldAdapter(SMALL), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_world_without_requests_is_refused(tmp_path: Path) -> None:
    nobody = make_parameters(num_users=1, num_pins=60, num_days=1, start="2024-01-01", seed=1)
    with pytest.raises(ConfigurationError, match="1 users over 1 days gave .* raise --num-users"):
        ingest(WorldAdapter(nobody), str(tmp_path / "log"))
    assert not (tmp_path / "log").exists()
