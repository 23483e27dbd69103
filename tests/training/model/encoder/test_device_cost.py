"""A step of the encoder on a device against the public formulation's: operations and bytes."""

import pytest
import torch

from pipelines.contracts.config import ModelConfig
from support.device_cost import step_cost
from support.plain_encoder import PlainTransAct
from training.model.encoder.sequence_encoder import SequenceEncoder

NUM_TYPES, E, R, S = 5, 32, 32, 100


@pytest.mark.parametrize(
    ("num_candidates", "most_operations", "most_bytes"),
    [(1, 0.6, 1.5), (8, 0.6, 0.25), (30, 0.55, 0.1)],
)
def test_candidates_of_a_request_share_what_they_have_in_common(
    num_candidates: int, most_operations: float, most_bytes: float
) -> None:
    inputs = {
        "action_types_RS": torch.randint(1, NUM_TYPES + 1, (R, S)),
        "action_pins_RSE": torch.randn(R, S, E),
        "is_visible_RS": torch.ones(R, S, dtype=torch.bool),
        "candidate_pins_CE": torch.randn(R * num_candidates, E),
        "request_of_C": torch.arange(R).repeat_interleave(num_candidates),
    }
    config = ModelConfig(encoder_variant="reference")
    plain, ours = (
        step_cost(each(NUM_TYPES, E, config), inputs) for each in (PlainTransAct, SequenceEncoder)
    )
    assert ours[0] <= most_operations * plain[0]
    assert ours[1] <= most_bytes * plain[1]
