"""The predictor: the scale of its logits, and scores that do not depend on an order."""

import numpy as np
import torch

from training.bundle.files import Predictor
from training.data.batches import CANDIDATE, VARYING_AXES, for_scoring


def test_scores_of_a_model_of_fewer_negatives_are_on_the_scale_of_all(
    holdout_batch, predictor
) -> None:
    fewer = predictor.config.model_copy(update={"negative_keep_fraction": 0.25})
    found, plain = (
        Predictor(predictor.ranker, fewer).logits(holdout_batch),
        predictor.logits(holdout_batch),
    )
    assert np.allclose(np.exp(found), 0.25 * np.exp(plain), rtol=1e-9)


def test_scores_do_not_depend_on_the_order_of_candidates(holdout_batch, predictor) -> None:
    order = torch.randperm(
        len(holdout_batch.request_of_C), generator=torch.Generator().manual_seed(0)
    )
    inputs = {name: getattr(holdout_batch, name) for name in VARYING_AXES}
    shuffled = {
        name: tensor[order] if VARYING_AXES[name] == (CANDIDATE,) else tensor
        for name, tensor in inputs.items()
    }
    found = predictor.probabilities(for_scoring(shuffled, holdout_batch.labels_CH.shape[1]))
    before = predictor.probabilities(holdout_batch)[order.numpy()]
    assert np.abs(found - before).max() < 1e-5
