"""The scales of the training rows, and rows that have none."""

import logging

import numpy as np
import pytest

from pipelines.contracts.errors import DataContractError
from support.snapshots import copy_snapshot, rewrite, with_column, with_embedding
from training.data.data_module import HomefeedDataModule


def test_an_embedding_that_is_not_finite_stops_before_the_first_step(planted, tmp_path) -> None:
    snapshot, folder = copy_snapshot(planted.snapshot, tmp_path / "snapshot")
    snapshot = rewrite(snapshot, folder, "pins.arrow", with_embedding(-1, np.inf))
    data = HomefeedDataModule(snapshot, folder, planted.config)
    with pytest.raises(DataContractError, match="embeddings of pins are not finite"):
        data.statistics()


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
