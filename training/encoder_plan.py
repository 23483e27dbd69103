"""Which requests the encoder computes together, so that no time goes into padding.

Requests of similar length form a group; within it actions are packed to the front. Nothing here
changes a number that comes out. Not for the arithmetic: that is `training.encoder_layers`.

Letters: R requests, S actions per request, M candidates of a request (the group's most),
C candidates of all requests, K first_k.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GROUP_COST_TOKENS = 1000
"""What starting a group costs, in tokens (action by candidate) computed meanwhile: a group is
closed before its padding amounts to more."""
MAX_GROUP_TOKENS = 65536
"""Bounds a group's memory."""


class Tokens(NamedTuple):
    """The positions of each request that are worth computing, packed to the front."""

    position_RS: Tensor  # int64, index into the request's actions
    is_key_RS: Tensor  # bool, may be looked at; at least one per request
    num_pooled_R: Tensor  # int64, how many, from the front, take part in the max pool
    first_RK: Tensor  # int64, where the k-th newest action stands among the tokens; -1: zeros
    num_tokens_R: Tensor  # int64, tokens of a request up to its last key or pooled one


class Group(NamedTuple):
    """Requests to compute together, and their candidates side by side."""

    request_R: Tensor  # int64, rows of the batch's requests
    candidate_RM: Tensor  # int64, rows of the batch's candidates; the last repeated as filling
    is_candidate_RM: Tensor  # bool, False for filling
    num_tokens: int  # S of the group
    is_full: bool  # True if every request has that many tokens and all are keys


def visible_tokens(is_visible_RS: Tensor, first_k: int) -> Tokens:
    """Return the visible actions only: what is hidden is no key, no query and has no output."""
    num_visible_R = is_visible_RS.sum(dim=1)
    # stable: visible actions keep their order
    position_RS = torch.argsort((~is_visible_RS).to(torch.uint8), dim=1, stable=True)
    is_token_RS = up_to(num_visible_R, is_visible_RS.shape[1])
    rank_RS = (is_visible_RS.cumsum(dim=1) - 1).masked_fill(~is_visible_RS, -1)
    return Tokens(
        position_RS=position_RS,
        # A row without any key has no softmax: let it look at its first; it is not pooled.
        is_key_RS=is_token_RS | up_to((num_visible_R == 0).long(), is_visible_RS.shape[1]),
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
        is_key_RS=is_visible_RS | (positions_S == 0),
        num_pooled_R=num_tokens_R,
        first_RK=torch.minimum(positions_K, (num_tokens_R - 1)[:, None]),
        num_tokens_R=num_tokens_R,
    )


def plan_groups(tokens: Tokens, request_of_C: Tensor) -> list[Group]:
    """Return groups that hold every candidate exactly once; requests without any are left out.

    Args:
        tokens: of all requests of the batch.
        request_of_C: int64 [C], ascending.
    """
    count_R = torch.bincount(request_of_C, minlength=len(tokens.num_tokens_R))
    start_R = count_R.cumsum(0) - count_R
    wanted = torch.nonzero(count_R)[:, 0]
    # long ones first; among equals those of many candidates
    key = tokens.num_tokens_R[wanted] * (int(count_R.max()) + 1) + count_R[wanted]
    wanted = wanted[torch.argsort(key, descending=True, stable=True)]
    sizes = zip(tokens.num_tokens_R[wanted].tolist(), count_R[wanted].tolist(), strict=True)
    groups = []
    for part in torch.split(wanted, _group_sizes(list(sizes))):
        num_tokens = int(tokens.num_tokens_R[part].max())
        count, start = count_R[part], start_R[part]
        slot_M = torch.arange(int(count.max()), device=part.device)
        groups.append(
            Group(
                request_R=part,
                candidate_RM=start[:, None] + torch.minimum(slot_M, count[:, None] - 1),
                is_candidate_RM=slot_M < count[:, None],
                num_tokens=num_tokens,
                is_full=bool(tokens.is_key_RS[part, :num_tokens].all()),
            )
        )
    return groups


def _group_sizes(sizes: list[tuple[int, int]]) -> list[int]:
    """Return how many requests each group takes, the requests being (tokens, candidates).

    The first request of a group is its longest; the others are padded to it, and to the most
    candidates.
    """
    taken, used, longest, most = [0], 0, 0, 0
    for num_tokens, num_candidates in sizes:
        most_now = max(most, num_candidates)
        total = (taken[-1] + 1) * longest * most_now
        padding = total - used - num_tokens * num_candidates
        if taken[-1] and (padding > GROUP_COST_TOKENS or total > MAX_GROUP_TOKENS):
            taken.append(0)
            used, longest, most_now = 0, 0, num_candidates
        taken[-1] += 1
        used += num_tokens * num_candidates
        longest, most = max(longest, num_tokens), most_now
    return taken


def up_to(counts_R: Tensor, size: int) -> Tensor:
    """Return bool [R, size], True in the first counts places of a row."""
    return torch.arange(size, device=counts_R.device) < counts_R[:, None]


def _padded_to(rows_RK: Tensor, size: int, value: int) -> Tensor:
    missing = size - rows_RK.shape[1]
    return torch.nn.functional.pad(rows_RK, (0, missing), value=value) if missing else rows_RK
