"""Loading the weights of the published TransAct module into the reference encoder.

It is github.com/pinterest/transformer_user_action. Row i of its embedding belongs to the i-th
smallest action type, so `features.action_types` has to list the types in that order. In the
published module padding shares row 0 with the smallest action type, and that row stays zero because
it is the embedding's padding_idx. Here padding has a row of its own, which stays zero too. It shows
that the reference encoder is the published one.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from training.model.encoder.sequence_encoder import SequenceEncoder

_OWN_NAMES = {
    "action_emb_module": "action_embedding",
    "transformer_encoder.": "",
    "self_attn.in_proj_": "query_key_value.",
    "self_attn.out_proj": "attention_out",
    "norm1": "attention_norm",
    "linear1": "feedforward_in",
    "linear2": "feedforward_out",
    "norm2": "feedforward_norm",
    "out_linear": "pool_linear",
}


def own_name(name: str) -> str:
    """Return what a parameter of the published module is called here."""
    for theirs, ours in _OWN_NAMES.items():
        name = name.replace(theirs, ours)
    return name


def load_public_weights(encoder: SequenceEncoder, published: Mapping[str, Tensor]) -> None:
    """Load a published state dict into a reference encoder of the same sizes."""
    state = {own_name(name): value for name, value in published.items()}
    state.pop("action_type_lookup", None)
    rows = state["action_embedding.weight"]
    state["action_embedding.weight"] = torch.cat([torch.zeros_like(rows[:1]), rows])
    encoder.load_state_dict(state)
