"""Which equal positions are merged, worked out by hand; `test_sequence_encoder.py` has the sums."""

import torch

from training.model.encoder.tokens import merge_equal, visible_tokens


def test_visible_equals_are_one_token_and_equal_keys_of_different_pins_are_not() -> None:
    is_visible = torch.tensor([[1, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
    # the first request's hidden action equals two visible ones and must not be counted with them
    keys = torch.tensor([[7, 7, 5, 7, 5, 9], [4, 4, 4, 0, 0, 0], [3, 3, 3, 0, 0, 0]])
    pins = keys[:, :, None] * torch.tensor([1.0, -0.5])
    pins[1, 0, 1] = 3.0
    found = merge_equal(visible_tokens(is_visible, first_k=3), keys, pins)
    sizes = found.num_tokens_R.tolist()
    assert sizes == [3, 2, 1]  # without visible actions, the first position, which is not pooled
    assert found.num_pooled_R.tolist() == [3, 2, 0]
    for each, expected in (
        (found.position_RS, [[0, 2, 5], [0, 1], [0]]),
        (found.count_RS, [[2, 2, 1], [1, 2], [1]]),
    ):
        assert [row[:size].tolist() for row, size in zip(each, sizes, strict=True)] == expected
    assert found.first_RK.tolist() == [[0, -1, 1], [0, 1, 1], [-1, -1, -1]]
