"""Training in its own processes: it learns, resumes exactly, agrees over ranks, ends loudly."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RunInProgressError,
)
from pipelines.contracts.files import digest_files, digest_of_files, write_json
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from support.damage import flip_a_byte
from support.ranking import calibration_ratio, volume_at_3
from support.training_process import signal_when
from training.bundle.score_split import score_split
from training.data.example_rows import load_rows
from training.fitting.checkpoints import digest_path, newest_intact
from training.fitting.live_metrics import LOSS, read_metrics
from training.fitting.spec import TrainingResult, TrainingSpec
from training.fitting.work_folder import WorkFolder
from training.launch.launcher import train


def losses(work_dir: str) -> dict[int, float]:
    rows = read_metrics(WorkFolder(Path(work_dir)).metrics)
    return {row.step: row.value for row in rows if row.name == LOSS}


def weights(work_dir: str) -> dict[str, np.ndarray]:
    tensors = load_file(Path(work_dir) / "bundle" / "weights.safetensors")
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def processes_naming(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_learns_and_beats_popularity_and_chance(planted, trained) -> None:
    spec, result = trained
    curve = list(losses(spec.work_dir).values())
    assert np.mean(curve[-5:]) < np.mean(curve[:5]) - 0.05
    assert result.final_training_loss == pytest.approx(np.mean(curve[-5:]), abs=0.1)
    rows = load_rows(planted.snapshot, planted.folder, SPLIT_HOLDOUT)
    bundle_dir = Path(result.bundle_dir)
    scores = score_split(bundle_dir, planted.snapshot, planted.folder, SPLIT_HOLDOUT)
    label = rows.labels["repin"]
    model = volume_at_3(rows, scores.ranking_score, label)
    popularity = volume_at_3(rows, rows.numeric["pin_popularity"], label)
    chance = volume_at_3(rows, np.zeros(len(label)), label)
    assert model > popularity + 0.05 > chance
    assert 0.6 < calibration_ratio(scores.probabilities["repin"], label) < 1.6


def test_a_finished_training_is_not_done_again(trained, monkeypatch) -> None:
    spec, result = trained
    monkeypatch.setattr(sys, "executable", "/nonexistent")  # starting anything would fail
    assert train(spec) == result


def test_a_bundle_that_was_altered_is_written_anew_from_the_checkpoint(
    planted, trained, tmp_path
) -> None:
    finished, result = trained
    shutil.copytree(finished.work_dir, tmp_path, dirs_exist_ok=True)
    spec = planted.spec(tmp_path)
    own = {"bundle_dir": str(tmp_path / "bundle"), "metrics_path": str(tmp_path / "metrics.jsonl")}
    write_json(tmp_path / "result.json", result.model_copy(update=own))
    assert train(spec).bundle_dir == own["bundle_dir"], "it is finished"
    flip_a_byte(tmp_path / "bundle" / "weights.safetensors")
    again = train(spec)
    assert again.resumed_from_step == again.num_steps == result.num_steps
    assert again.bundle_digest == result.bundle_digest
    assert digest_of_files(digest_files(tmp_path / "bundle")) == result.bundle_digest


def test_the_same_seed_gives_the_same_bundle(planted, trained, tmp_path) -> None:
    spec, result = trained
    assert train(planted.spec(tmp_path)).bundle_digest == result.bundle_digest


def test_two_ranks_follow_the_curve_of_one(planted, trained, tmp_path) -> None:
    spec, result = trained
    two = train(planted.spec(tmp_path, num_devices=2))
    assert two.num_steps == result.num_steps
    one_curve, two_curve = losses(spec.work_dir), losses(str(tmp_path))
    assert one_curve.keys() == two_curve.keys()
    # 1e-5 while rounding has not grown through the steps; later the curves may only stay close
    early = sorted(one_curve)[:10]
    assert [two_curve[s] for s in early] == pytest.approx([one_curve[s] for s in early], abs=1e-5)
    difference = max(abs(two_curve[s] - one_curve[s]) for s in one_curve)
    assert difference < 1e-3, difference
    assert two.final_training_loss == pytest.approx(result.final_training_loss, abs=5e-3)
    rows = load_rows(planted.snapshot, planted.folder, SPLIT_HOLDOUT)
    volumes = [
        volume_at_3(
            rows,
            score_split(
                Path(r.bundle_dir),
                planted.snapshot,
                planted.folder,
                SPLIT_HOLDOUT,
            ).probabilities["repin"],
            rows.labels["repin"],
        )
        for r in (result, two)
    ]
    assert volumes[0] == pytest.approx(volumes[1], abs=0.05)


def test_without_rounding_ranks_follow_the_whole_curve_of_one(planted, tmp_path) -> None:
    """What grows to 1e-3 above is rounding: in float64 the curves agree to their end."""
    assert len(planted.snapshot.shards) < 3  # and three ranks are more than these
    specs = [
        planted.spec(
            tmp_path / str(n),
            num_devices=n,
            training={"precision": "64-true", "num_epochs": 3},
        )
        for n in (1, 2, 3)
    ]
    assert len({train(spec).num_steps for spec in specs}) == 1
    one, *others = specs
    curve = losses(one.work_dir)
    for spec in others:
        assert losses(spec.work_dir) == pytest.approx(curve, abs=1e-5)
        for name, weight in weights(spec.work_dir).items():
            np.testing.assert_allclose(weight, weights(one.work_dir)[name], rtol=0, atol=1e-5)


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def whole(planted, tmp_path_factory, request) -> tuple[TrainingSpec, TrainingResult]:
    """An uninterrupted training with dropout."""
    if request.param == 2:
        return request.getfixturevalue("watched_two_ranks")[:2]
    spec = planted.spec_with_dropout(tmp_path_factory.mktemp("whole"))
    return spec, train(spec)


def start_again(whole_spec: TrainingSpec, tmp_path: Path) -> tuple[TrainingSpec, Path]:
    """Return the same training in another folder, and its specification's file."""
    spec = whole_spec.model_copy(update={"work_dir": str(tmp_path / "broken")})
    Path(spec.work_dir).mkdir()
    spec_path = tmp_path / "spec.json"
    spec_path.write_bytes(spec.to_record())
    return spec, spec_path


def assert_resumes_exactly(spec: TrainingSpec, whole: tuple[TrainingSpec, TrainingResult]) -> int:
    """Train on, compare with the uninterrupted training, return where it went on from."""
    whole_spec, whole_result = whole
    assert not (Path(spec.work_dir) / "result.json").exists()
    result = train(spec)
    assert 0 < result.resumed_from_step < result.num_steps
    assert losses(spec.work_dir) == losses(whole_spec.work_dir)
    before, after = weights(whole_spec.work_dir), weights(spec.work_dir)
    assert all((before[name] == after[name]).all() for name in before)
    assert result.bundle_digest == whole_result.bundle_digest
    return result.resumed_from_step


def test_killed_training_leaves_no_process_and_resumes_exactly(whole, tmp_path) -> None:
    spec, spec_path = start_again(whole[0], tmp_path)
    checkpoints = Path(spec.work_dir) / "checkpoints"
    signal_when(checkpoints, lambda p: any(p.glob("step-*4.ckpt")), spec_path)
    deadline = time.monotonic() + 60
    while processes_naming(spec.work_dir) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_naming(spec.work_dir) == []
    assert_resumes_exactly(spec, whole)


def test_a_training_told_to_stop_saves_first(whole, tmp_path) -> None:
    # No checkpoint but at the end of an epoch; told to stop long before the last of them.
    whole_spec, _ = whole
    rare = whole_spec.config.training.model_copy(update={"checkpoint_every_steps": 10_000})
    spec, spec_path = start_again(
        whole_spec.model_copy(
            update={"config": whole_spec.config.model_copy(update={"training": rare})}
        ),
        tmp_path,
    )
    folder = WorkFolder(Path(spec.work_dir))
    ended = signal_when(
        folder.metrics, lambda p: p.exists() and '"step":3' in p.read_text().replace(" ", ""),
        spec_path, signal.SIGTERM,
    )  # fmt: skip
    assert ended == 128 + signal.SIGTERM
    assert processes_naming(spec.work_dir) == []
    newest = newest_intact(folder.checkpoints)
    assert newest is not None
    assert assert_resumes_exactly(spec, whole) == newest[0]


def test_a_corrupt_checkpoint_is_passed_over(planted, trained, tmp_path) -> None:
    finished, result = trained
    shutil.copytree(finished.work_dir, tmp_path, dirs_exist_ok=True)
    spec = planted.spec(tmp_path)
    folder = WorkFolder(tmp_path)
    newest, older = sorted(folder.checkpoints.glob("*.ckpt"), reverse=True)
    flip_a_byte(newest)
    assert digest_path(newest).exists()
    folder.result.unlink()
    again = train(spec)
    assert again.resumed_from_step == int(older.stem.split("-")[1])
    assert again.bundle_digest == result.bundle_digest


def test_another_configuration_starts_afresh(planted, trained, tmp_path) -> None:
    finished, first = trained
    shutil.copytree(finished.work_dir, tmp_path, dirs_exist_ok=True)
    second = train(planted.spec(tmp_path, **{"training": {"num_epochs": 1, "seed": 99}}))
    assert second.resumed_from_step == 0
    assert second.bundle_digest != first.bundle_digest


def test_nan_loss_stops_with_its_class_and_keeps_the_weights(planted, tmp_path) -> None:
    spec = planted.spec(tmp_path, training={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(DataContractError, match=r"step \d+, epoch \d+, batch .*learning_rate"):
        train(spec)
    assert not (tmp_path / "result.json").exists()
    assert not (tmp_path / "bundle").exists()
    assert json.loads((tmp_path / "error.json").read_text())["error_class"] == "DataContractError"


def test_a_gpu_that_is_not_there_is_a_configuration_error(planted, tmp_path) -> None:
    import torch

    missing = torch.cuda.device_count() + 1
    with pytest.raises(ConfigurationError, match="accelerator=gpu"):
        train(planted.spec(tmp_path, num_devices=missing, accelerator="gpu"))


def test_what_no_training_wrote_is_not_deleted(planted, tmp_path) -> None:
    for name in ("checkpoints/mine.ckpt", "result.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigurationError, match=r"holds \['checkpoints', 'result.json'\] and no"):
        train(planted.spec(tmp_path))
    assert (tmp_path / "checkpoints" / "mine.ckpt").read_text() == "mine"
    assert (tmp_path / "result.json").read_text() == "mine"


def test_two_trainings_never_share_a_folder(planted, tmp_path) -> None:
    with WorkFolder(tmp_path).locked("the test"), pytest.raises(RunInProgressError, match=r"\d+"):
        train(planted.spec(tmp_path))
