"""Which equal positions are merged, worked out by hand; `cpu/test_layer_stack.py` has the sums."""

import torch

from training.model.encoder.tokens import merge_equal, reference_tokens, visible_tokens


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


def test_hidden_equals_of_the_reference_have_an_output_and_do_not_count() -> None:
    is_action = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]).bool()
    is_visible = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 1, 1, 1]]).bool()
    keys = torch.tensor([[2, 2, 6, 8, 0], [3, 3, 3, 1, 1]])
    tokens = reference_tokens(is_action, is_visible, first_k=2, max_actions=5)
    found = merge_equal(tokens, keys, keys[:, :, None].float())
    assert found.num_tokens_R.tolist() == found.num_pooled_R.tolist() == [4, 2]
    assert found.position_RS[0, :4].tolist() == [0, 2, 3, 4]  # the last is padding
    assert found.position_RS[1, :2].tolist() == [0, 3]
    assert found.count_RS[0, :4].tolist() == [1, 1, 0, 0]
    assert found.count_RS[1, :2].tolist() == [3, 2]  # position 0 is a key, visible or not
    assert found.first_RK.tolist() == [[0, 0], [0, 0]]
