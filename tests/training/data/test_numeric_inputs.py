"""Features that may be missing on their way from a snapshot to a model, a bundle and scores."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import NumericFeature, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.storage import local_path
from support.bundles import chance_bundle
from support.random_log import build, config_of, write_random_log
from training.bundle.score_split import score_split
from training.data.data_module import HomefeedDataModule
from training.data.reader import RequestIndex, SnapshotReader, load_rows

CHOSEN = tuple(
    NumericFeature(name=name)
    for name in ("weekday", "since_last_touch_of_pin", "impressions.price", "past_engagements")
)
INPUTS = (
    *("weekday", "since_last_touch_of_pin", "since_last_touch_of_pin_missing"),
    *("impressions.price", "impressions.price_missing", "past_engagements"),
)


@dataclass(frozen=True)
class Built:
    config: RunConfig
    snapshot: Snapshot
    folder: Path
    reader: SnapshotReader
    without: Snapshot  # of the same log, without the chosen features


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("numeric")
    write_random_log(folder / "event_log")
    config = config_of(*CHOSEN)
    snapshot = build(folder, config)
    place = local_path(snapshot.uri)
    reader = SnapshotReader(snapshot.shards, place, config.features, max_actions=20)
    return Built(config, snapshot, place, reader, build(folder, config_of()))


def test_a_batch_has_each_feature_and_then_its_flag(built: Built) -> None:
    batch = built.reader.make_batch(built.reader.index(SPLIT_HOLDOUT))
    rows = load_rows(built.snapshot, built.folder, SPLIT_HOLDOUT)
    assert built.config.features.numeric_inputs == INPUTS
    assert batch.numeric_CN.dtype == torch.float32
    assert batch.numeric_CN.shape == (len(rows.pin_row), len(INPUTS))
    for n, name in enumerate(INPUTS):
        assert batch.numeric_CN[:, n].tolist() == rows.numeric[name].tolist()
    flag = rows.numeric["since_last_touch_of_pin_missing"]
    assert 0 < flag.sum() < len(flag)
    assert set(rows.numeric["since_last_touch_of_pin"][flag == 1]) == {0.0}


@pytest.mark.parametrize("is_always_missing", [False, True])
def test_scales_are_of_the_rows_where_a_feature_is_not_missing(
    built: Built, monkeypatch: pytest.MonkeyPatch, is_always_missing: bool
) -> None:
    """A feature that always is has a scale of one."""
    data = HomefeedDataModule(built.snapshot, built.folder, built.config)
    column, index = data.reader.example_column, data.training_index

    def missing(index: RequestIndex, name: str) -> np.ndarray:
        values = column(index, name)
        return np.full_like(values, name.endswith("_missing")) if "price" in name else values

    price, flag = (column(index, f"num_impressions.price{end}") for end in ("", "_missing"))
    mean, scale = price[flag == 0].mean(), price[flag == 0].std()
    expected = ([mean, flag.mean()], [scale, flag.std()])
    if is_always_missing:
        monkeypatch.setattr(data.reader, "example_column", missing)
        expected = ([0.0, 1.0], [1.0, 1.0])
    found = data.statistics()
    assert found.numeric_mean_N[3:5] == pytest.approx(expected[0])
    assert found.numeric_scale_N[3:5] == pytest.approx(expected[1])
    assert mean != pytest.approx(price.mean())


def test_a_bundle_with_flags_scores_and_needs_its_features(built: Built, tmp_path: Path) -> None:
    chance_bundle(tmp_path / "bundle", built.snapshot, built.config, seed=3)
    scores = score_split(tmp_path / "bundle", built.snapshot, built.folder, SPLIT_HOLDOUT)
    assert np.isfinite(scores.ranking_score).all()
    assert len(np.unique(scores.ranking_score)) > 10

    place = local_path(built.without.uri)
    expected = r"has numeric features \['past_engagements'\], but the bundle of .*needs"
    with pytest.raises(DataContractError, match=expected):
        score_split(tmp_path / "bundle", built.without, place, SPLIT_HOLDOUT)
