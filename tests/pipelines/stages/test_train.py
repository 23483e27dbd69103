"""A training as a stage: on what the data gate has accepted, published as trained, on machines.

Whole trainings are in `test_train_anchor`, one of them killed in the middle.
"""

from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, FreshAnchor, ResolvedRun, Snapshot
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    DataGateFailedError,
    RunInProgressError,
)
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.run_layout import StageFailure, failure_uri, manifest_uri
from pipelines.registry import tracking
from pipelines.snapshot.build import write_snapshot
from pipelines.stages import runner, train
from pipelines.stages.train import train_challenger, work_dir_of
from support.bundles import write_small_bundle
from support.commands import EXECUTABLE
from support.damage import flip_a_byte
from support.judgements import make_report
from support.registered import NO_ANCHOR
from support.runs import make_run, save_artifact, save_run
from support.tiny_log import TINY_AS_OF, tiny_config
from training.fitting.spec import NodeAddress, TrainingResult, TrainingSpec
from training.launch import launcher

MEETING = "10.0.0.1:29500"
FIRST, SECOND = (NodeAddress(rank=rank, rendezvous=MEETING) for rank in (0, 1))
TRAIN = "train_challenger"


@pytest.fixture
def run(log: Path) -> ResolvedRun:
    return save_run(make_run(log.parent, tiny_config(), TINY_AS_OF))


def report_on(snapshot_digest: str, is_met: bool = True) -> DataReport:
    return make_report(snapshot_digest, enough_rows={"is_met": is_met})


@pytest.mark.parametrize(
    ("is_about_this", "is_met", "message"),
    [(True, False, "accepted: False"), (False, True, "is about snapshot ffffffffffff")],
)
def test_a_snapshot_without_an_accepting_report_is_not_trained_on(
    run: ResolvedRun, is_about_this: bool, is_met: bool, message: str
) -> None:
    snapshot: Snapshot = write_snapshot(run)
    report = report_on(snapshot.digest if is_about_this else "f" * 64, is_met)
    for node in (None, SECOND):
        with pytest.raises(DataGateFailedError, match=message):
            train_challenger(run, snapshot, report, "file:///nowhere/output", node)


@pytest.mark.services
def test_a_bundle_that_is_not_the_one_that_was_trained_is_not_published(
    run: ResolvedRun, tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"tracking_uri": tracking_uri, "registered_model": "trained", "experiment": "trained"}
    run = run.model_copy(update=places)
    snapshot = write_snapshot(run)
    report, result = report_on(snapshot.digest), write_result(tmp_path)
    monkeypatch.setattr(launcher, "train", lambda spec, node: result)
    output_uri = storage.to_uri(tmp_path / "output")
    made = train_challenger(run, snapshot, report, output_uri)
    assert digest_of_files(made.bundle_files) == made.model.bundle_digest == result.bundle_digest
    client, mine = tracking.connect(tracking_uri), made.model.mlflow_run_id
    shown = {each.path for each in client.list_artifacts(mine, "data_gate")}
    assert "data_gate/report.json" in shown
    [kept] = client.get_run(mine).inputs.dataset_inputs
    assert (kept.dataset.digest, kept.tags[0].value) == (snapshot.digest[:36], "training")

    def train_and_alter(spec: TrainingSpec, node: NodeAddress | None) -> TrainingResult:
        flip_a_byte(Path(result.bundle_dir) / "weights.safetensors")
        return result

    monkeypatch.setattr(launcher, "train", train_and_alter)
    later = storage.join(output_uri, "later")
    again = f"run `{EXECUTABLE} stage train_challenger {run.run_uri}`"
    with pytest.raises(DataContractError, match=f"the digest of its bundle in .*{again}"):
        train_challenger(run, snapshot, report, later)
    assert not storage.local_path(later).exists()


def write_result(folder: Path) -> TrainingResult:
    """Write what a training leaves, and return its result."""
    bundle = write_small_bundle(folder / "bundle", 1)
    (folder / "metrics.jsonl").write_bytes(b"")
    return TrainingResult(
        spec_identity="i" * 64,
        bundle_dir=str(bundle),
        bundle_digest=digest_of_files(digest_files(bundle)),
        num_steps=1,
        num_training_examples=1,
        final_training_loss=0.5,
        resumed_from_step=0,
        metrics_path=str(folder / "metrics.jsonl"),
    )


@pytest.mark.parametrize(
    ("num_nodes", "rank", "rendezvous", "expected"),
    [
        (1, None, "", None),
        (1, 0, MEETING, None),  # a Job of one pod
        *((2, 0, MEETING, FIRST), (2, 1, MEETING, SECOND)),
        *((1, 1, MEETING, "refused"), (2, None, "", "refused"), (2, 2, MEETING, "refused")),
        *((2, -1, MEETING, "refused"), (2, 0, "", "refused"), (2, 1, "h:x", "refused")),
    ],
)
def test_a_machine_is_known_by_its_rank(tmp_path, num_nodes, rank, rendezvous, expected) -> None:
    run = save_run(make_run(tmp_path, num_nodes=num_nodes))
    assert runner.address_of("build_snapshot", run, rank, rendezvous) is None
    if expected != "refused":
        assert runner.address_of(TRAIN, run, rank, rendezvous) == expected
        return
    with pytest.raises(
        ConfigurationError, match=rf"expected a rank in \[0, {num_nodes}\) .*--node-ra"
    ):
        runner.run_stage(TRAIN, run.run_uri, node_rank=rank, rendezvous=rendezvous)


@pytest.fixture
def two(run: ResolvedRun) -> ResolvedRun:
    """A run on two machines, whose snapshot is checked."""
    run = save_run(run.model_copy(update={"num_nodes": 2}))
    snapshot = write_snapshot(run)
    save_artifact(run, "build_snapshot", snapshot)
    save_artifact(run, "check_snapshot", report_on(snapshot.digest))
    return run


def asked_for(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch, stage: str = TRAIN, **more: Any
) -> list[tuple[TrainingSpec, NodeAddress | None]]:
    """Return what the second machine trains."""
    asked: list[tuple[TrainingSpec, NodeAddress | None]] = []
    monkeypatch.setattr(launcher, "train", lambda spec, node: asked.append((spec, node)))
    uri = runner.run_stage(stage, run.run_uri, node_rank=1, rendezvous=MEETING, **more)
    assert uri == manifest_uri(run.run_uri, stage)
    return asked


def test_a_further_machine_trains_what_the_first_does_and_publishes_nothing(
    two: ResolvedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(spec, node)] = asked_for(two, monkeypatch)
    assert (node, spec.mlflow_run_id) == (SECOND, "")
    assert not storage.exists(manifest_uri(two.run_uri, TRAIN))
    snapshot = runner.read_artifact(two.run_uri, "build_snapshot", Snapshot)
    monkeypatch.setattr(train, "WAIT_S", 0.2)
    with storage.exclusive_lock(spec.work_dir, "machine 0, which keeps other attempts out"):
        assert asked_for(two, monkeypatch) == [(spec, node)]
    with storage.exclusive_lock(f"{spec.work_dir}/machine-1", "it, in an earlier attempt"):
        with pytest.raises(RunInProgressError, match=r"machine-1\.lock"):
            asked_for(two, monkeypatch)
    monkeypatch.setattr(launcher, "train", lambda spec, node: spec)
    first = train._train(two, snapshot, "challenger", "its MLflow run", FIRST)
    assert first.identity() == spec.identity()  # type: ignore[attr-defined]
    # Where the recipe was read is no part of the training.
    config = spec.config
    for changes, is_same in (({"source": "s3://bucket/mine.yaml"}, True), ({"recipe": "x"}, False)):
        other = spec.model_copy(update={"config": config.model_copy(update=changes)})
        assert (other.identity() == spec.identity()) == is_same


def test_where_there_is_nothing_to_train_or_the_stage_is_done_a_further_machine_is_done(
    two: ResolvedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_for(two, monkeypatch, "train_anchor") == []  # in a first cycle there is no recipe
    save_artifact(two, "train_anchor", NO_ANCHOR)
    found = runner.read_record(two.run_uri, "train_anchor")
    digest = runner._input_digest(runner.TABLE["train_anchor"], two.run_uri)
    done = found.model_copy(update={"input_digest": digest})
    storage.write_model(manifest_uri(two.run_uri, "train_anchor"), done)
    monkeypatch.setattr(train, "train_anchor", lambda *_: pytest.fail("it is done"))
    assert asked_for(two, monkeypatch, "train_anchor") == []
    assert runner.read_artifact(two.run_uri, "train_anchor", FreshAnchor) == NO_ANCHOR


def test_a_further_machine_that_fails_leaves_why_and_publishes_nothing(
    two: ResolvedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ConfigurationError("no GPU here")

    monkeypatch.setattr(launcher, "train", fail)
    with pytest.raises(ConfigurationError, match="no GPU here"):
        runner.run_stage(TRAIN, two.run_uri, node_rank=1, rendezvous=MEETING)
    left = storage.read_model(failure_uri(two.run_uri, TRAIN), StageFailure)
    assert (left.message, left.error_class) == ("machine 1: no GPU here", "ConfigurationError")
    assert not storage.exists(manifest_uri(two.run_uri, TRAIN))


def test_checkpoints_lie_in_the_run_or_where_all_machines_see_them(tmp_path: Path) -> None:
    local = make_run(tmp_path, work_folder="")
    folder = work_dir_of(local, "anchor")
    assert folder == storage.local_path(local.run_uri) / "train_anchor" / "training"
    in_store = {"run_uri": "s3://bucket/w/runs/x", "work_folder": str(tmp_path / "shared")}
    there = work_dir_of(local.model_copy(update=in_store), "anchor")
    assert there.parent == tmp_path / "shared" and there.name.endswith("-anchor")
    another = in_store | {"run_uri": "s3://bucket/other/runs/x"}
    assert work_dir_of(local.model_copy(update=another), "anchor") != there
