"""A whole way in one process, at other widths of embeddings than the published one."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.snapshot_files import embedding_dim_of
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import local_path
from support.runs import make_run
from support.worlds import write_planted_world
from training.bundle.files import load_bundle
from training.bundle.mlflow_model import _signature
from training.bundle.score_split import score_split
from training.data.reader import SnapshotReader
from training.fitting.fit import _begin_with, run_process
from training.fitting.spec import TrainingSpec, WorkFolder


@pytest.mark.parametrize("embedding_dim", [16, 48])
def test_a_log_of_another_width_is_trained_on_and_scored(
    planted, tmp_path: Path, embedding_dim: int
) -> None:
    write_planted_world(tmp_path / "event_log", num_users=60, embedding_dim=embedding_dim)
    snapshot = write_snapshot(make_run(tmp_path))
    folder = local_path(snapshot.uri)
    assert embedding_dim_of(folder) == embedding_dim
    spec: TrainingSpec = planted.spec(
        tmp_path / "work", snapshot=snapshot, snapshot_dir=str(folder), training={"num_epochs": 3}
    )
    work = WorkFolder(Path(spec.work_dir))
    work.root.mkdir()
    run_process(spec, work, rank=0)

    assert load_bundle(work.bundle).config.embedding_dim == embedding_dim
    shapes = {each.name: each.shape for each in _signature(work.bundle).inputs}
    assert shapes["candidate_pins_CE"] == shapes["users_RE"] == (-1, embedding_dim)
    scores = score_split(work.bundle, snapshot, folder, SPLIT_HOLDOUT)
    reader = SnapshotReader(snapshot.shards, folder, snapshot.features, 1)
    is_repin = reader.labels(reader.index(SPLIT_HOLDOUT))[:, 0].astype(bool)
    repin = scores.probabilities["repin"]
    assert repin[is_repin].mean() > 1.5 * repin[~is_repin].mean()
    with pytest.raises(DataContractError, match=f"embeddings of width 32.* needs {embedding_dim}"):
        score_split(work.bundle, planted.snapshot, planted.folder, SPLIT_HOLDOUT)
    assert np.isfinite(scores.ranking_score).all()


def test_a_training_begins_with_the_weights_of_a_bundle_of_its_shapes(planted, tmp_path) -> None:
    """A step that changes nothing leaves those weights; other shapes are refused by their names."""

    def train(name: str, **more) -> WorkFolder:
        spec = planted.spec(tmp_path / name, **more)
        work = WorkFolder(tmp_path / name)
        work.root.mkdir()
        run_process(spec, work, rank=0)
        return work

    first = train("first", training={"num_epochs": 1})
    start, still = str(first.bundle), {"num_epochs": 1, "learning_rate": 1e-30, "seed": 4}
    warm = train("warm", training=still, starts_from=start)
    ours, theirs = (load_bundle(each.bundle).ranker.state_dict() for each in (first, warm))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-20
    specs = [planted.spec(tmp_path / "warm", training=still, starts_from=s) for s in ("", start)]
    assert specs[0].identity() != specs[1].identity()
    with pytest.raises(DataContractError, match=r"other shapes(?s:.*)tower.0.weight(?s:.*)\[24"):
        train("other", model={"mlp_dims": (24,)}, starts_from=start)
    features = planted.config.features
    fewer = planted.snapshot.model_copy(
        update={
            "features": features.model_copy(update={"action_types": features.action_types[:-1]})
        }
    )
    with pytest.raises(DataContractError, match="has action types"):
        _begin_with(first.bundle, fewer, load_bundle(first.bundle).ranker)
