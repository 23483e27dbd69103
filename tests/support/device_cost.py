"""What a training step costs a device: operations and copied bytes, counted without a device.

A module on torch's device `meta` has shapes and no numbers. So what is counted there is what a GPU
computes, and whatever would wait for a GPU's numbers raises an error.

Letters: R requests, C candidates.
"""

import contextlib
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from support.plain_encoder import PlainTransAct
from training.model.encoder.sequence_encoder import SequenceEncoder

Tree = TypeVar("Tree")


def to_meta(tree: Tree) -> Tree:
    """Return tensors in tuples, lists or dictionaries on the device that has no numbers."""
    return tree_map_only(Tensor, lambda tensor: tensor.to("meta"), tree)


def autocast_on_meta() -> contextlib.AbstractContextManager[Any]:
    """Let code turn autocast off on the device `meta`, of which torch's autocast knows nothing."""
    return mock.patch.multiple(
        torch,
        autocast=lambda *_, **__: contextlib.nullcontext(),
        is_autocast_enabled=lambda _: False,
    )


def step_cost(
    encoder: PlainTransAct | SequenceEncoder, inputs: dict[str, Tensor]
) -> tuple[int, int]:
    """Return multiplications and additions of a training step, and the bytes that it copies.

    The plain formulation is given the sequence of each candidate, as the published module is. Ours
    is given ages and keys of pins too, and its plan.

    Args:
        encoder: on the host; it is on the device `meta` afterwards.
        inputs: arguments of its `forward`.
    """
    request_of_C, encoder = inputs["request_of_C"], encoder.train()
    if isinstance(encoder, PlainTransAct):
        per_request = ("action_types_RS", "action_pins_RSE", "is_visible_RS")
        copied = {name: inputs[name][request_of_C] for name in per_request}
        copied["candidate_pins_CE"] = inputs["candidate_pins_CE"]
        given = copied | {"request_of_C": torch.arange(len(request_of_C))}
        encoder = encoder.to("meta")
    else:
        of_actions = torch.zeros_like(inputs["action_types_RS"])
        copied = inputs | {"action_ages_ms_RS": of_actions, "action_pin_keys_RS": of_actions}
        encoder = encoder.to("meta")  # first: a plan is for a device
        planned = ("action_types_RS", "action_pins_RSE", "is_visible_RS", "request_of_C")
        given = copied = copied | {"plan": encoder.plan(*map(inputs.get, planned))}
    given = to_meta(given)
    with FlopCounterMode(display=False) as counter, autocast_on_meta():
        encoder(**given).sum().backward()
    num_bytes = sum(leaf.nbytes for leaf in tree_leaves(copied) if isinstance(leaf, Tensor))
    return counter.get_total_flops(), num_bytes
