"""What a model is given: a batch, with nothing that a model should not see, and its scales.

Not for how batches are made (`training.data.reader`) nor for their order
(`training.data.data_module`).

Letters: R requests, C candidates of all requests, S actions per request (the batch's longest),
E pin embedding, G categorical features, N numeric inputs, H heads.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipelines.contracts.time import HOUR_MS


class Batch(NamedTuple):
    """Tensors of one rank's share of a global batch; a request may be shared by two ranks.

    Candidates of a request stand together, requests in order. Actions are newest first; padding is
    at the end of a row and has action type 0, pin key -1, embedding 0 and age 0. A request without
    actions is a row of padding; S is at least 1.
    """

    action_types_RS: Tensor  # int64, 1.. per the vocabulary, 0 pads
    action_pin_keys_RS: Tensor  # int64, equal keys are the same pin; -1 pads
    action_pins_RSE: Tensor  # float32
    action_ages_ms_RS: Tensor  # int64, request time minus action time, >= 0
    users_RE: Tensor  # float32
    request_of_C: Tensor  # int64, row among the R requests
    candidate_pin_keys_C: Tensor  # int64
    candidate_pins_CE: Tensor  # float32
    categorical_CG: Tensor  # int64 codes in the order of FeatureConfig.categorical; 0 is unknown
    numeric_CN: Tensor  # float32 in the order of FeatureConfig.numeric_inputs
    labels_CH: Tensor  # float32, 0 or 1; all 0 where there is nothing to learn from
    user_weights_R: Tensor  # float32; 0 leaves a request out of the loss
    window_fraction_R: Tensor  # float32 in [0, 1): T = fraction * time_window_mask_hours
    num_global_candidates: Tensor  # float32 scalar: candidates over all ranks


REQUEST, CANDIDATE, ACTION = "request", "candidate", "action"

VARYING_AXES = {
    "action_types_RS": (REQUEST, ACTION),
    "action_pin_keys_RS": (REQUEST, ACTION),
    "action_pins_RSE": (REQUEST, ACTION),
    "action_ages_ms_RS": (REQUEST, ACTION),
    "users_RE": (REQUEST,),
    "request_of_C": (CANDIDATE,),
    "candidate_pin_keys_C": (CANDIDATE,),
    "candidate_pins_CE": (CANDIDATE,),
    "categorical_CG": (CANDIDATE,),
    "numeric_CN": (CANDIDATE,),
}
"""What the leading axes of each model input count. Their lengths differ from batch to batch; the
axes after them have the lengths that the model was built with."""

MODEL_INPUTS = tuple(VARYING_AXES)
"""The fields that a score depends on; the others exist for training."""


def for_scoring(inputs: dict[str, Tensor], num_heads: int) -> Batch:
    """Return a batch from the model's inputs alone, with empty labels and no mask."""
    num_requests = inputs["action_types_RS"].shape[0]
    num_candidates = inputs["request_of_C"].shape[0]
    return Batch(
        **{name: inputs[name] for name in MODEL_INPUTS},
        labels_CH=torch.zeros(num_candidates, num_heads),
        user_weights_R=torch.ones(num_requests),
        window_fraction_R=torch.zeros(num_requests),
        num_global_candidates=torch.tensor(float(num_candidates)),
    )


def visible_actions(batch: Batch, time_window_mask_hours: float) -> Tensor:
    """Return which actions the model may look at, bool [R, S].

    Args:
        batch: the batch.
        time_window_mask_hours: hides actions younger than T = window_fraction_R * this, so that a
            model does not learn to repeat the last minutes (TransAct, section 3.3). For training
            only: pass 0 to hide nothing.
    """
    is_action_RS = batch.action_types_RS > 0
    if time_window_mask_hours == 0:  # A client's clock may be ahead, so that ages are negative.
        return is_action_RS
    window_ms_R1 = batch.window_fraction_R[:, None] * (time_window_mask_hours * HOUR_MS)
    return is_action_RS & (batch.action_ages_ms_RS >= window_ms_R1)


@dataclass(frozen=True)
class FeatureStatistics:
    """Scales of the training rows, by which a model divides. N numeric inputs, H heads."""

    numeric_mean_N: np.ndarray
    numeric_scale_N: np.ndarray  # standard deviations, 1 where an input is constant
    pin_scale: float  # 1 / root mean square of an embedding's components
    user_scale: float
    head_rates_H: np.ndarray  # share of positives, in (0, 1)
