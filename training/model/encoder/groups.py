"""Which requests the encoder computes together, so that little time goes into padding.

A group holds requests of similar length, and its tensors are as long as its longest request.
Grouping changes no output. Not for which positions are computed:
that is `training.model.encoder.tokens`.

Letters: R requests, S tokens of the group's longest request, M candidates of a request (the most
in the group), C candidates of all requests.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from training.model.encoder.tokens import Tokens

GROUP_COST_TOKENS = 1000
"""What starting one more group costs: as much time as computing this many pairs of a token and a
candidate. A group is closed before its padding costs more."""
PLAIN_PADDING_COST = 1.0
"""The plain layers compute padding like all else. The unit is the cost of computing a token."""
MAX_GROUP_TOKENS = 65536
"""The most pairs of a token and a candidate in a group, padding included. It bounds memory."""


class Group(NamedTuple):
    """Requests to compute together, and their candidates side by side."""

    request_R: Tensor  # int64, rows of the batch's requests
    candidate_RM: Tensor  # int64, rows of the batch's candidates; filling repeats a request's last
    is_candidate_RM: Tensor  # bool, False where filling
    num_tokens: int  # S
    is_full: bool  # True if every request has S tokens, each of which stands for one action


def plan_groups(tokens: Tokens, request_of_C: Tensor, padding_cost: float) -> list[Group]:
    """Return groups that hold every candidate once; requests without candidates are left out.

    Args:
        tokens: of all requests of the batch.
        request_of_C: int64 [C], ascending.
        padding_cost: as of `group_sizes`.
    """
    count_R = torch.bincount(request_of_C, minlength=len(tokens.num_tokens_R))
    start_R = count_R.cumsum(0) - count_R
    wanted = torch.nonzero(count_R)[:, 0]
    # from long to short, and requests of one length from many candidates to few
    key = tokens.num_tokens_R[wanted] * (int(count_R.max()) + 1) + count_R[wanted]
    wanted = wanted[torch.argsort(key, descending=True, stable=True)]
    lengths, counts = tokens.num_tokens_R[wanted].tolist(), count_R[wanted].tolist()
    sizes = list(zip(lengths, counts, strict=True))
    groups = []
    for requests in torch.split(wanted, group_sizes(sizes, padding_cost)):
        num_tokens = int(tokens.num_tokens_R[requests].max())
        count, start = count_R[requests], start_R[requests]
        slot_M = torch.arange(int(count.max()), device=requests.device)
        groups.append(
            Group(
                request_R=requests,
                candidate_RM=start[:, None] + torch.minimum(slot_M, count[:, None] - 1),
                is_candidate_RM=slot_M < count[:, None],
                num_tokens=num_tokens,
                is_full=bool((tokens.count_RS[requests, :num_tokens] == 1).all()),
            )
        )
    return groups


def group_sizes(sizes: list[tuple[int, int]], padding_cost: float) -> list[int]:
    """Return how many requests each group takes.

    All requests of a group are padded to its longest, which is its first, and to the most
    candidates that one of them has.

    Args:
        sizes: tokens and candidates of each request, from long to short.
        padding_cost: what a token costs by which a request is padded to the longest of its group,
            as a share of computing a token.
    """
    closed: list[int] = []
    num_requests = num_tokens = num_pairs = longest = most = 0  # of the group, without padding
    for own_tokens, own_candidates in sizes:
        # A pair is a token and a candidate that looks at it.
        pairs = own_tokens * own_candidates
        num_tokens, num_pairs = num_tokens + own_tokens, num_pairs + pairs
        longest, most = max(longest, own_tokens), max(most, own_candidates)
        # A filling candidate costs as much as a real one; a padding token costs `padding_cost`.
        num_filling_pairs = num_tokens * most - num_pairs
        num_padding_tokens = (num_requests + 1) * longest - num_tokens
        cost = num_filling_pairs + num_padding_tokens * most * padding_cost
        is_large = (num_requests + 1) * longest * most > MAX_GROUP_TOKENS
        if num_requests and (cost > GROUP_COST_TOKENS or is_large):
            closed.append(num_requests)
            num_requests, num_tokens, num_pairs = 0, own_tokens, pairs
            longest, most = own_tokens, own_candidates
        num_requests += 1
    return [*closed, num_requests]
