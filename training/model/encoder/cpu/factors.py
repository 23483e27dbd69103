"""The first layer's attention as factors, most of which a request's candidates share.

A token of the first layer is [sequence, candidate], so a query is the sum of a part that all
candidates share and a part of the candidate's own. exp(score) is then a product: one factor of the
query's shared part and the key, the same for all candidates, and one factor of the candidate and
the key, the same for all queries. So the softmax's exponentials and its [S, S] matrix are made once
per request and not once per candidate. Not for what is done with the factors: that is
`training.model.encoder.cpu.shared_attention`. Tested in
tests/training/model/encoder/cpu/test_door.py and test_layer_stack.py.

Letters: R requests, S tokens, M candidates of a request, D token width, d sequence channels (action
type and pin), E pin embedding.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from training.model.encoder.cpu.parameters import attention_parameters
from training.model.encoder.layer import TransformerLayer

MAX_EXPONENT_RANGE = 60.0
"""Largest spread of a candidate's own scores for which exp(score) is split into two factors. The
smallest sum of a softmax is then exp(-60), far above float32's smallest number, so that no weight
that matters becomes 0."""


class Factors(NamedTuple):
    """What the first layer's attention averages, its weights, and the tokens it is added to."""

    by_query_RSS: Tensor  # factor of exp(score) for each query and key
    by_candidate_RMS: Tensor  # factor of exp(score) for each candidate and key
    value_RSD: Tensor  # part of a value that the candidates share
    own_value_RMD: Tensor  # part of a value that is a candidate's own
    sequence_RSd: Tensor
    candidates_RME: Tensor


def attention_factors(
    layer: TransformerLayer,
    sequence_RSd: Tensor,
    candidates_RME: Tensor,
    log_count_RS: Tensor | None,
) -> Factors | None:
    """Return the factors, or None where a candidate's scores spread over MAX_EXPONENT_RANGE.

    Args:
        layer: the first layer, with one head.
        sequence_RSd: float [R, S, d], R at least 1.
        candidates_RME: float [R, M, E], with d + E = D.
        log_count_RS: float [R, S], as of `TokenRoles`.
    """
    num_shared = sequence_RSd.shape[2]
    parameters = attention_parameters(layer)
    query_w, value_w = parameters.query_w_DD, parameters.value_w_DD
    query_RSd = F.linear(sequence_RSd, query_w[:num_shared, :num_shared])
    own_query_RMd = F.linear(
        candidates_RME, query_w[:num_shared, num_shared:], parameters.query_b_D[:num_shared]
    )
    shared_RSS = query_RSd @ sequence_RSd.transpose(1, 2)
    own_RMS = own_query_RMd @ sequence_RSd.transpose(1, 2)
    if log_count_RS is not None:
        shared_RSS = shared_RSS.masked_fill(log_count_RS[:, None].isneginf(), float("-inf"))
        own_RMS = own_RMS + log_count_RS[:, None]
    highest_RM1 = own_RMS.detach().amax(2, keepdim=True)
    lowest = own_RMS.detach().masked_fill(own_RMS.isinf(), float("inf"))
    if (highest_RM1 - lowest).max() > MAX_EXPONENT_RANGE:
        return None
    # Any number may be taken off the exponents: the softmax's quotient cancels it.
    return Factors(
        by_query_RSS=(shared_RSS - shared_RSS.detach().amax(2, keepdim=True)).exp(),
        by_candidate_RMS=(own_RMS - highest_RM1).exp(),
        value_RSD=F.linear(sequence_RSd, value_w[:, :num_shared]),
        own_value_RMD=F.linear(candidates_RME, value_w[:, num_shared:], parameters.value_b_D),
        sequence_RSd=sequence_RSd,
        candidates_RME=candidates_RME,
    )
