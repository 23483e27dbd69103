"""A whole way in one process, at other widths of embeddings than the published one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.snapshot_files import embedding_dim_of
from pipelines.snapshot.build import write_snapshot
from pipelines.sources import EventLogWriter
from pipelines.storage import local_path
from support.runs import make_run
from support.worlds import PLANTED_VERSION, write_planted_world
from training.bundle.files import load_bundle
from training.bundle.mlflow_model import _signature
from training.bundle.score_split import score_split
from training.data.reader import SnapshotReader
from training.fitting.fit import run_process
from training.fitting.spec import TrainingSpec
from training.fitting.work_folder import WorkFolder
from validation.data_gate.snapshot_profile import profile_snapshot


def write_log(folder: Path, embedding_dim: int, type_: pa.DataType) -> None:
    """Write a planted world, and then its rows again by the writer, in embeddings of a type."""
    write_planted_world(folder / "by_hand", num_users=60, embedding_dim=embedding_dim)
    with EventLogWriter(folder / "event_log", PLANTED_VERSION) as writer:
        for table in ("users", "pins", "actions", "impressions"):
            for path in sorted((folder / "by_hand" / table).rglob("*.parquet"), reverse=True):
                rows = pq.read_table(path, partitioning=None)
                if "embedding" in rows.column_names:
                    lists = rows["embedding"].cast(pa.list_(type_, embedding_dim))
                    place = rows.column_names.index("embedding")
                    rows = rows.set_column(place, "embedding", lists)
                getattr(writer, table)(rows)


@pytest.mark.parametrize(("embedding_dim", "type_"), [(16, pa.float16()), (48, pa.float32())])
def test_a_log_of_another_width_is_trained_on_and_scored(
    planted, tmp_path: Path, embedding_dim: int, type_: pa.DataType
) -> None:
    write_log(tmp_path, embedding_dim, type_)
    snapshot = write_snapshot(make_run(tmp_path), 1)
    folder = local_path(snapshot.uri)
    assert embedding_dim_of(folder) == embedding_dim
    profile = profile_snapshot(snapshot, folder)
    assert not any(broken.details for broken in (profile.pins, *profile.shards.values()))
    assert profile.unmeasured_shards == []

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
    reader = SnapshotReader(snapshot, folder, snapshot.features, 1)
    is_repin = reader.labels(reader.index(SPLIT_HOLDOUT))[:, 0].astype(bool)
    repin = scores.probabilities["repin"]
    assert repin[is_repin].mean() > 1.5 * repin[~is_repin].mean()
    with pytest.raises(DataContractError, match=f"embeddings of width 32.* needs {embedding_dim}"):
        score_split(work.bundle, planted.snapshot, planted.folder, SPLIT_HOLDOUT)
    assert np.isfinite(scores.ranking_score).all()
