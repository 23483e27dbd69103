"""The CPU kernel encodes where it can, and the plain layers elsewhere."""

import pytest
import torch

from support.small_encoder import encoder_inputs, small_encoder
from training.model.encoder import cpu


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
    encoder, calls = small_encoder(**changes).train(training), []
    assert cpu.supports(encoder.layers, torch.device(device), training) == expected
    if device == "cuda":
        return
    monkeypatch.setattr(cpu, "encode", lambda *_: calls.append("kernel"))  # None: it gives up
    found = encoder(**encoder_inputs([6]))
    assert bool(calls) == expected and len(found) == 2
