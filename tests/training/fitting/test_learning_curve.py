"""The learning curve: a point for each epoch, true of the model as it is, and without a trace."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.schemas import SPLIT_HOLDOUT
from support.serving import free_port
from training.bundle.calibration import Calibrator
from training.bundle.files import Predictor, load_bundle
from training.bundle.score_split import logits_of
from training.data.data_module import HomefeedDataModule
from training.data.reader import SnapshotReader
from training.fitting import learning_curve
from training.fitting.fit import _config, run_process
from training.fitting.metrics_file import CURVE, read_metrics
from training.fitting.spec import WorkFolder


def trained(planted, folder: Path, num_epochs: int, mlflow_run_id: str) -> WorkFolder:
    dropout = {"dropout": 0.1, "mlp_dropout": 0.1}
    epochs = {"num_epochs": num_epochs}
    work = WorkFolder(folder)
    work.root.mkdir()
    nowhere = f"http://127.0.0.1:{free_port()}"
    told = {"mlflow_run_id": mlflow_run_id, "tracking_uri": nowhere}
    run_process(planted.spec(folder, model=dropout, training=epochs, **told), work, rank=0)
    return work


def volume_of(planted, bundle: Path) -> float:
    """Return what the last point should be: of the bundle on the holdout, not calibrated."""
    predictor = load_bundle(bundle)
    neutral = tuple(
        Calibrator(head=each.head, scale=1.0, shift=0.0) for each in predictor.config.calibrators
    )
    config = predictor.config.model_copy(update={"calibrators": neutral})
    features = config.features
    reader = SnapshotReader(
        planted.snapshot.shards, planted.folder, features, config.model.max_actions
    )
    index = reader.index(SPLIT_HOLDOUT)
    neutral_one = Predictor(predictor.ranker, config)
    found = neutral_one.calibrate(logits_of(neutral_one, reader, index, 100_000))
    score = found @ np.array([head.utility_weight for head in features.heads])
    label = reader.labels(index)[:, features.head_names.index(features.main_head.name)]
    ends = np.cumsum(index.num_examples_M)
    pieces = zip(np.split(score, ends[:-1]), np.split(label, ends[:-1]), strict=True)
    return float(np.mean([labels[np.argsort(-scores)[:3]].sum() for scores, labels in pieces]))


def test_a_point_costs_a_small_share_of_the_training(planted, tmp_path: Path) -> None:
    spec = planted.spec(tmp_path)
    data = HomefeedDataModule(planted.snapshot, planted.folder, spec.config)
    few, many = (
        learning_curve.LearningCurve(tmp_path / "metrics.jsonl", data, _config(spec))
        for _ in range(2)
    )
    holdout = data.reader.index(SPLIT_HOLDOUT)
    assert learning_curve._FEWEST <= len(few._index) < len(holdout)
    assert few._index.row_M.tolist() == many._index.row_M.tolist()


@pytest.mark.parametrize(("num_epochs", "points"), [(1, 4), (6, 6)])
def test_each_epoch_has_a_point_and_the_weights_know_nothing_of_it(
    planted, tmp_path: Path, num_epochs: int, points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_curve, "_SHARE", 100.0)  # all of the holdout
    silent = trained(planted, tmp_path / "silent", num_epochs, "")
    told = trained(planted, tmp_path / "told", num_epochs, "run")
    curve = [each for each in read_metrics(told.metrics) if each.name == CURVE]
    last = max(each.step for each in read_metrics(told.metrics))
    every = -(-last // points)
    assert [each.step for each in curve] == [*range(every, last, every), last]
    assert num_epochs == 1 or len(curve) == num_epochs
    assert curve[-1].value == pytest.approx(volume_of(planted, told.bundle))
    assert not [each for each in read_metrics(silent.metrics) if each.name == CURVE]
    weights = [(each.bundle / "weights.safetensors").read_bytes() for each in (silent, told)]
    assert weights[0] == weights[1]
