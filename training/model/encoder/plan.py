"""Which requests the encoder computes together, so that no time goes into padding.

Requests of similar length form a group; within it actions are packed to the front. Nothing here
changes a number that comes out. Not for the arithmetic: that is `training.model.encoder.layer`.

Letters: R requests, S actions per request, M candidates of a request (the group's most),
C candidates of all requests, K first_k.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GROUP_COST_TOKENS = 1000
"""What starting a group costs, in tokens (action by candidate) computed meanwhile: a group is
closed before its padding amounts to more."""
COST_OF_PARTS = 0.2
"""What a request's padding to the group's longest costs, as a share of computing it, where its
candidates go through the layers in parts, each as long as its own longest."""
MAX_GROUP_TOKENS = 65536
"""Bounds a group's memory."""


class Tokens(NamedTuple):
    """The positions of each request that are worth computing, packed to the front."""

    position_RS: Tensor  # int64, index into the request's actions
    count_RS: Tensor  # int64, actions that it is looked at for, 0: none; at least one per request
    num_pooled_R: Tensor  # int64, how many, from the front, take part in the max pool
    first_RK: Tensor  # int64, where the k-th newest action stands among the tokens; -1: zeros
    num_tokens_R: Tensor  # int64, tokens of a request up to its last key or pooled one


class Group(NamedTuple):
    """Requests to compute together, and their candidates side by side."""

    request_R: Tensor  # int64, rows of the batch's requests
    candidate_RM: Tensor  # int64, rows of the batch's candidates; the last repeated as filling
    is_candidate_RM: Tensor  # bool, False for filling
    num_tokens: int  # S of the group
    is_full: bool  # True if every request has that many tokens, each looked at for one action


def visible_tokens(is_visible_RS: Tensor, first_k: int) -> Tokens:
    """Return the visible actions only: what is hidden is no key, no query and has no output."""
    num_visible_R = is_visible_RS.sum(dim=1)
    # stable: visible actions keep their order
    position_RS = torch.argsort((~is_visible_RS).to(torch.uint8), dim=1, stable=True)
    rank_RS = (is_visible_RS.cumsum(dim=1) - 1).masked_fill(~is_visible_RS, -1)
    return Tokens(
        position_RS=position_RS,
        # A row without any key has no softmax: let it look at its first; it is not pooled.
        count_RS=up_to(num_visible_R.clamp(min=1), is_visible_RS.shape[1]).long(),
        num_pooled_R=num_visible_R,
        first_RK=_padded_to(rank_RS[:, :first_k], first_k, -1),
        num_tokens_R=num_visible_R.clamp(min=1),
    )


def reference_tokens(
    is_action_RS: Tensor, is_visible_RS: Tensor, first_k: int, max_actions: int
) -> Tokens:
    """Return the tokens of the published encoder: hidden actions and padding have outputs too.

    All padding of a request is one and the same token (there is no positional encoding), so a
    single one stands for all of it. Position 0 is always a key, padding or not.

    Args:
        is_action_RS: bool [R, S], False where padded; with room for one padded position if any
            request is shorter than max_actions.
        is_visible_RS: bool [R, S], False where padded or hidden by the mask.
        first_k: K.
        max_actions: the length to which the published encoder pads.
    """
    num_actions_R = is_action_RS.sum(dim=1)
    num_tokens_R = (num_actions_R + 1).clamp(max=max_actions)
    size = is_action_RS.shape[1]
    positions_S = torch.arange(size, device=is_action_RS.device)
    positions_K = torch.arange(first_k, device=is_action_RS.device)
    return Tokens(
        position_RS=positions_S.expand(len(num_actions_R), -1),
        count_RS=(is_visible_RS | (positions_S == 0)).long(),
        num_pooled_R=num_tokens_R,
        first_RK=torch.minimum(positions_K, (num_tokens_R - 1)[:, None]),
        num_tokens_R=num_tokens_R,
    )


def merge_equal(tokens: Tokens, identity_RS: Tensor, sequence_RSd: Tensor) -> Tokens:
    """Return tokens that are all different: equal ones are one, looked at as often as they are.

    Without positional encoding equal actions have equal outputs, and the softmax weighs them alike:
    n exp(s) = exp(s + log n).

    Args:
        tokens: of the requests.
        identity_RS: int64, for each position of a request's actions; only those of equal numbers
            are compared.
        sequence_RSd: float, what the encoder is given of each action; only equal rows are merged.
    """
    size = tokens.position_RS.shape[1]
    place_S = torch.arange(size, device=identity_RS.device)
    is_token_RS = up_to(tokens.num_tokens_R, size)
    # what is no token is like nothing else
    identity_RS = identity_RS.gather(1, tokens.position_RS).where(is_token_RS, -1 - place_S)
    sorted_RS, order_RS = identity_RS.sort(dim=1, stable=True)
    is_first_RS = torch.ones_like(is_token_RS)
    place_RS = tokens.position_RS.gather(1, order_RS)
    rows_RSd = sequence_RSd.gather(1, place_RS[:, :, None].expand_as(sequence_RSd))
    is_first_RS[:, 1:] = (sorted_RS[:, 1:] != sorted_RS[:, :-1]) | (
        rows_RSd[:, 1:] != rows_RSd[:, :-1]
    ).any(dim=2)
    start_RS = (place_S * is_first_RS).cummax(dim=1).values
    # stable: the first of its equals is the newest
    newest_RS = torch.empty_like(order_RS).scatter_(1, order_RS, order_RS.gather(1, start_RS))
    is_newest_RS = (newest_RS == place_S) & is_token_RS
    count_RS = torch.zeros_like(tokens.count_RS).scatter_add_(1, newest_RS, tokens.count_RS)
    kept_RS = torch.argsort((~is_newest_RS).to(torch.uint8), dim=1, stable=True)
    rank_RS = is_newest_RS.cumsum(dim=1) - 1
    first_RK = rank_RS.gather(1, newest_RS.gather(1, tokens.first_RK.clamp(min=0)))
    return Tokens(
        position_RS=tokens.position_RS.gather(1, kept_RS),
        count_RS=count_RS.gather(1, kept_RS),
        num_pooled_R=(is_newest_RS & up_to(tokens.num_pooled_R, size)).sum(dim=1),
        first_RK=first_RK.where(tokens.first_RK >= 0, -1),
        num_tokens_R=is_newest_RS.sum(dim=1),
    )


def plan_groups(tokens: Tokens, request_of_C: Tensor, cost_of_length: float) -> list[Group]:
    """Return groups that hold every candidate exactly once; requests without any are left out.

    Args:
        tokens: of all requests of the batch.
        request_of_C: int64 [C], ascending.
        cost_of_length: what padding to the group's longest request costs: `COST_OF_PARTS`, or 1.
    """
    count_R = torch.bincount(request_of_C, minlength=len(tokens.num_tokens_R))
    start_R = count_R.cumsum(0) - count_R
    wanted = torch.nonzero(count_R)[:, 0]
    # long ones first; among equals those of many candidates
    key = tokens.num_tokens_R[wanted] * (int(count_R.max()) + 1) + count_R[wanted]
    wanted = wanted[torch.argsort(key, descending=True, stable=True)]
    sizes = zip(tokens.num_tokens_R[wanted].tolist(), count_R[wanted].tolist(), strict=True)
    groups = []
    for part in torch.split(wanted, group_sizes(list(sizes), cost_of_length)):
        num_tokens = int(tokens.num_tokens_R[part].max())
        count, start = count_R[part], start_R[part]
        slot_M = torch.arange(int(count.max()), device=part.device)
        groups.append(
            Group(
                request_R=part,
                candidate_RM=start[:, None] + torch.minimum(slot_M, count[:, None] - 1),
                is_candidate_RM=slot_M < count[:, None],
                num_tokens=num_tokens,
                is_full=bool((tokens.count_RS[part, :num_tokens] == 1).all()),
            )
        )
    return groups


def group_sizes(sizes: list[tuple[int, int]], cost_of_length: float) -> list[int]:
    """Return how many requests each group takes, the requests being (tokens, candidates).

    The first request of a group is its longest; the others are padded to it, and to the most
    candidates, `most`.
    """
    taken, total, used, longest, most = [0], 0, 0, 0, 0
    for num_tokens, num_candidates in sizes:
        longest, most = max(longest, num_tokens), max(most, num_candidates)
        total, used = total + num_tokens, used + num_tokens * num_candidates
        size = (taken[-1] + 1) * longest
        padding = total * most - used + (size - total) * most * cost_of_length
        if taken[-1] and (padding > GROUP_COST_TOKENS or size * most > MAX_GROUP_TOKENS):
            taken.append(0)
            total, used = num_tokens, num_tokens * num_candidates
            longest, most = num_tokens, num_candidates
        taken[-1] += 1
    return taken


def up_to(counts_R: Tensor, size: int) -> Tensor:
    """Return bool [R, size], True in the first counts places of a row."""
    return torch.arange(size, device=counts_R.device) < counts_R[:, None]


def _padded_to(rows_RK: Tensor, size: int, value: int) -> Tensor:
    missing = size - rows_RK.shape[1]
    return torch.nn.functional.pad(rows_RK, (0, missing), value=value) if missing else rows_RK
