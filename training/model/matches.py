"""How a candidate matches the user's actions, counted rather than learnt.

These features stand beside the encoder's output and cost little: cosines between embeddings, and
exact matches of the pin. They have no parameters and no gradient. Not for the encoder itself: that
is `training.model.encoder.sequence_encoder`.

Letters: R requests, C candidates, S actions per request (newest first), E pin embedding,
T action types, M match features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.contracts.time import DAY_MS
from training.data.batches import Batch

NUM_TOP_COSINES = 5
RECENCY_DAYS = 14.0


def num_match_features(num_action_types: int) -> int:
    """Return M: two cosines, a log count per action type and one over all types, two recencies."""
    return 2 + num_action_types + 1 + 2


@torch.no_grad()
def sequence_matches(batch: Batch, is_visible_RS: Tensor, num_action_types: int) -> Tensor:
    """Return the match features, float32 [C, M], all zero for a request without visible actions.

    The features are, in this order: the best cosine; the mean of the five best cosines, where
    missing ones count as 0; log1p of the number of visible actions on this very pin, for each
    action type and then over all types; exp(-age / 14 days) of the newest of these actions;
    1 / (1 + the position of that action in the sequence).

    Args:
        batch: see `Batch`.
        is_visible_RS: bool [R, S], from `visible_actions`.
        num_action_types: T.
    """
    request_of_C = batch.request_of_C
    is_visible_CS = is_visible_RS[request_of_C]
    actions_RSE = F.normalize(batch.action_pins_RSE, dim=-1)
    candidates_CE1 = F.normalize(batch.candidate_pins_CE, dim=-1)[:, :, None]
    cosine_CS = torch.bmm(actions_RSE[request_of_C], candidates_CE1)[..., 0]
    cosine_CS = cosine_CS.masked_fill(~is_visible_CS, float("-inf"))
    top = cosine_CS.topk(min(NUM_TOP_COSINES, cosine_CS.shape[1]), dim=1).values
    top = torch.where(top.isinf(), 0.0, top)  # [C, <= 5]
    is_match_CS = batch.action_pin_keys_RS[request_of_C] == batch.candidate_pin_keys_C[:, None]
    is_match_CS &= is_visible_CS
    dtype = batch.candidate_pins_CE.dtype
    one_hot_RST = F.one_hot(batch.action_types_RS, num_action_types + 1)[..., 1:].to(dtype)
    counts_CT = torch.bmm(is_match_CS.to(dtype)[:, None], one_hot_RST[request_of_C])[:, 0]
    counts = torch.cat([counts_CT, is_match_CS.sum(1, keepdim=True)], dim=1)
    # Actions are newest first, so the first True is the newest match. argmax returns the first of
    # equal maxima.
    newest_C1 = is_match_CS.int().argmax(dim=1, keepdim=True)
    age_days_C1 = batch.action_ages_ms_RS[request_of_C].gather(1, newest_C1).float() / DAY_MS
    decays = torch.cat([torch.exp(-age_days_C1 / RECENCY_DAYS), 1.0 / (1.0 + newest_C1)], dim=1)
    return torch.cat(
        [
            top[:, :1],
            top.sum(dim=1, keepdim=True) / NUM_TOP_COSINES,
            counts.log1p(),
            decays.where(is_match_CS.any(dim=1, keepdim=True), 0.0),
        ],
        dim=1,
    )
