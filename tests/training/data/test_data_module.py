"""What feeds a training: the weights of users, and the scales of rows, or rows that have none."""

import logging
from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.config import CategoricalFeature, UserWeight
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.snapshot_files import open_table
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import local_path
from support.runs import make_run
from support.snapshots import copy_snapshot, rewrite, with_column, with_embedding
from support.worlds import write_planted_world
from training.data.data_module import HomefeedDataModule

STATES = ("core", "new")  # non_core is left to the bucket of other values


def test_users_weigh_as_configured(tmp_path: Path, planted) -> None:
    write_planted_world(tmp_path / "event_log", num_users=40)
    state = CategoricalFeature(name="state", table="users", values=STATES)
    weights = tuple(
        UserWeight(feature="state", value=value, weight=weight)
        for value, weight in zip(STATES, (0.5, 3.0), strict=True)
    )
    update = {"categorical": (state,), "user_weights": weights}
    config = smoke().model_copy(update={"features": smoke().features.model_copy(update=update)})
    snapshot = write_snapshot(make_run(tmp_path, config=config))
    data = HomefeedDataModule(snapshot, local_path(snapshot.uri), config)
    batch = data.make(0, data.plan(0).share(0, 0, 1))
    codes_C = batch.categorical_CG[:, 0].numpy()
    weights_C = batch.user_weights_R[batch.request_of_C].numpy()
    assert set(codes_C) == {0, 1}
    np.testing.assert_array_equal(weights_C, np.array([1.0, 0.5, 3.0])[codes_C])

    plain = HomefeedDataModule(planted.snapshot, planted.folder, planted.config)
    assert (plain.make(0, plain.plan(0).share(0, 0, 1)).user_weights_R == 1).all()


@pytest.mark.parametrize("whose", ["pin", "user"])
def test_an_embedding_that_is_not_finite_is_named_before_the_first_step(
    planted, tmp_path, whose: str
) -> None:
    snapshot, folder = copy_snapshot(planted.snapshot, tmp_path / "snapshot")
    name = "pins.arrow" if whose == "pin" else f"{snapshot.shards[1].name}/users.arrow"
    bad_id = int(open_table(folder, name)[f"{whose}_id"][2].as_py())
    snapshot = rewrite(snapshot, folder, name, with_embedding(2, np.nan))
    data = HomefeedDataModule(snapshot, folder, planted.config)
    says = rf"1 embeddings of {whose}s are not finite, {whose}_id \[{bad_id}\] first"
    with pytest.raises(DataContractError, match=says):
        data.statistics()


def test_a_pin_of_past_actions_alone_must_be_finite_too(planted, tmp_path) -> None:
    snapshot, folder = copy_snapshot(planted.snapshot, tmp_path / "snapshot")
    data = HomefeedDataModule(snapshot, folder, planted.config)
    shown = set(data.reader.example_column(data.training_index, "pin_row").tolist())
    past = set(np.concatenate([t["pin_row"] for t in data.reader.timelines]).tolist()) - shown
    row = past.pop() if past else len(data.reader.pins["pin_id"]) - 1
    snapshot = rewrite(snapshot, folder, "pins.arrow", with_embedding(row, np.nan))
    with pytest.raises(DataContractError, match="1 embeddings of pins are not finite"):
        HomefeedDataModule(snapshot, folder, planted.config).statistics()


@pytest.mark.parametrize("head", ["repin", "save"])
def test_a_head_without_positives(planted, tmp_path, head: str, caplog) -> None:
    snapshot, folder = copy_snapshot(planted.snapshot, tmp_path / "snapshot")
    for shard in snapshot.shards:
        name = f"{shard.name}/examples.arrow"
        snapshot = rewrite(snapshot, folder, name, with_column(f"label_{head}", np.zeros_like))
    data = HomefeedDataModule(snapshot, folder, planted.config)
    if head == "repin":
        with pytest.raises(DataContractError, match="no positive of the main head 'repin'"):
            data.statistics()
        return
    with caplog.at_level(logging.WARNING):
        rates_H = data.statistics().head_rates_H
    assert 0 < rates_H[2] < 1e-3  # it is trained, from a rate that a logarithm survives
    assert "'save' has no positive" in caplog.text
