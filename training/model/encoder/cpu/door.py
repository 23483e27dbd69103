"""The door of the CPU kernel: whether it can encode, and encoding.

`encode` gives what `training.model.encoder.layer.encode` gives, up to rounding, from the
same arguments. Not for the arithmetic: that begins in `training.model.encoder.cpu.layer_stack`.

Letters: R requests, S tokens, M candidates of a request, E pin embedding, D token width, d sequence
channels (action type and pin), K newest actions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.model.encoder.cpu.factors import attention_factors
from training.model.encoder.cpu.layer_stack import LayerStack
from training.model.encoder.cpu.parameters import attention_parameters, feed_forward_parameters
from training.model.encoder.layer import TransformerLayer
from training.model.encoder.tokens import TokenRoles

PADDING_COST = 0.2
"""What a token costs by which a request is padded to the longest of its group, as a share of
computing a token. It is small because sequences go through the layers in blocks, and a block is
only as long as its own longest request."""


def supports(layers: Sequence[TransformerLayer], device: torch.device, training: bool) -> bool:
    """Return whether `encode` computes these layers: on a CPU, with one head and no dropout.

    Code that is being compiled or exported is refused, as it cannot look at the requests' lengths.
    Tokens may be merged (`training.model.encoder.tokens.merge_equal`) where this returns True,
    as only dropout would tell equal actions apart.
    """
    has_dropout = training and any(layer.dropout.p > 0 for layer in layers)
    has_one_head = all(layer.num_heads == 1 for layer in layers)
    is_eager = not torch.compiler.is_compiling()
    return device.type == "cpu" and has_one_head and not has_dropout and is_eager


def encode(
    layers: Sequence[TransformerLayer],
    sequence_RSd: Tensor,
    candidates_RME: Tensor,
    roles: TokenRoles,
) -> Tensor | None:
    """Return the output columns of each candidate, float [R, M, 1 + K, D], or None.

    None means that the first layer's scores spread too far for its exponentials to be split into
    two factors (`training.model.encoder.cpu.factors`). The caller then takes the plain layers.

    Args:
        layers: which `supports` has accepted.
        sequence_RSd: float [R, S, d], R at least 1; requests from long to short.
        candidates_RME: float [R, M, E], with d + E = D.
        roles: what each token is used for.
    """
    is_autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if is_autocast else None
    first, *later = layers
    with torch.autocast("cpu", enabled=False):
        factors = attention_factors(first, sequence_RSd, candidates_RME, roles.log_count_RS)
        if factors is None:
            return None
        tensors = [*factors, *feed_forward_parameters(first)]
        for layer in later:
            tensors += [*attention_parameters(layer), *feed_forward_parameters(layer)]
        return LayerStack.apply(roles, dtype, torch.is_grad_enabled(), len(layers), *tensors)
