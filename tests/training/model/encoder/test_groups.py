"""Which requests the encoder computes together, worked out by hand."""

import torch

from training.model.encoder.groups import CPU_LIMITS, GroupLimits, group_sizes, plan_groups
from training.model.encoder.tokens import up_to, visible_tokens

LONG, SHORT, MANY = (100, 8), (17, 8), (100, 30)  # tokens, candidates


def test_groups_end_where_padding_would_cost_more_than_a_group() -> None:
    assert group_sizes([LONG] * 5 + [SHORT], CPU_LIMITS) == [6]
    assert group_sizes([LONG] * 5 + [SHORT] * 2, CPU_LIMITS) == [6, 1]
    assert group_sizes([MANY, LONG], CPU_LIMITS) == [1, 1]  # 22 candidates would be filling
    assert group_sizes([LONG] * 11, CPU_LIMITS) == [8, 3]  # most_pairs
    assert group_sizes([(900, 30)] * 2, CPU_LIMITS) == [1, 1]


def test_groups_hold_every_candidate_once_and_know_whether_they_are_full() -> None:
    limits = GroupLimits(most_padding=400, most_pairs=6_400)
    tokens = visible_tokens(up_to(torch.tensor([60, 0, 60, 60, 3]), 60), first_k=3)
    request_of_C = torch.tensor([0, 0, 2, 3, 3, 3, 3, 4])  # the second request has none
    full, short = plan_groups(tokens, request_of_C, limits)
    assert full.request_R.tolist() == [3, 0, 2] and full.num_tokens == 60 and full.is_full
    assert full.candidate_RM.tolist() == [[3, 4, 5, 6], [0, 1, 1, 1], [2, 2, 2, 2]]
    assert full.candidate_RM.flatten()[full.real_N].tolist() == [3, 4, 5, 6, 0, 1, 2]
    assert short.request_R.tolist() == [4] and short.candidate_RM.tolist() == [[7]]
    (none,) = plan_groups(tokens, request_of_C[:0], limits)
    assert none.request_R.shape == (0,) and none.candidate_RM.shape == (0, 1)


def test_an_appended_candidate_costs_one_token() -> None:
    tokens, request_of_C = visible_tokens(up_to(torch.full((9,), 60), 60), first_k=3), []
    for request in range(9):
        request_of_C += [request] * 30
    limits = GroupLimits(most_padding=400, most_pairs=5 * 90)
    for is_appended, sizes in ((True, [5, 4]), (False, [1] * 9)):
        found = plan_groups(tokens, torch.tensor(request_of_C), limits, is_appended)
        assert [len(group.request_R) for group in found] == sizes
