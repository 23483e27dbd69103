"""Training in its own processes: it learns, resumes exactly, agrees over ranks, ends loudly."""

import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.torch import load_file

from pipelines.contracts.errors import ConfigurationError, DataContractError, RunInProgressError
from pipelines.contracts.files import digest_files, digest_of_files, write_json
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from support.damage import flip_a_byte
from support.serving import wait_until
from support.training_process import ended, signal_when, start_training
from training.bundle.score_split import score_split
from training.data.reader import load_rows
from training.fitting.checkpoints import newest_intact
from training.fitting.live_metrics import LOSS, read_metrics
from training.fitting.spec import TrainingError, TrainingResult, TrainingSpec, WorkFolder
from training.launch.launcher import _failure, train
from validation.model_gate.ranking_metrics import top_k_hits


def losses(work_dir: str) -> dict[int, float]:
    rows = read_metrics(WorkFolder(Path(work_dir)).metrics)
    return {row.step: row.value for row in rows if row.name == LOSS}


def weights(work_dir: str) -> dict[str, np.ndarray]:
    tensors = load_file(Path(work_dir) / "bundle" / "weights.safetensors")
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def test_learns_and_beats_popularity_and_chance(planted, trained) -> None:
    spec, result = trained
    curve = list(losses(spec.work_dir).values())
    assert np.mean(curve[-5:]) < np.mean(curve[:5]) - 0.05
    assert result.final_training_loss == pytest.approx(np.mean(curve[-5:]), abs=0.1)
    rows = load_rows(planted.snapshot, planted.folder, SPLIT_HOLDOUT)
    bundle_dir = Path(result.bundle_dir)
    scores = score_split(bundle_dir, planted.snapshot, planted.folder, SPLIT_HOLDOUT)
    label = rows.labels["repin"]
    rankings = (scores.ranking_score, rows.numeric["pin_popularity"], np.zeros(len(label)))
    model, popularity, chance = (top_k_hits(rows, of, label).mean() for of in rankings)
    assert model > popularity + 0.05 > chance
    assert 0.6 < scores.probabilities["repin"].mean() / label.mean() < 1.6


def test_without_rounding_ranks_follow_the_whole_curve_of_one(planted, tmp_path) -> None:
    assert len(planted.snapshot.shards) < 3  # and three ranks are more than these
    exact = {"precision": "64-true", "num_epochs": 3}
    one, three = (planted.spec(tmp_path / str(n), n, training=exact) for n in (1, 3))
    assert train(one).num_steps == train(three).num_steps
    assert losses(three.work_dir) == pytest.approx(losses(one.work_dir), abs=1e-5)
    for name, weight in weights(three.work_dir).items():
        np.testing.assert_allclose(weight, weights(one.work_dir)[name], rtol=0, atol=1e-5)


def test_a_training_in_bfloat16_ends_near_the_one_in_float32(planted, trained, tmp_path) -> None:
    result = train(planted.spec(tmp_path, training={"precision": "bf16-mixed"}))
    assert result.final_training_loss == pytest.approx(trained[1].final_training_loss, rel=0.05)
    assert result.bundle_digest != trained[1].bundle_digest


@pytest.fixture
def copied(planted, trained, tmp_path) -> tuple[TrainingSpec, TrainingResult]:
    """The finished training, in a folder that a test may change."""
    finished, result = trained
    shutil.copytree(finished.work_dir, tmp_path, dirs_exist_ok=True)
    own = {"bundle_dir": str(tmp_path / "bundle"), "metrics_path": str(tmp_path / "metrics.jsonl")}
    write_json(tmp_path / "result.json", result.model_copy(update=own))
    return planted.spec(tmp_path), result


def test_a_finished_training_is_not_done_again_unless_its_bundle_was_altered(
    copied, tmp_path
) -> None:
    spec, result = copied
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", "/nonexistent")  # starting anything would fail
        assert train(spec).bundle_dir == str(tmp_path / "bundle")
    flip_a_byte(tmp_path / "bundle" / "weights.safetensors")
    again = train(spec)
    assert again.resumed_from_step == again.num_steps == result.num_steps
    assert again.bundle_digest == result.bundle_digest
    assert digest_of_files(digest_files(tmp_path / "bundle")) == result.bundle_digest


def test_a_corrupt_checkpoint_is_passed_over(planted, copied, tmp_path) -> None:
    spec, result = copied
    newest, older = sorted((tmp_path / "checkpoints").glob("*.ckpt"), reverse=True)
    flip_a_byte(newest)
    (tmp_path / "result.json").unlink()
    again = train(spec)
    assert again.resumed_from_step == int(older.stem.split("-")[1])
    assert again.bundle_digest == result.bundle_digest
    # Another configuration starts afresh.
    second = train(planted.spec(tmp_path, training={"num_epochs": 1, "seed": 99}))
    assert second.resumed_from_step == 0
    assert second.bundle_digest != result.bundle_digest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_training_that_is_ended_leaves_no_process_and_resumes_exactly(
    planted, watched_two_ranks, tmp_path, number
) -> None:
    """With one process it is told to stop, with two it is killed."""
    if number == signal.SIGKILL:
        whole_spec, whole = watched_two_ranks[:2]
    else:
        whole_spec = planted.spec_with_dropout(tmp_path / "whole")
        whole = train(whole_spec)
    spec = whole_spec.model_copy(update={"work_dir": str(tmp_path / "broken")})
    if number == signal.SIGTERM:  # told long before the first checkpoint, which an epoch's end has
        rare = spec.config.training.model_copy(update={"checkpoint_every_steps": 10_000})
        config = spec.config.model_copy(update={"training": rare})
        spec = spec.model_copy(update={"config": config})
    folder = WorkFolder(Path(spec.work_dir))

    def is_time() -> bool:
        if number == signal.SIGKILL:
            return any(folder.checkpoints.glob("step-*4-*.ckpt"))
        return any(row.step == 3 for row in read_metrics(folder.metrics))

    process = start_training(spec, tmp_path)
    signal_when(is_time, process, number)
    ended(process)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    processes = psutil.process_iter
    wait_until(lambda: not any(names(p, spec.work_dir) for p in processes(["cmdline"])), 60)
    assert not folder.result.exists()
    newest = newest_intact(folder.checkpoints)
    assert newest is not None
    result = train(spec)
    assert 0 < result.resumed_from_step == newest.step < result.num_steps
    assert losses(spec.work_dir) == losses(whole_spec.work_dir)
    before, after = weights(whole_spec.work_dir), weights(spec.work_dir)
    assert all((before[name] == after[name]).all() for name in before)
    assert result.bundle_digest == whole.bundle_digest


def names(process: psutil.Process, text: str) -> bool:
    return any(text in part for part in process.info["cmdline"] or ())


def test_nan_loss_stops_and_its_error_keeps_class_kind_and_message(planted, tmp_path) -> None:
    spec, folder = planted.spec(tmp_path, training={"learning_rate": 1e30}), WorkFolder(tmp_path)
    with pytest.raises(DataContractError, match=r"at step \d+, epoch 0, batch \d+: loss is nan"):
        train(spec)
    assert not folder.result.exists() and not folder.bundle.exists()
    write_json(folder.error, TrainingError.of(ConfigurationError("nowhere", kind="no place")))
    found = _failure(spec, folder, 0, 78, [])
    assert (type(found), str(found), found.kind) == (ConfigurationError, "nowhere", "no place")


def test_what_no_training_wrote_is_not_deleted(planted, tmp_path) -> None:
    for name in ("checkpoints/mine.ckpt", "result.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigurationError, match=r"holds \['checkpoints', 'result.json'\] and no"):
        train(planted.spec(tmp_path))
    assert (tmp_path / "checkpoints" / "mine.ckpt").read_text() == "mine"
    assert (tmp_path / "result.json").read_text() == "mine"


@pytest.mark.parametrize("lock", ["training.lock", "launch-node-0.lock"])
def test_two_trainings_never_share_a_folder(planted, tmp_path, lock) -> None:
    says = rf"training in {tmp_path} is already running: another process holds {tmp_path / lock}"
    with WorkFolder(tmp_path).locked("the test", lock):
        with pytest.raises(RunInProgressError, match=says):
            train(planted.spec(tmp_path))
