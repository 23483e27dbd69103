"""The weighted loss worked by hand."""

import math

import pytest
import torch

from pipelines.contracts.config import FeatureConfig, Head, LabelWeight
from pipelines.contracts.errors import ConfigurationError
from training.data.batches import Batch
from training.model.loss import label_weight_matrix, weighted_loss


def make_features(*weights: LabelWeight) -> FeatureConfig:
    heads = tuple(Head(name=n, action_type=n, utility_weight=1.0) for n in ("repin", "hide"))
    return FeatureConfig(action_types=("repin", "hide"), heads=heads, label_weights=weights)


def make_batch(
    labels: list[list[float]], request_of: list[int], user_weights: list[float]
) -> Batch:
    return Batch(**dict.fromkeys(Batch._fields))._replace(  # the loss reads no more than these
        request_of_C=torch.tensor(request_of),
        labels_CH=torch.tensor(labels),
        user_weights_R=torch.tensor(user_weights),
        num_global_candidates=torch.tensor(float(len(labels))),
    )


def test_by_hand() -> None:
    assert label_weight_matrix(make_features()).tolist() == [[0, 0, 1], [0, 0, 1]]
    matrix = label_weight_matrix(
        make_features(
            LabelWeight(head="repin", label="repin", weight=3.0),
            LabelWeight(head="hide", label="impression", weight=0.5),
        )
    )
    batch = make_batch([[1.0, 0.0], [0.0, 0.0]], [0, 1], [1.0, 2.0])
    logits = torch.tensor([[0.0, math.log(3)], [math.log(1 / 3), 0.0]])
    # candidate 0: repin weighs 1 + 3, p = 1/2; hide weighs 1/2, p = 3/4
    # candidate 1 counts twice: repin weighs 1, p = 1/4; hide weighs 1/2, p = 1/2
    first = 4 * math.log(2) + 0.5 * -math.log(1 / 4)
    second = 2 * (-math.log(3 / 4) + 0.5 * math.log(2))
    found = weighted_loss(logits, batch, matrix)
    assert found.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_an_unknown_label_is_refused() -> None:
    features = make_features(LabelWeight(head="repin", label="like", weight=1.0))
    with pytest.raises(ConfigurationError, match="'like'"):
        label_weight_matrix(features)
