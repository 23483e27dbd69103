"""What a model was not trained for is refused, and the message says what to change."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.contracts.errors import DataContractError
from training.bundle.files import Predictor, load_bundle, read_golden
from training.data.batches import MODEL_INPUTS, for_scoring
from training.data.data_module import HomefeedDataModule
from training.data.input_checks import check_inputs

Inputs = dict[str, Tensor]


@pytest.fixture(scope="module")
def predictor(trained) -> Predictor:
    return load_bundle(Path(trained[1].bundle_dir))


@pytest.fixture
def inputs(trained) -> Inputs:
    golden, _ = read_golden(Path(trained[1].bundle_dir), 3)
    return {name: getattr(golden, name).clone() for name in MODEL_INPUTS}


def longer(inputs: Inputs) -> None:
    inputs["action_types_RS"] = torch.nn.functional.pad(inputs["action_types_RS"], (0, 50))


def unknown_type(inputs: Inputs) -> None:
    inputs["action_types_RS"][-1, 0] = 99


def padding_first(inputs: Inputs) -> None:
    inputs["action_types_RS"][-1, 0] = 0


def not_finite(inputs: Inputs) -> None:
    inputs["candidate_pins_CE"][0, 0] = float("nan")


def out_of_order(inputs: Inputs) -> None:
    inputs["request_of_C"] = inputs["request_of_C"].flip(0)


def missing(inputs: Inputs) -> None:
    del inputs["users_RE"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (longer, r"expected at most 12 \(model.max_actions\)"),
        (unknown_type, r"ids 0 .. 99, expected 0 \(padding\) .. 4"),
        (padding_first, "padding .* at the end of a row"),
        (not_finite, "candidate_pins_CE holds 1 numbers that are not finite"),
        (out_of_order, "not ascending"),
        (missing, r"\['users_RE'\] are missing"),
    ],
)
def test_inputs_that_cannot_be_scored_are_refused(
    predictor: Predictor, inputs: Inputs, spoil: Callable[[Inputs], None], says: str
) -> None:
    config = predictor.config
    check_inputs(inputs, config.features, config.model)
    spoil(inputs)
    with pytest.raises(DataContractError, match=says):
        check_inputs(inputs, config.features, config.model)


def test_a_request_of_padding_alone_is_scored(predictor: Predictor, inputs: Inputs) -> None:
    inputs["action_types_RS"][:] = 0
    inputs["action_pins_RSE"][:] = 0
    check_inputs(inputs, predictor.config.features, predictor.config.model)
    found = predictor.probabilities(for_scoring(inputs, 3))
    assert np.isfinite(found).all() and ((found > 0) & (found < 1)).all()


def test_labels_of_other_heads_are_refused(planted) -> None:
    features = planted.config.features
    fewer = features.model_copy(update={"heads": features.heads[:2]})
    config = planted.config.model_copy(update={"features": fewer})
    with pytest.raises(DataContractError, match="heads .*save.* the recipe needs"):
        HomefeedDataModule(planted.snapshot, planted.folder, config)
