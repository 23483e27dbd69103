"""The sequence encoder in a small size: with what it is asked, what it answers, its gradients."""

from typing import Any

import torch
from torch import Tensor

from pipelines.contracts.config import ModelConfig
from training.model.encoder.sequence_encoder import SequenceEncoder

NUM_TYPES, E, S = 4, 8, 60


def small_config(**changes: Any) -> ModelConfig:
    """Return a configuration of one head, without dropout."""
    small = {"action_embedding_dim": 4, "num_attention_heads": 1, "feedforward_dim": 6}
    small |= {"dropout": 0.0, "first_k": 3, "max_actions": S}
    return ModelConfig(**(small | changes))


def small_encoder(**changes: Any) -> SequenceEncoder:
    """Return an encoder that is the same at every call."""
    torch.manual_seed(5)
    return SequenceEncoder(NUM_TYPES, E, small_config(**changes))


def encoder_inputs(
    lengths: list[int],
    share_visible: float = 1.0,
    padding: int = 0,
    num_pins: int = S,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Return padded actions on some pins, of which some are hidden, and few or many candidates."""
    generator = torch.Generator().manual_seed(sum(lengths) + padding)
    num, longest = len(lengths), min(S, max([*lengths, 1]) + padding)
    is_action = torch.arange(longest) < torch.tensor(lengths)[:, None]
    types = torch.randint(1, NUM_TYPES + 1, is_action.shape, generator=generator)
    keys = (37 * torch.arange(longest) % num_pins).expand(num, -1)
    pins = torch.randn(num, num_pins, E, generator=generator, dtype=torch.float64)[:, keys[0]]
    is_visible = torch.rand(num, longest, generator=generator) < share_visible
    request_of = torch.arange(num).repeat_interleave(7 * torch.arange(num) % 20 + 2)
    candidates = torch.randn(len(request_of), E, generator=generator, dtype=torch.float64)
    return {
        "action_types_RS": types * is_action,
        "action_pins_RSE": (pins * is_action[:, :, None]).to(dtype).requires_grad_(),
        "is_visible_RS": is_action & is_visible,
        "candidate_pins_CE": candidates.to(dtype).requires_grad_(),
        "request_of_C": request_of,
        "action_pin_keys_RS": keys.where(is_action, -1),
    }


def encoded_and_gradients(
    encoder: torch.nn.Module, inputs: dict[str, Tensor], weight: Tensor
) -> list[Tensor]:
    """Return the output, and the gradients of pins, candidates and parameters that have one."""
    encoded = encoder(**inputs).to(weight.dtype)
    wanted = [inputs["action_pins_RSE"], inputs["candidate_pins_CE"], *encoder.parameters()]
    gradients = torch.autograd.grad(encoded, wanted, weight, allow_unused=True)
    return [encoded.detach(), *(each for each in gradients if each is not None)]
