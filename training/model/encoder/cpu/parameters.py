"""A layer's parameters in the form in which the CPU kernel multiplies by them.

Tested in tests/training/model/encoder/cpu/test_door.py and test_layer_stack.py.

Letters: D token width, F feed-forward width.
"""

from typing import NamedTuple

from torch import Tensor

from training.model.encoder.layer import TransformerLayer


class AttentionParameters(NamedTuple):
    """Attention with one head, its four matrices multiplied into two."""

    query_w_DD: Tensor
    query_b_D: Tensor
    value_w_DD: Tensor
    value_b_D: Tensor


class FeedForwardParameters(NamedTuple):
    """The norm after attention, the feed-forward branch and the norm after it."""

    norm_w_D: Tensor
    norm_b_D: Tensor
    in_w_FD: Tensor
    in_b_F: Tensor
    out_w_DF: Tensor
    out_b_D: Tensor
    last_norm_w_D: Tensor
    last_norm_b_D: Tensor


def attention_parameters(layer: TransformerLayer) -> AttentionParameters:
    """Return matrices such that x' (query of y) is a score and a value is what attention adds.

    With one head, the key matrix is multiplied into the query matrix and the output projection into
    the value matrix once per step, which saves two products per token.
    A score is (Wq y + bq) . (Wk x + bk) = (Wk' Wq y + Wk' bq) . x + a number that is the same for
    all x, which the softmax cancels. The softmax's weights p_x sum to 1, so
    Wo sum_x p_x (Wv x + bv) + bo = sum_x p_x (Wo Wv x + Wo bv + bo).
    """
    query_w, key_w, value_w = layer.query_key_value.weight.chunk(3)
    query_b, _, value_b = layer.query_key_value.bias.chunk(3)
    out_w, out_b = layer.attention_out.weight, layer.attention_out.bias
    scaled_key_w = key_w * layer.width**-0.5
    return AttentionParameters(
        query_w_DD=scaled_key_w.T @ query_w,
        query_b_D=query_b @ scaled_key_w,
        value_w_DD=out_w @ value_w,
        value_b_D=out_w @ value_b + out_b,
    )


def feed_forward_parameters(layer: TransformerLayer) -> FeedForwardParameters:
    """Return the layer's other parameters, as they are."""
    return FeedForwardParameters(
        norm_w_D=layer.attention_norm.weight,
        norm_b_D=layer.attention_norm.bias,
        in_w_FD=layer.feedforward_in.weight,
        in_b_F=layer.feedforward_in.bias,
        out_w_DF=layer.feedforward_out.weight,
        out_b_D=layer.feedforward_out.bias,
        last_norm_w_D=layer.feedforward_norm.weight,
        last_norm_b_D=layer.feedforward_norm.bias,
    )
