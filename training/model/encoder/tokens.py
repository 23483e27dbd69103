"""Which positions of a user's history the encoder computes, and what each of them is used for.

A position that is worth computing is a token. Packing tokens to the front and merging equal ones
saves time and changes no output. Not for which requests are computed together: that is
`training.model.encoder.groups`. Not for the arithmetic: that is `training.model.encoder.layer`.

Letters: R requests, S actions per request, K first_k, d sequence channels (action type and pin).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Tokens(NamedTuple):
    """The positions of each request that are worth computing, packed to the front."""

    position_RS: Tensor  # int64, the position among the request's actions that a token is
    # int64, how many of the user's actions this token stands for; 0 means that it is hidden. At
    # least one token of every request stands for an action.
    count_RS: Tensor
    num_pooled_R: Tensor  # int64, how many tokens, from the front, the max pool is taken over
    first_RK: Tensor  # int64, which token is the k-th newest action; -1: its column is all zeros
    num_tokens_R: Tensor  # int64, how many tokens, from the front, have to be computed


class TokenRoles(NamedTuple):
    """What the layers use each token of a group of requests for."""

    # float, the logarithm of how many actions a token stands for, which is added to its attention
    # scores; -inf hides the token, which no request may have for all of its tokens. None means
    # that every token stands for one action and is pooled.
    log_count_RS: Tensor | None
    num_pooled_R: Tensor  # int64, as of `Tokens`, but at least one
    newest_RK: Tensor  # int64, which token is the k-th newest action, 0 where there is none


def visible_tokens(is_visible_RS: Tensor, first_k: int) -> Tokens:
    """Return the visible actions only: a hidden one is no key, no query and has no output."""
    num_visible_R = is_visible_RS.sum(dim=1)
    # stable: visible actions keep their order
    position_RS = torch.argsort((~is_visible_RS).to(torch.uint8), dim=1, stable=True)
    rank_RS = (is_visible_RS.cumsum(dim=1) - 1).masked_fill(~is_visible_RS, -1)
    missing = max(0, first_k - rank_RS.shape[1])
    return Tokens(
        position_RS=position_RS,
        # The softmax needs a key: a request without visible actions attends to its first position,
        # which is not pooled.
        count_RS=up_to(num_visible_R.clamp(min=1), is_visible_RS.shape[1]).long(),
        num_pooled_R=num_visible_R,
        first_RK=F.pad(rank_RS[:, :first_k], (0, missing), value=-1),
        num_tokens_R=num_visible_R.clamp(min=1),
    )


def reference_tokens(
    is_action_RS: Tensor, is_visible_RS: Tensor, first_k: int, max_actions: int
) -> Tokens:
    """Return the tokens of the published encoder: hidden actions and padding have outputs too.

    There is no positional encoding, so all padded positions of a request have the same output, and
    a single one of them stands for all. Position 0 is always a key, padding or not.

    Args:
        is_action_RS: bool [R, S], False where padded. If any request is shorter than max_actions,
            S leaves room for one padded position.
        is_visible_RS: bool [R, S], False where padded or hidden by the time-window mask.
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


def merge_equal(tokens: Tokens, identity_RS: Tensor, pins_RSE: Tensor) -> Tokens:
    """Return tokens of which no two are equal; each stands for all actions that were equal to it.

    Without positional encoding equal actions have equal outputs, and the softmax gives them equal
    weights: n exp(s) = exp(s + log n).

    Args:
        tokens: the tokens to merge.
        identity_RS: int64, a number for each position; only positions with the same number are
            compared.
        pins_RSE: float, the pin of each position; only equal rows are merged.
    """
    size = tokens.position_RS.shape[1]
    place_S = torch.arange(size, device=identity_RS.device)
    is_token_RS = up_to(tokens.num_tokens_R, size)
    # what is no token stands behind all tokens, so that it is never the first of its equals
    sorted_RS, order_RS = identity_RS.gather(1, tokens.position_RS).sort(dim=1, stable=True)
    is_first_RS = torch.ones_like(is_token_RS)
    place_RS = tokens.position_RS.gather(1, order_RS)
    rows_RSE = pins_RSE.gather(1, place_RS[:, :, None].expand_as(pins_RSE))
    is_first_RS[:, 1:] = (sorted_RS[:, 1:] != sorted_RS[:, :-1]) | (
        rows_RSE[:, 1:] != rows_RSE[:, :-1]
    ).any(dim=2)
    start_RS = (place_S * is_first_RS).cummax(dim=1).values
    # the sort is stable, so the first of equal actions is the newest of them
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


def up_to(counts_R: Tensor, size: int) -> Tensor:
    """Return bool [R, size], True in the first counts_R[r] places of row r."""
    return torch.arange(size, device=counts_R.device) < counts_R[:, None]
