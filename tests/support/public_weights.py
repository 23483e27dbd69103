"""Loading the weights of the published TransAct module into the reference encoder.

The published names (github.com/pinterest/transformer_user_action) become these:

    action_emb_module.weight, row i                -> action_embedding.weight, row i + 1
    transformer_encoder.layers.N.
        self_attn.in_proj_weight, in_proj_bias     -> layers.N.query_key_value.weight, bias
        self_attn.out_proj.*                       -> layers.N.attention_out.*
        norm1.*, norm2.*                           -> layers.N.attention_norm.*, feedforward_norm.*
        linear1.*, linear2.*                       -> layers.N.feedforward_in.*, feedforward_out.*
    out_linear.*                                   -> pool_linear.*
    action_type_lookup                             -> nothing: a snapshot's ids are looked up before

Row i of the embedding belongs to the i-th smallest action type, so `features.action_types` has to
list the types in that order. In the published module padding shares row 0 with the smallest action
type, and that row stays zero because it is the embedding's padding_idx. Here padding has a row of
its own, which stays zero too. It shows that the reference encoder is the published one.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from training.model.encoder.sequence_encoder import SequenceEncoder

_LAYER_PARTS = {
    "self_attn.in_proj_weight": "query_key_value.weight",
    "self_attn.in_proj_bias": "query_key_value.bias",
    "self_attn.out_proj": "attention_out",
    "norm1": "attention_norm",
    "linear1": "feedforward_in",
    "linear2": "feedforward_out",
    "norm2": "feedforward_norm",
}
_LAYER_NAME = re.compile(r"transformer_encoder\.(layers\.\d+)\.(.+)")
_IGNORED = "action_type_lookup"


def load_public_weights(encoder: SequenceEncoder, published: Mapping[str, Tensor]) -> None:
    """Load a published state dict into a reference encoder of the same sizes."""
    state = {_own_name(name): value for name, value in published.items() if name != _IGNORED}
    rows = state["action_embedding.weight"]
    state["action_embedding.weight"] = torch.cat([torch.zeros_like(rows[:1]), rows])
    encoder.load_state_dict(state)


def _own_name(name: str) -> str:
    """Return what a published parameter is called in our encoder."""
    if name == "action_emb_module.weight":
        return "action_embedding.weight"
    if found := _LAYER_NAME.fullmatch(name):
        for theirs, ours in _LAYER_PARTS.items():
            if found[2] == theirs or found[2].startswith(f"{theirs}."):
                return f"{found[1]}.{ours}{found[2].removeprefix(theirs)}"
    return name.replace("out_linear", "pool_linear")
