"""Match features worked by hand."""

import math

import torch

from pipelines.contracts.time import DAY_MS
from training.data.batches import Batch, visible_actions
from training.model.matches import num_match_features, sequence_matches


def make_batch() -> Batch:
    """Request 0: pins 7, 8, 7 with types 1, 2, 1, aged 1, 2 and 3 days. Request 1: nothing."""
    pin_7, pin_8 = [1.0, 0.0], [0.6, 0.8]
    return Batch(**dict.fromkeys(Batch._fields))._replace(  # no more than these are read
        action_types_RS=torch.tensor([[1, 2, 1], [0, 0, 0]]),
        action_pin_keys_RS=torch.tensor([[7, 8, 7], [-1, -1, -1]]),
        action_pins_RSE=torch.tensor([[pin_7, pin_8, pin_7], [[0.0, 0.0]] * 3]),
        action_ages_ms_RS=torch.tensor([[1, 2, 3], [0, 0, 0]]) * DAY_MS,
        request_of_C=torch.tensor([0, 0, 1]),
        candidate_pin_keys_C=torch.tensor([7, 9, 7]),
        candidate_pins_CE=torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]]),
        window_fraction_R=torch.zeros(2),
    )


def test_by_hand() -> None:
    batch = make_batch()
    found = sequence_matches(batch, visible_actions(batch, 0), num_action_types=2)
    assert found.shape == (3, num_match_features(2))
    log3 = math.log(3)
    expected = [
        [1.0, (1.0 + 1.0 + 0.6) / 5, log3, 0.0, log3, math.exp(-1 / 14), 1.0],
        [0.8, 0.8 / 5, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0] * 7,
    ]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_a_hidden_action_is_not_counted() -> None:
    batch = make_batch()._replace(window_fraction_R=torch.tensor([0.5, 0.5]))
    visible = visible_actions(batch, time_window_mask_hours=96.0)  # T is two days
    assert visible.tolist() == [[False, True, True], [False] * 3]
    ahead = batch._replace(action_ages_ms_RS=-batch.action_ages_ms_RS)  # of the server's clock
    assert visible_actions(ahead, 0).tolist() == [[True] * 3, [False] * 3]
    found = sequence_matches(batch, visible, num_action_types=2)[0]
    log2 = math.log(2)
    expected = [1.0, (1.0 + 0.6) / 5, log2, 0.0, log2, math.exp(-3 / 14), 1 / 3]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-5)
