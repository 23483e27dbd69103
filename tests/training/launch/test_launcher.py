"""Training in its own processes: it learns, resumes exactly, agrees over ranks, ends loudly."""

import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from pipelines.contracts.errors import ConfigurationError, DataContractError, RunInProgressError
from pipelines.contracts.files import digest_files, digest_of_files, write_whole
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from support.damage import flip_a_byte
from support.serving import wait_until
from support.training_process import ended, signal_when, start_training
from training.bundle.score_split import score_split
from training.data.reader import load_rows
from training.fitting.checkpoints import newest_intact
from training.fitting.metrics_file import LOSS, read_metrics
from training.fitting.spec import TrainingError, WorkFolder
from training.launch.launcher import _failure, train
from validation.model_gate.ranking_metrics import is_in_top


def losses(work_dir: str) -> dict[int, float]:
    rows = read_metrics(WorkFolder(Path(work_dir)).metrics)
    return {row.step: row.value for row in rows if row.name == LOSS}


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
    model, popularity, chance = ((label * is_in_top(rows, of, 3)).sum() for of in rankings)
    assert model > popularity + 0.05 * len(rows.user_id) > chance
    assert 0.6 < scores.probabilities["repin"].mean() / label.mean() < 1.6


def test_without_rounding_ranks_follow_the_whole_curve_of_one(planted, tmp_path) -> None:
    assert len(planted.snapshot.shards) < 3  # and three ranks are more than these
    exact = {"precision": "64-true", "num_epochs": 3}
    one, three = (planted.spec(tmp_path / str(n), n, training=exact) for n in (1, 3))
    assert train(one).num_steps == train(three).num_steps
    assert losses(three.work_dir) == pytest.approx(losses(one.work_dir), abs=1e-5)
    of_one, of_three = (load_file(tmp_path / n / "bundle" / "weights.safetensors") for n in "13")
    torch.testing.assert_close(of_three, of_one, rtol=0, atol=1e-5)


def test_a_training_in_bfloat16_ends_near_the_one_in_float32(planted, trained, tmp_path) -> None:
    result = train(planted.spec(tmp_path, training={"precision": "bf16-mixed"}))
    assert result.final_training_loss == pytest.approx(trained[1].final_training_loss, rel=0.05)
    assert result.bundle_digest != trained[1].bundle_digest


def test_a_training_is_not_done_again_but_for_what_was_altered(planted, trained, tmp_path) -> None:
    finished, result = trained
    shutil.copytree(finished.work_dir, tmp_path, dirs_exist_ok=True)
    spec, folder = planted.spec(tmp_path), WorkFolder(tmp_path)
    own = {"bundle_dir": str(folder.bundle), "metrics_path": str(folder.metrics)}
    write_whole(folder.result, result.model_copy(update=own).to_record())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", "/nonexistent")  # starting anything would fail
        assert train(spec).bundle_dir == str(folder.bundle)
    weights = folder.bundle / "weights.safetensors"
    newest, older = sorted(folder.checkpoints.glob("*.ckpt"), reverse=True)
    for damaged, intact in (([weights], newest), ([weights, newest], older)):
        for path in damaged:
            flip_a_byte(path)
        again = train(spec)
        assert again.resumed_from_step == int(intact.stem.split("-")[1])
        assert again.bundle_digest == result.bundle_digest
        assert digest_of_files(digest_files(folder.bundle)) == result.bundle_digest
    another = train(planted.spec(tmp_path, training={"num_epochs": 1, "seed": 99}))
    assert another.resumed_from_step == 0
    assert another.bundle_digest != result.bundle_digest


def has_done_three_steps(folder: WorkFolder) -> bool:
    return any(row.step == 3 for row in read_metrics(folder.metrics))


def has_saved_within_an_epoch(folder: WorkFolder) -> bool:
    return any(folder.checkpoints.glob("step-*4-*.ckpt"))


@pytest.mark.parametrize(
    ("number", "num_devices", "every", "is_time", "exit_code"),
    [
        # long before the first checkpoint, which an epoch's end has
        (signal.SIGTERM, 1, 10_000, has_done_three_steps, 128 + signal.SIGTERM),
        (signal.SIGKILL, 2, 4, has_saved_within_an_epoch, -signal.SIGKILL),
    ],
)
def test_a_training_that_is_ended_leaves_no_process_and_resumes_exactly(
    planted, watched_two_ranks, tmp_path, number, num_devices, every, is_time, exit_code
) -> None:
    whole_spec, whole, _ = watched_two_ranks
    if num_devices == 1:
        whole_spec = planted.spec_with_dropout(tmp_path / "whole")
        whole = train(whole_spec)
    spec = planted.spec_with_dropout(tmp_path / "broken", num_devices, every)
    folder = WorkFolder(tmp_path / "broken")
    process = start_training(spec, tmp_path)
    signal_when(lambda: is_time(folder), process, number)
    ended(process)
    assert process.returncode == exit_code

    def is_left() -> bool:
        commands = [each.info["cmdline"] or () for each in psutil.process_iter(["cmdline"])]
        return any(spec.work_dir in part for command in commands for part in command)

    wait_until(lambda: not is_left(), 60)
    assert not folder.result.exists()
    newest = newest_intact(folder.checkpoints)
    assert newest is not None
    result = train(spec)
    assert 0 < result.resumed_from_step == newest.step < result.num_steps
    assert losses(spec.work_dir) == losses(whole_spec.work_dir)
    assert result.bundle_digest == whole.bundle_digest


def test_nan_loss_stops_and_its_error_keeps_class_kind_and_message(planted, tmp_path) -> None:
    spec, folder = planted.spec(tmp_path, training={"learning_rate": 1e30}), WorkFolder(tmp_path)
    with pytest.raises(DataContractError, match=r"at step \d+, epoch 0, batch \d+: loss is nan"):
        train(spec)
    assert not folder.result.exists() and not folder.bundle.exists()
    write_whole(
        folder.error, TrainingError.of(ConfigurationError("nowhere", kind="no place")).to_record()
    )
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
