"""The CPU kernel encodes where it can, and the plain layers elsewhere."""

import pytest
import torch

from pipelines.contracts.config import ModelConfig
from training.model.encoder import cpu
from training.model.encoder.layer import TransformerLayer
from training.model.encoder.sequence_encoder import SequenceEncoder


@pytest.mark.parametrize(
    ("changes", "device", "training", "expected"),
    [
        ({}, "cpu", True, True),
        ({}, "cuda", True, False),
        ({"num_attention_heads": 2}, "cpu", False, False),
        ({"dropout": 0.1}, "cpu", True, False),
        ({"dropout": 0.1}, "cpu", False, True),
    ],
)
def test_the_kernel_encodes_where_it_can_and_the_plain_layers_elsewhere(
    monkeypatch: pytest.MonkeyPatch, changes: dict, device: str, training: bool, expected: bool
) -> None:
    small = {"action_embedding_dim": 4, "num_attention_heads": 1, "feedforward_dim": 6}
    config = ModelConfig(**(small | {"dropout": 0.0} | changes))
    layers = [TransformerLayer(20, config) for _ in range(2)]
    assert cpu.supports(layers, torch.device(device), training) == expected
    if device == "cuda":
        return
    encoder, calls = SequenceEncoder(4, 8, config).train(training), []
    monkeypatch.setattr(cpu, "encode", lambda *_: calls.append("kernel"))  # None: it gives up
    found = encoder(
        action_types_RS=torch.ones(2, 6, dtype=torch.int64),
        action_pins_RSE=torch.randn(2, 6, 8),
        is_visible_RS=torch.ones(2, 6, dtype=torch.bool),
        candidate_pins_CE=torch.randn(5, 8),
        request_of_C=torch.tensor([0, 0, 1, 1, 1]),
    )
    assert bool(calls) == expected and len(found) == 5
