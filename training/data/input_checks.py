"""Refuses what a model was not trained for: inputs of a served model, features of a snapshot.

A tensor that is silently wrong costs more than an error: an unknown action type would read past the
table or pass for padding, a long sequence would be scored as no training ever saw one.

Letters: R requests, S actions, C candidates.
"""

from collections.abc import Mapping
from typing import Any

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
    num_types, longest, last = len(features.action_types), model.max_actions, len(types_RS) - 1
    is_padding_RS, steps_C = types_RS == 0, request_of_C.diff()
    others = types_RS[(types_RS < 0) | (types_RS > num_types)][:3].tolist()
    within_C = (request_of_C >= 0) & (request_of_C <= last)
    rules = [
        (
            types_RS.shape[1] <= longest,
            f"{types_RS.shape[1]} actions in a sequence; expected at most {longest} "
            f"(model.max_actions); give the newest {longest}, newest first",
        ),
        (
            not others,
            f"ids {others} in action_types_RS; expected 0 (padding) .. {num_types}; leave an "
            f"action out whose type the model does not know",
        ),
        (
            not (is_padding_RS[:, :-1] & ~is_padding_RS[:, 1:]).any(),
            "padding (0) before an action in action_types_RS; expected actions first, newest "
            "first, and padding at the end of a row",
        ),
        (
            (steps_C >= 0).all() and within_C.all(),
            f"a request_of_C that does not ascend within 0 .. {last}, such as "
            f"{request_of_C[:9].tolist()}; put candidates of a request together",
        ),
    ]
    rules += [
        (
            False,
            f"{int((~tensor.isfinite()).sum())} numbers in {name} that are not finite; expected "
            f"finite ones; check the embeddings that were looked up",
        )
        for name, tensor in inputs.items()
        if not tensor.isfinite().all()
    ]
    for is_met, found in rules:
        if not is_met:
            raise DataContractError(f"the inputs have {found}")


def require_meaning(
    snapshot: Snapshot, features: FeatureConfig, whose: str, more: Mapping[str, tuple[Any, Any]]
) -> None:
    """Refuse a snapshot whose codes and numbers stand for something else than is needed.

    Of the numeric features, those are found that are needed: a snapshot may have others too. An
    own function may have changed since a model was trained; it is scored by what there is now.

    Args:
        snapshot: The snapshot.
        features: What is needed.
        whose: Who needs it, for the message.
        more: What else is needed and was found, by the name of the property.

    Raises:
        DataContractError: of some property, something else was found than is needed.
    """
    held = {feature.as_asked for feature in snapshot.features.numeric_held}
    numeric = [feature for feature in features.numeric if feature.as_asked in held]
    pairs = {
        **more,
        "action types": (features.action_types, snapshot.features.action_types),
        "categorical features": (features.categorical, snapshot.features.categorical),
        "numeric features": ([f.label for f in features.numeric], [f.label for f in numeric]),
    }
    for what, (needed, found) in pairs.items():
        if needed != found:
            raise DataContractError(
                f"snapshot {snapshot.digest[:12]} has {what} {found}, but {whose} needs {needed}; "
                f"build a snapshot with its recipe, or train for this one"
            )
