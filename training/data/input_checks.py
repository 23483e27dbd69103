"""Refuses what a model was not trained for: inputs of a served model, features of a snapshot.

A tensor that is silently wrong costs more than an error: an unknown action type would read past the
table or pass for padding, a long sequence would be scored as no training ever saw one.

Letters: R requests, S actions, C candidates.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import FeatureConfig, ModelConfig
from pipelines.contracts.errors import DataContractError
from training.data.batches import MODEL_INPUTS


def check_inputs(inputs: Mapping[str, Tensor], features: FeatureConfig, model: ModelConfig) -> None:
    """Refuse inputs that a bundle cannot score.

    Raises:
        DataContractError: an input is missing, a sequence is longer than in training, an action
            type is unknown, padding is not at the end, a number is not finite, or candidates do
            not belong to requests in order.
    """
    missing = [name for name in MODEL_INPUTS if name not in inputs]
    if missing:
        raise DataContractError(
            f"inputs {missing} are missing, found {sorted(inputs)}; expected {list(MODEL_INPUTS)}"
        )
    types_RS, request_of_C = inputs["action_types_RS"], inputs["request_of_C"]
    num_requests, num_actions = types_RS.shape
    if num_actions > model.max_actions:
        raise DataContractError(
            f"sequences have {num_actions} actions, expected at most {model.max_actions} "
            f"(model.max_actions); give the newest {model.max_actions}, newest first"
        )
    if types_RS.numel():
        low, high, num_types = int(types_RS.min()), int(types_RS.max()), len(features.action_types)
        if low < 0 or high > num_types:
            raise DataContractError(
                f"action_types_RS holds ids {low} .. {high}, expected 0 (padding) .. {num_types}; "
                f"an action type that the model does not know must be left out of the sequence"
            )
        if bool(((types_RS[:, :-1] == 0) & (types_RS[:, 1:] != 0)).any()):
            raise DataContractError(
                "action_types_RS has padding (0) before an action; expected actions first, newest "
                "first, and padding at the end of a row"
            )
    for name, tensor in inputs.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataContractError(
                f"{name} holds {int((~torch.isfinite(tensor)).sum())} numbers that are not finite; "
                f"expected finite ones; check the embeddings that were looked up"
            )
    is_ordered = bool((request_of_C.diff() >= 0).all())
    if len(request_of_C) and not (
        is_ordered and 0 <= int(request_of_C[0]) and int(request_of_C[-1]) < num_requests
    ):
        raise DataContractError(
            f"request_of_C must ascend within 0 .. {num_requests - 1}, found "
            f"{int(request_of_C.min())} .. {int(request_of_C.max())}"
            f"{'' if is_ordered else ', not ascending'}; put candidates of a request together"
        )


def check_features(snapshot: Snapshot, features: FeatureConfig) -> None:
    """Refuse to train on a snapshot whose labels and codes belong to other features.

    Raises:
        DataContractError: heads, action types or categorical features differ, or a numeric feature
            is missing.
    """
    pairs = {
        "heads": (features.head_names, snapshot.features.head_names),
        **meaning_of_codes(features, snapshot),
    }
    remedy = "build the snapshot with this recipe, or train with the snapshot's"
    refuse_difference(snapshot, pairs, "the recipe", remedy)


def meaning_of_codes(features: FeatureConfig, snapshot: Snapshot) -> dict[str, tuple[Any, Any]]:
    """Return (needed, found) of what says what a snapshot's codes and numbers stand for.

    Of the numeric features, those are found that are needed: a snapshot may have others too. An
    own function may have changed since a model was trained; it is scored by what there is now.
    """
    held = {feature.as_asked for feature in snapshot.features.numeric_held}
    return {
        "action types": (features.action_types, snapshot.features.action_types),
        "categorical features": (features.categorical, snapshot.features.categorical),
        "numeric features": (
            tuple(f.label for f in features.numeric),
            tuple(f.label for f in features.numeric if f.as_asked in held),
        ),
    }


def refuse_difference(
    snapshot: Snapshot, pairs: Mapping[str, tuple[Any, Any]], whose: str, remedy: str
) -> None:
    """Refuse a snapshot that has not what is needed.

    Args:
        snapshot: The snapshot, for the message.
        pairs: What is needed of it and what was found in it, by the name of the property.
        whose: Who needs it, for the message.
        remedy: What to change, for the message.

    Raises:
        DataContractError: of some property, something else was found than is needed.
    """
    for what, (needed, found) in pairs.items():
        if needed != found:
            raise DataContractError(
                f"snapshot {snapshot.digest[:12]} has {what} {found}, but {whose} needs {needed}; "
                f"{remedy}"
            )
