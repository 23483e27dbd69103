"""What a model was not trained for is refused, and the message says what to change."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor
from torch.nn.functional import pad

from pipelines.contracts.errors import DataContractError
from training.bundle.files import Predictor, read_golden
from training.data.batches import MODEL_INPUTS, for_scoring
from training.data.data_module import HomefeedDataModule
from training.data.input_checks import check_inputs

Inputs = dict[str, Tensor]
Spoil = Callable[[Tensor], Tensor]


@pytest.fixture
def inputs(trained) -> Inputs:
    golden, _ = read_golden(Path(trained[1].bundle_dir), 3)
    return {name: getattr(golden, name).clone() for name in MODEL_INPUTS}


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("action_types_RS", lambda types: pad(types, (0, 50)), r"at most 12 \(model.max_actions\)"),
        (
            "action_types_RS",
            lambda types: types + 95 * (types == 1),
            r"ids \[96.*\] in action_types_RS; expected 0 \(padding\) .. 4",
        ),
        ("action_types_RS", lambda types: types.flip(1), "padding .* at the end of a row"),
        (
            "candidate_pins_CE",
            lambda pins: pins / 0,
            r"have \d+ numbers in candidate_pins_CE that are not finite",
        ),
        ("request_of_C", lambda requests: requests.flip(0), "does not ascend"),
        ("users_RE", None, r"\['users_RE'\] are missing"),
    ],
)
def test_inputs_that_cannot_be_scored_are_refused(
    predictor: Predictor, inputs: Inputs, name: str, spoil: Spoil | None, says: str
) -> None:
    config, found = predictor.config, inputs.pop(name)
    check_inputs(inputs | {name: found}, config.features, config.model)
    spoiled = inputs | ({name: spoil(found)} if spoil else {})
    with pytest.raises(DataContractError, match=says):
        check_inputs(spoiled, config.features, config.model)


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
