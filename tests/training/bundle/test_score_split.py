"""From a bundle's folder to scores: aligned with the rows, whatever the batch size."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from support.bundles import write_with_config
from training.bundle.files import Predictor, read_config
from training.bundle.score_split import BATCH_SIZES, SplitScores, ranking_score, score_split
from training.data.reader import is_drawn, load_rows


def scores_of(trained, planted, **overrides: Any) -> SplitScores:
    """Score the planted holdout with the trained bundle, but for what is given."""
    arguments: dict[str, Any] = {
        "bundle_dir": Path(trained[1].bundle_dir),
        "snapshot": planted.snapshot,
        "snapshot_dir": planted.folder,
        "split": SPLIT_HOLDOUT,
        "label_heads": ("repin",),
    }
    return score_split(**(arguments | overrides))


OTHER = CategoricalFeature(name="x", table="pins", values=("a",))


@pytest.mark.parametrize(
    ("what", "update"),
    [
        ("embedding version", {"embedding_version": "planted-2"}),
        ("action types", {"action_types": ("hide", "repin")}),
        ("categorical features", {"categorical": (OTHER,)}),
    ],
)
def test_a_snapshot_of_another_meaning_is_refused(planted, trained, what, update) -> None:
    if "embedding_version" not in update:
        update = {"features": planted.snapshot.features.model_copy(update=update)}
    with pytest.raises(DataContractError, match=what):
        scores_of(trained, planted, snapshot=planted.snapshot.model_copy(update=update))


@pytest.mark.parametrize("batch_size", [1, 37, 500])
def test_scores_do_not_depend_on_the_batch_size(planted, trained, batch_size, monkeypatch) -> None:
    whole = scores_of(trained, planted).probabilities
    monkeypatch.setitem(BATCH_SIZES, "cpu", batch_size)
    parts = scores_of(trained, planted).probabilities
    for head, probabilities in whole.items():
        assert np.abs(probabilities - parts[head]).max() < 1e-5


def test_rows_and_scores_are_aligned(planted, trained, holdout_batch, predictor) -> None:
    for split in (SPLIT_TRAINING, SPLIT_HOLDOUT):
        rows = load_rows(planted.snapshot, planted.folder, split)
        found = scores_of(trained, planted, split=split).probabilities
        assert len(found["repin"]) == len(rows.request_index) == rows.first_example[-1]
        assert (np.diff(rows.first_example) == np.bincount(rows.request_index)).all()
    assert holdout_batch.candidate_pin_keys_C.tolist() == rows.pin_row.tolist()
    assert holdout_batch.labels_CH[:, 0].tolist() == rows.labels["repin"].tolist()
    assert np.abs(predictor.probabilities(holdout_batch)[:, 0] - found["repin"]).max() < 1e-5


def test_ranking_score_by_hand(planted) -> None:
    repin, long_click, save = planted.config.features.heads
    heads = (repin, long_click.model_copy(update={"utility_weight": -2.0}), save)
    probabilities = {"repin": np.array([0.5, 0.1]), "long_click": np.array([0.2, 0.0])}
    assert ranking_score(probabilities, heads) == pytest.approx([0.1, 0.1])
    with pytest.raises(DataContractError, match="utility_weight 0"):
        ranking_score(probabilities, (save,))


def test_the_ranking_is_the_one_that_the_bundle_itself_would_serve(
    planted, trained, tmp_path
) -> None:
    repin, long_click, save = planted.config.features.heads
    source = Path(trained[1].bundle_dir)
    config = read_config(source)
    reversed_save = save.model_copy(update={"utility_weight": -2.0})
    ignored = repin.model_copy(update={"utility_weight": 0.0})
    features = config.features.model_copy(update={"heads": (ignored, long_click, reversed_save)})
    changed = config.model_copy(update={"features": features})
    folder = write_with_config(source, tmp_path / "bundle", changed)
    found = scores_of(trained, planted, bundle_dir=folder)
    assert (found.ranking_score == -2.0 * found.probabilities["save"]).all()
    assert set(found.probabilities) == {repin.name, long_click.name, save.name}


def test_the_digest_is_of_requests_pins_and_labels(planted, trained) -> None:
    one = scores_of(trained, planted).holdout_digest
    assert scores_of(trained, planted, label_heads=("repin", "save")).holdout_digest != one
    assert scores_of(trained, planted, split=SPLIT_TRAINING).holdout_digest != one


def test_the_same_users_are_drawn_in_any_order_with_the_scores_of_all(planted, trained) -> None:
    place = planted.snapshot, planted.folder, SPLIT_HOLDOUT
    whole, some = load_rows(*place), load_rows(*place, num_users=20)
    assert (len(set(some.user_id)), some.num_users_in_all) == (20, len(set(whole.user_id)))
    is_in = np.isin(whole.user_id, some.user_id)
    assert (is_drawn(whole.user_id[::-1], 20)[::-1] == is_in).all()
    assert whole.num_users_in_all is None and (is_drawn(whole.user_id, 30) >= is_in).all()
    all_of, found = (scores_of(trained, planted, num_users=n).ranking_score for n in (None, 20))
    assert found == pytest.approx(all_of[is_in[whole.request_index]], abs=1e-5)


def test_a_model_on_another_device_gets_all_it_needs_there_and_a_missing_gpu_is_told(
    planted, trained, holdout_batch, predictor
) -> None:
    ranker = Mock(return_value=torch.zeros(1, 1), plan=predictor.ranker.plan)
    ranker.eval.return_value, ranker.heads.weight.device = ranker, torch.device("meta")
    Predictor(ranker, predictor.config).logits(holdout_batch)
    given = [each for each in tree_leaves(ranker.call_args.args) if isinstance(each, torch.Tensor)]
    assert len(given) > len(holdout_batch) + 1 and {each.device.type for each in given} == {"meta"}
    with pytest.raises(ConfigurationError, match="accelerator is 'gpu'"):
        scores_of(trained, planted, accelerator="gpu")
