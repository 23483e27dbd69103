"""Which requests the encoder computes together, so that little time goes into padding.

A group holds requests of similar length, and its tensors are as long as its longest request.
Grouping changes no output. Groups are planned on the host, which would wait for a GPU's lengths.
Not for which positions are computed: that is `training.model.encoder.tokens`.

Letters: R requests, S tokens of the group's longest request, M candidates of a request (the most
in the group), N = R M, C candidates of all requests.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from training.model.encoder.tokens import Tokens, up_to


class GroupLimits(NamedTuple):
    """When a group is closed; the unit is a pair of a token and a candidate that looks at it."""

    most_padding: int  # It costs as much time as starting one more group.
    most_pairs: int  # Padding included. Activations of so many fit a CPU's caches, or a GPU.


CPU_LIMITS = GroupLimits(most_padding=1000, most_pairs=6_400)
GPU_LIMITS = GroupLimits(most_padding=50_000, most_pairs=400_000)
"""Not measured: a GPU is taken to start an operation as slowly as a CPU, and to compute 50 times as
fast."""


class Group(NamedTuple):
    """Requests to compute together, and their candidates side by side."""

    request_R: Tensor  # int64, rows of the batch's requests
    candidate_RM: Tensor  # int64, rows of the batch's candidates; filling repeats a request's last
    real_N: Tensor  # int64, which of the R M are not filling
    num_tokens: int  # S
    is_full: bool  # True if every request has S tokens, each of which stands for one action


def plan_groups(
    tokens: Tokens, request_of_C: Tensor, limits: GroupLimits, is_appended: bool = False
) -> list[Group]:
    """Return groups that hold every candidate once; requests without candidates are left out.

    Without candidates there is one group without requests.

    Args:
        tokens: of all requests of the batch, on the host.
        request_of_C: int64 [C], ascending, on the host.
        limits: when a group is closed.
        is_appended: candidates are tokens of their own, as of `layer.encode`.
    """
    is_none_RS = ~up_to(tokens.num_tokens_R, tokens.count_RS.shape[1])
    is_single_R = (is_none_RS | (tokens.count_RS == 1)).all(dim=1)
    num_tokens_R, count_R = tokens.num_tokens_R, torch.bincount(request_of_C)
    start_R = count_R.cumsum(0) - count_R
    wanted = torch.nonzero(count_R)[:, 0]
    # from long to short, and requests of one length from many candidates to few
    key = num_tokens_R[wanted] * (len(request_of_C) + 1) + count_R[wanted]
    wanted = wanted[torch.argsort(key, descending=True, stable=True)]
    sizes = list(zip(num_tokens_R[wanted].tolist(), count_R[wanted].tolist(), strict=True))
    groups, first = [], 0
    costs = [(sum(size), 1) for size in sizes] if is_appended else sizes
    for num_requests in group_sizes(costs, limits):
        requests, own = wanted[first : first + num_requests], sizes[first : first + num_requests]
        count_R1, start_R1 = count_R[requests, None], start_R[requests, None]
        slot_M = torch.arange(max((count for _, count in own), default=1))
        num_tokens = own[0][0] if own else 1
        groups.append(
            Group(
                request_R=requests,
                candidate_RM=start_R1 + torch.minimum(slot_M, count_R1 - 1),
                real_N=torch.nonzero((slot_M < count_R1).flatten())[:, 0],
                num_tokens=num_tokens,
                is_full=bool(((num_tokens_R == num_tokens) & is_single_R)[requests].all()),
            )
        )
        first += num_requests
    return groups


def group_sizes(sizes: list[tuple[int, int]], limits: GroupLimits) -> list[int]:
    """Return how many requests each group takes.

    All requests of a group are padded to its longest, which is its first, and to the most
    candidates that one of them has.

    Args:
        sizes: tokens and candidates of each request, from long to short.
        limits: when a group is closed.
    """
    closed: list[int] = []
    num_requests = num_pairs = longest = most = 0  # of the group
    for own_tokens, own_candidates in sizes:
        num_pairs += own_tokens * own_candidates
        longest, most = max(longest, own_tokens), max(most, own_candidates)
        num_computed = (num_requests + 1) * longest * most
        is_padded = num_computed - num_pairs > limits.most_padding
        if num_requests and (is_padded or num_computed > limits.most_pairs):
            closed.append(num_requests)
            num_requests, num_pairs = 0, own_tokens * own_candidates
            longest, most = own_tokens, own_candidates
        num_requests += 1
    return [*closed, num_requests]
