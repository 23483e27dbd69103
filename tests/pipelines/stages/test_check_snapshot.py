"""`check_snapshot` as a stage: what it leaves when it accepts, and when it refuses."""

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, ResolvedRun, Snapshot, StageFailure
from pipelines.contracts.config import DataGateConfig
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    DataGateFailedError,
)
from pipelines.contracts.run_layout import failure_uri
from pipelines.recipes import smoke
from pipelines.snapshot.accepted import AcceptedSnapshot, accepted_folder
from pipelines.stages import runner
from support.damage import flip_a_byte
from support.runs import make_run, save_run
from support.worlds import write_planted_world


def prepare(tmp_path: Path, gate: DataGateConfig) -> ResolvedRun:
    """Write a planted world and a resolved run whose snapshot is built."""
    write_planted_world(tmp_path / "event_log")
    run = make_run(tmp_path, config=smoke().model_copy(update={"data_gate": gate}))
    save_run(run)
    runner.run_stage("build_snapshot", run.run_uri)
    return run


def test_an_accepted_snapshot_becomes_the_reference(tmp_path: Path) -> None:
    run = prepare(tmp_path, smoke().data_gate)
    runner.run_stage("check_snapshot", run.run_uri)
    report = runner.read_artifact(run.run_uri, "check_snapshot", DataReport)
    assert report.is_accepted
    assert len(report.outcomes) >= 15
    assert "<html" in storage.read_bytes(report.docs_uri).decode()
    folder = accepted_folder(run.workspace_uri, run.config.recipe)
    [name] = storage.list_names(folder)
    marker = storage.read_model(storage.join(folder, name), AcceptedSnapshot)
    assert storage.exists(f"{marker.snapshot_uri}/manifest.json")


def test_a_refused_snapshot_stops_the_run_and_keeps_its_docs(tmp_path: Path) -> None:
    run = prepare(tmp_path, DataGateConfig(min_training_requests=100_000))
    with pytest.raises(DataGateFailedError, match="enough_training_requests .*expected") as caught:
        runner.run_stage("check_snapshot", run.run_uri)
    assert caught.value.exit_code == 65
    docs_uri = str(caught.value).split("Data Docs: ")[1].split("\n")[0]
    assert "<html" in storage.read_bytes(docs_uri).decode()
    failure = storage.read_model(failure_uri(run.run_uri, "check_snapshot"), StageFailure)
    assert (failure.error_class, failure.is_retryable) == ("DataGateFailedError", False)
    assert storage.list_names(storage.join(run.workspace_uri, "accepted_snapshots")) == []
    with pytest.raises(ConfigurationError, match="no manifest of check_snapshot"):
        runner.run_stage("train_challenger", run.run_uri)


def test_a_snapshot_that_was_altered_is_no_stage_s_input(tmp_path: Path) -> None:
    run = prepare(tmp_path, smoke().data_gate)
    snapshot = runner.read_artifact(run.run_uri, "build_snapshot", Snapshot)
    victim = storage.local_path(snapshot.uri) / snapshot.shards[0].name / "examples.arrow"
    flip_a_byte(victim)
    with pytest.raises(DataContractError, match=r"examples\.arrow"):
        runner.run_stage("check_snapshot", run.run_uri)
