"""Which positions the encoder computes and how equal ones are merged, worked out by hand."""

import torch

from training.model.encoder.tokens import Tokens, merge_equal, reference_tokens, visible_tokens


def rows(*numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers)


def sequence_of(identity_RS: torch.Tensor) -> torch.Tensor:
    return identity_RS[:, :, None] * torch.tensor([1.0, -0.5])


def merged(tokens: Tokens, identity_RS: torch.Tensor) -> list[list[list[int]]]:
    """Return, per request, positions and counts of what is computed, and the newest's places."""
    found = merge_equal(tokens, identity_RS, sequence_of(identity_RS))
    return [
        [
            found.position_RS[r, :size].tolist(),
            found.count_RS[r, :size].tolist(),
            found.first_RK[r].tolist(),
        ]
        for r, size in enumerate(found.num_tokens_R.tolist())
    ]


def test_visible_equals_are_one_token() -> None:
    is_visible = rows([1, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]).bool()
    # the first request's hidden action equals two visible ones and must not be counted with them
    identity = rows([7, 7, 5, 7, 5, 9], [4, 4, 0, 0, 0, 0], [3, 3, 3, 0, 0, 0])
    tokens = visible_tokens(is_visible, first_k=3)
    assert merged(tokens, identity) == [
        [[0, 2, 5], [2, 2, 1], [0, -1, 1]],
        [[0], [2], [0, 0, -1]],
        [[0], [1], [-1, -1, -1]],  # attends to its first position, which is not pooled
    ]
    assert merge_equal(tokens, identity, sequence_of(identity)).num_pooled_R.tolist() == [3, 1, 0]


def test_reference_hidden_equals_have_an_output_and_do_not_count() -> None:
    is_action = rows([1, 1, 1, 1, 0], [1, 1, 1, 1, 1]).bool()
    is_visible = rows([1, 0, 1, 0, 0], [0, 1, 1, 1, 1]).bool()
    identity = rows([2, 2, 6, 8, 0], [3, 3, 3, 1, 1])
    tokens = reference_tokens(is_action, is_visible, first_k=2, max_actions=5)
    assert merged(tokens, identity) == [
        [[0, 2, 3, 4], [1, 1, 0, 0], [0, 0]],  # the last is padding
        [[0, 3], [3, 2], [0, 0]],  # position 0 is a key, visible or not
    ]
    assert merge_equal(tokens, identity, sequence_of(identity)).num_pooled_R.tolist() == [4, 2]


def test_equal_keys_of_different_pins_merge_nothing() -> None:
    tokens = visible_tokens(rows([1, 1, 1]).bool(), first_k=2)
    sequence = torch.tensor([[[1.0, 2.0], [1.0, 3.0], [1.0, 3.0]]])
    found = merge_equal(tokens, rows([0, 0, 0]), sequence)
    assert found.num_tokens_R.tolist() == [2]
    assert found.count_RS[0, :2].tolist() == [1, 2]
    assert found.first_RK.tolist() == [[0, 1]]
