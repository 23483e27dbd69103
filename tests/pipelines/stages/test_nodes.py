"""Which machine of several a stage runs on, and when a further one has something to do."""

from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.contracts.files import write_json
from pipelines.contracts.run_layout import StageFailure, failure_uri, manifest_uri
from pipelines.snapshot.build import write_snapshot
from pipelines.stages import nodes, runner
from pipelines.stages.nodes import address_of, help_train, work_dir_of
from support.runs import make_run, save_artifact, save_run
from support.tiny_log import TINY_AS_OF, tiny_config, write_tiny_log
from training.fitting.spec import Lineage, NodeAddress, TrainingSpec, WorkFolder
from training.launch import launcher

MEETING = "10.0.0.1:29500"
SECOND = NodeAddress(rank=1, rendezvous=MEETING)
TRAIN = "train_challenger"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_POLL_S", 0.05)
    monkeypatch.setattr(nodes, "_PREPARE_WAIT_S", 5.0)


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    write_tiny_log(tmp_path / "event_log")
    return save_run(make_run(tmp_path, tiny_config(num_shards=1), TINY_AS_OF, num_nodes=2))


def specification(run: ResolvedRun, **overrides: Any) -> TrainingSpec:
    snapshot = write_snapshot(run)
    lineage = {"as_of": run.as_of, "snapshot_digest": snapshot.digest, "seed": 1}
    lineage |= {"code_version": code_version(), "code_digest": code_digest()}
    fields = {
        "snapshot": snapshot,
        "config": run.config,
        "lineage": Lineage(**(lineage | overrides.pop("lineage", {}))),
        "snapshot_dir": "/where/machine/0/has/it",
        "work_dir": str(work_dir_of(run, "challenger")),
        "num_devices": 1,
        "num_nodes": 2,
        "tracking_uri": "",
        "mlflow_run_id": "",
    }
    return TrainingSpec(**(fields | overrides))


def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainingSpec, NodeAddress]]:
    """Return what is trained from here on, in place of training it."""
    asked: list[tuple[TrainingSpec, NodeAddress]] = []
    monkeypatch.setattr(launcher, "train", lambda spec, node: asked.append((spec, node)))
    return asked


@pytest.mark.parametrize(
    ("num_nodes", "rank", "rendezvous", "expected"),
    [
        (1, None, "", None),
        (1, 0, MEETING, None),  # a Job of one pod
        (2, 0, MEETING, NodeAddress(rank=0, rendezvous=MEETING)),
        (2, 1, MEETING, SECOND),
        *((1, 1, MEETING, "refused"), (2, None, "", "refused"), (2, 2, MEETING, "refused")),
        *((2, -1, MEETING, "refused"), (2, 0, "", "refused"), (2, 1, "h:x", "refused")),
    ],
)
def test_a_machine_is_known_by_its_rank(tmp_path, num_nodes, rank, rendezvous, expected) -> None:
    run = save_run(make_run(tmp_path, num_nodes=num_nodes))
    assert address_of("build_snapshot", run, rank, rendezvous) is None
    if expected != "refused":
        assert address_of(TRAIN, run, rank, rendezvous) == expected
        return
    with pytest.raises(ConfigurationError, match=rf"on {num_nodes} mach.* rank {rank} .*--node-ra"):
        runner.run_stage(TRAIN, run.run_uri, node_rank=rank, rendezvous=rendezvous)


def test_a_further_machine_trains_what_the_first_has_prepared(run, monkeypatch) -> None:
    asked = trainings(monkeypatch)
    spec = specification(run)
    write_json(WorkFolder(Path(spec.work_dir)).spec, spec)
    help_train(TRAIN, run, SECOND, lambda: False)
    [(trained, node)] = asked
    assert node == SECOND
    assert trained.identity() == spec.identity()
    assert trained.snapshot_dir == str(storage.local_path(spec.snapshot.uri))  # its own


@pytest.mark.parametrize(
    "stale",
    [
        {"lineage": {"code_digest": "0" * 64}},
        {"lineage": {"as_of": TINY_AS_OF.replace(year=2001)}},
        {"num_nodes": 3},
        {"num_devices": 2},
        {"accelerator": "gpu"},
    ],
)
def test_what_another_attempt_left_is_not_trained(run, monkeypatch, stale) -> None:
    monkeypatch.setattr(nodes, "_PREPARE_WAIT_S", 0.2)
    asked = trainings(monkeypatch)
    spec = specification(run, **stale)
    write_json(WorkFolder(Path(spec.work_dir)).spec, spec)
    with pytest.raises(TransientStorageError, match="machine 1 .* waited .* machine 0 to prepare"):
        help_train(TRAIN, run, SECOND, lambda: False)
    assert asked == []


def test_where_the_first_publishes_without_training_the_others_are_done(run, monkeypatch) -> None:
    asked = trainings(monkeypatch)
    answers = iter([False, False, True])
    help_train("train_anchor", run, SECOND, lambda: next(answers))
    assert asked == []


def test_where_the_first_fails_the_others_do_not_wait_and_say_why(run, monkeypatch) -> None:
    trainings(monkeypatch)
    earlier = ConfigurationError("of yesterday")
    runner.note_failure(failure_uri(run.run_uri, TRAIN), TRAIN, earlier)
    asked = []

    def is_done() -> bool:
        asked.append(1)
        if len(asked) == 3:
            runner.note_failure(failure_uri(run.run_uri, TRAIN), TRAIN, ConfigurationError("full"))
        return False

    with pytest.raises(TransientStorageError, match="another machine failed: Configur.*: full"):
        help_train(TRAIN, run, SECOND, is_done)
    assert len(asked) >= 3


def test_a_further_machine_that_fails_leaves_why_and_publishes_nothing(run, monkeypatch) -> None:
    for stage in ("build_snapshot", "check_snapshot"):
        save_artifact(run, stage, run)

    def fail(*_: Any) -> None:
        raise ConfigurationError("no GPU here")

    monkeypatch.setattr(runner, "help_train", fail)
    with pytest.raises(ConfigurationError, match="no GPU here"):
        runner.run_stage(TRAIN, run.run_uri, node_rank=1, rendezvous=MEETING)
    left = storage.read_model(failure_uri(run.run_uri, TRAIN), StageFailure)
    assert (left.message, left.error_class) == ("machine 1: no GPU here", "ConfigurationError")
    assert not storage.exists(manifest_uri(run.run_uri, TRAIN))


def test_checkpoints_lie_in_the_run_or_where_all_machines_see_them(tmp_path, monkeypatch) -> None:
    local = make_run(tmp_path, work_folder="")
    folder = work_dir_of(local, "anchor")
    assert folder == storage.local_path(local.run_uri) / "train_anchor" / "training"
    in_store = {"run_uri": "s3://bucket/w/runs/x", "work_folder": str(tmp_path / "shared")}
    there = work_dir_of(local.model_copy(update=in_store), "anchor")
    assert there.parent == tmp_path / "shared" and there.name.endswith("-anchor")
    another = in_store | {"run_uri": "s3://bucket/other/runs/x"}
    assert work_dir_of(local.model_copy(update=another), "anchor") != there


def test_where_the_recipe_was_read_is_no_part_of_the_training(run: ResolvedRun) -> None:
    asked = specification(run)
    moved = run.config.model_copy(update={"source": "s3://bucket/mine.yaml"})
    assert specification(run, config=moved).identity() == asked.identity()
    renamed = run.config.model_copy(update={"recipe": "other"})
    assert specification(run, config=renamed).identity() != asked.identity()
