"""Blocks hold every sequence once, and about as many rows as a cache holds."""

import pytest
import torch

from training.model.encoder.cpu.blocks import make_blocks


@pytest.mark.parametrize("num_candidates", [1, 3, 19, 30])
@pytest.mark.parametrize("num_tokens", [[1], [60, 60, 59, 30, 30, 2, 1], [900, 900, 800], [5] * 99])
def test_blocks_hold_every_sequence_once_and_few_rows(
    num_tokens: list[int], num_candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.model.encoder.cpu.blocks.BLOCK_ROWS", 1000)
    times = torch.zeros(len(num_tokens), num_candidates)
    log_count = torch.where(torch.rand(len(num_tokens), max(num_tokens)) < 0.5, 0.0, -torch.inf)
    for block in make_blocks(num_candidates, num_tokens, log_count):
        times[block.requests, block.candidates] += 1
        chosen = times[block.requests, block.candidates]
        longest = max(num_tokens[block.requests])
        assert block.shape == (chosen.numel(), longest)
        assert block.shape.num_sequences <= 8 or block.shape.num_rows <= 1000
        expected = log_count[block.requests, :longest].repeat_interleave(chosen.shape[1], dim=0)
        assert expected.any() == (block.log_count_B1S is not None)
        assert block.log_count_B1S is None or torch.equal(block.log_count_B1S[:, 0], expected)
    assert (times == 1).all()
