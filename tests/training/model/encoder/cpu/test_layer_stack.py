"""The encoder through the CPU kernel: its numbers and gradients are those of the plain layers."""

import pytest
import torch
from torch import Tensor

from support.small_encoder import S, encoded_and_gradients, encoder_inputs, small_encoder
from training.model.encoder import cpu
from training.model.encoder.cpu.layer_stack import LayerStack

LENGTHS = [60, 60, 60, 59, 30, 0, 58]
INPUTS = encoder_inputs(LENGTHS)
NUM_CANDIDATES = len(INPUTS["request_of_C"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("num_pins", "dense_share", "exponent_range"),
    [(S, 0.0, 60.0), (S, 0.85, 60.0), (S, 1.0, 60.0), (9, 0.85, 60.0), (9, 0.85, 1e-3)],
)
@pytest.mark.parametrize("variant", ["default", "reference"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_encoder_equals_that_of_plain_layers_and_computes_equal_actions_once(
    num_layers, variant, num_pins, dense_share, exponent_range, dtype, monkeypatch
) -> None:
    computed, apply = [], LayerStack.apply

    def counted(roles, *rest: object) -> Tensor:
        computed.append(int(roles.num_tokens_R.sum()))
        return apply(roles, *rest)

    monkeypatch.setattr(LayerStack, "apply", counted)
    monkeypatch.setattr("training.model.encoder.cpu.blocks.BLOCK_ROWS", 500)  # several blocks
    monkeypatch.setattr("training.model.encoder.cpu.layer_stack.DENSE_SHARE", dense_share)
    monkeypatch.setattr("training.model.encoder.cpu.factors.MAX_EXPONENT_RANGE", exponent_range)
    encoder = small_encoder(num_layers=num_layers, encoder_variant=variant)
    weight = torch.randn(NUM_CANDIDATES, encoder.output_dim, dtype=torch.float64)
    weight[3] = 0.0

    def ran(dtype: torch.dtype) -> list[Tensor]:
        inputs = encoder_inputs(LENGTHS, 0.9, num_pins=num_pins, dtype=dtype)
        of_encoder = encoded_and_gradients(encoder.to(dtype), inputs, weight.to(dtype))
        encoded, to_pins, *others = (each.double() for each in of_encoder)
        # which of several equal actions gets their gradient does not matter
        index = (inputs["action_pin_keys_RS"] + 1)[:, :, None].expand_as(to_pins)
        by_pin = torch.zeros(len(LENGTHS), S + 1, to_pins.shape[2], dtype=torch.float64)
        return [encoded, by_pin.scatter_add_(1, index, to_pins)[:, 1:], *others]

    in_stack = ran(dtype)
    num_passes = len(computed)
    assert num_passes > 1 if exponent_range > 1.0 else num_passes == 0
    assert (sum(computed) < 0.6 * sum(LENGTHS)) == (num_pins < S or num_passes == 0)
    monkeypatch.setattr(cpu, "supports", lambda *_: False)
    plain = ran(torch.float64)
    assert len(computed) == num_passes
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for found, expected in zip(in_stack, plain, strict=True):
        atol = tolerance * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("changes", [{"dropout": 0.5}, {"use_action_ages": True}], ids=str)
def test_equal_actions_are_kept_apart_where_something_tells_them_apart(changes) -> None:
    encoder, inputs = small_encoder(**changes), encoder_inputs(LENGTHS, num_pins=9)
    if encoder.age_embedding is not None:
        torch.nn.init.normal_(encoder.age_embedding.weight)
    inputs["action_ages_ms_RS"] = torch.randint(0, 10**9, inputs["action_types_RS"].shape)
    encoded = []
    for keys in ({}, {"action_pin_keys_RS": None}):
        torch.manual_seed(13)  # dropout's
        encoded.append(encoder(**(inputs | keys)))
    assert torch.equal(*encoded)


def test_backward_within_an_autocast_is_that_without() -> None:
    encoder, found = small_encoder(), []
    for is_within in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            loss = encoder(**INPUTS).float().square().mean()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_within):
            found.append(torch.autograd.grad(loss, list(encoder.layers[1].parameters())))
    torch.testing.assert_close(*found, rtol=0.05, atol=1e-3)


def test_a_second_backward_pass_is_refused_not_wrong() -> None:
    encoded = small_encoder()(**INPUTS)
    encoded.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="call the encoder again"):
        encoded.sum().backward()


def test_without_gradients_the_numbers_are_the_same() -> None:
    encoder = small_encoder(encoder_variant="reference")
    expected = encoder(**INPUTS)
    with torch.inference_mode():
        assert torch.equal(encoder(**INPUTS), expected)
    encoder.requires_grad_(False)
    frozen = encoder(**{name: tensor.detach() for name, tensor in INPUTS.items()})
    torch.testing.assert_close(frozen, expected.detach())
    assert not frozen.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_loss_that_is_not_a_number_reaches_every_weight(dtype) -> None:
    encoder = small_encoder().to(dtype)
    weight = torch.zeros(NUM_CANDIDATES, encoder.output_dim, dtype=dtype)
    weight[4, 30] = float("nan")
    inputs = encoder_inputs(LENGTHS, dtype=dtype)
    _, *gradients = encoded_and_gradients(encoder, inputs, weight)
    assert all(gradient.isnan().any() for gradient in gradients)


@pytest.mark.parametrize("name", ["feedforward_in", "feedforward_out", "query_key_value"])
def test_a_weight_that_is_not_a_number_is_seen(name: str) -> None:
    encoder = small_encoder()
    with torch.no_grad():
        getattr(encoder.layers[1], name).weight[0, 0] = float("nan")
    pooled = encoder(**INPUTS)[:, : encoder.width]
    has_actions = torch.tensor(LENGTHS)[INPUTS["request_of_C"]] > 0
    assert torch.equal(pooled.isnan().any(dim=1), has_actions)
