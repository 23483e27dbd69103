"""The weighted multi-head loss.

Not for metrics: the weights of the loss would make a metric's value hard to read.

Letters: R requests, C candidates, H heads, L labels (the heads, then 'impression').
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.contracts.config import IMPRESSION_ROW, FeatureConfig
from pipelines.contracts.errors import ConfigurationError
from training.data.batches import Batch


def label_weight_matrix(features: FeatureConfig) -> Tensor:
    """Return M, float32 [H, L], with L = H + 1; its last column is the weight of every impression.

    TransAct (Xia et al., 2023, section 3.4) weighs head h of an impression with
    w_h = sum_a M[h, a] y_a, where y_a says whether the impression has label a. Taken literally, an
    impression without any action would weigh nothing. So 'impression' is a label that every
    impression has. M[h, impression] is 1 and every other entry is 0 unless the configuration says
    otherwise.

    Raises:
        ConfigurationError: an entry names a head or a label that does not exist.
    """
    heads = list(features.head_names)
    labels = [*heads, IMPRESSION_ROW]
    matrix = torch.zeros(len(heads), len(labels))
    matrix[:, -1] = 1.0
    for entry in features.label_weights:
        if entry.head not in heads or entry.label not in labels:
            raise ConfigurationError(
                f"features.label_weights: found {entry.head!r} with {entry.label!r}; expected a "
                f"head and a label of {labels}; correct the recipe"
            )
        matrix[heads.index(entry.head), labels.index(entry.label)] = entry.weight
    return matrix


def weighted_loss(logits_CH: Tensor, batch: Batch, weights_HL: Tensor) -> Tensor:
    """Return this rank's share of the loss: the sum over its candidates / candidates of all ranks.

    The loss is L = 1/C sum_c w_user(c) sum_h w_h(c) BCE(logit_ch, y_ch), with
    w_h = sum_a M[h, a] y_a. The ranks' shares add up to the mean over all candidates, however the
    candidates are distributed over the ranks.

    Args:
        logits_CH: float32 [C, H].
        batch: its labels, user weights and global number of candidates are read.
        weights_HL: M, float32 [H, L].
    """
    is_impression_C1 = torch.ones_like(batch.labels_CH[:, :1])
    labels_CL = torch.cat([batch.labels_CH, is_impression_C1], dim=1)
    weights_CH = labels_CL @ weights_HL.T
    weights_CH = weights_CH * batch.user_weights_R[batch.request_of_C][:, None]
    losses_CH = F.binary_cross_entropy_with_logits(logits_CH, batch.labels_CH, reduction="none")
    return (weights_CH * losses_CH).sum() / batch.num_global_candidates
