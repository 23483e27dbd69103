"""The encoder against `nn.TransformerEncoder` and its own forms, and what must not leak from it."""

import pytest
import torch
from torch import Tensor

from pipelines.contracts.errors import ConfigurationError
from support.plain_encoder import PlainTransAct
from support.public_weights import load_public_weights
from support.small_encoder import (
    NUM_TYPES,
    E,
    encoded_and_gradients,
    encoder_inputs,
    small_config,
    small_encoder,
)
from training.model.encoder.cpu import factors
from training.model.encoder.sequence_encoder import SequenceEncoder

LENGTHS = [[0], [1], [5], [40], [60], [0, 1, 5, 40, 60], [60, 3, 3, 0, 47]]
TOLERANCE = {"atol": 1e-5, "rtol": 0.0}
both_variants = pytest.mark.parametrize("variant", ["default", "reference"])
# one head goes through `training.model.encoder.cpu`, two do not
both_numbers_of_heads = pytest.mark.parametrize("num_heads", [1, 2])


def make_pair(num_heads: int, variant: str = "reference") -> tuple[PlainTransAct, SequenceEncoder]:
    """Return the plain formulation and ours with the same weights, both in training mode."""
    changes = {"num_attention_heads": num_heads}
    torch.manual_seed(3)
    plain = PlainTransAct(NUM_TYPES, E, small_config(**changes)).train()
    with torch.no_grad():  # biases and norms start at constants, which would hide mistakes
        for parameter in plain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    published = small_encoder(**changes, encoder_variant="reference")
    load_public_weights(published, plain.state_dict())
    ours = small_encoder(**changes, encoder_variant=variant)
    ours.load_state_dict(published.state_dict(), strict=variant == "reference")
    return plain, ours


def of_visible_alone(plain: PlainTransAct, inputs: dict[str, Tensor]) -> Tensor:
    """Return the default variant's output, candidate by candidate, with what is visible alone."""
    rows = []
    for request, candidate in zip(
        inputs["request_of_C"].tolist(), inputs["candidate_pins_CE"], strict=True
    ):
        visible = torch.nonzero(inputs["is_visible_RS"][request])[:, 0]
        columns = torch.zeros(1 + plain.first_k, plain.out_linear.in_features)
        if len(visible):
            actions = plain.action_emb_module(inputs["action_types_RS"][request, visible] - 1)
            pins = inputs["action_pins_RSE"][request, visible]
            tokens = torch.cat([actions, pins, candidate.expand(len(visible), -1)], dim=1)
            tokens = plain.transformer_encoder(tokens[None])[0]
            columns[0] = tokens.amax(dim=0)
            is_new = visible < plain.first_k
            columns[1 + visible[is_new]] = tokens[is_new]
        rows.append(columns.flatten())
    return torch.stack(rows)


@both_variants
@both_numbers_of_heads
@pytest.mark.parametrize("hiding", [{}, {"share_visible": 0.7, "padding": 30}], ids=["all", "some"])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_outputs_equal_the_plain_formulation_also_candidate_by_candidate_as_on_a_gpu(
    lengths, hiding, num_heads, variant, monkeypatch
) -> None:
    plain, ours = make_pair(num_heads, variant)
    inputs = encoder_inputs(lengths, **hiding)
    expected = plain(**inputs) if variant == "reference" else of_visible_alone(plain, inputs)
    torch.testing.assert_close(ours(**inputs), expected, **TOLERANCE)
    torch.testing.assert_close(ours.eval()(**inputs), expected, **TOLERANCE)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(ours(**inputs), expected, **TOLERANCE)


@both_numbers_of_heads
def test_gradients_equal_the_plain_formulation(num_heads: int) -> None:
    plain, ours = make_pair(num_heads)
    inputs = encoder_inputs([0, 1, 5, 40, 60], share_visible=0.7)
    weight = torch.randn(len(inputs["request_of_C"]), ours.output_dim) / 100
    _, _, *found = encoded_and_gradients(ours, inputs, weight)
    _, _, to_candidates, *to_plain = encoded_and_gradients(plain, inputs, weight)
    names = [name for name, _ in plain.named_parameters()]
    load_public_weights(ours, dict(zip(names, to_plain, strict=True)))
    for gradient, expected in zip(found, [to_candidates, *ours.parameters()], strict=True):
        scale = max(1.0, float(expected.detach().abs().max()))
        torch.testing.assert_close(gradient / scale, expected.detach() / scale, **TOLERANCE)


def test_bfloat16_is_as_near_as_the_plain_formulation_in_it() -> None:
    inputs = encoder_inputs([60, 0, 5, 40] * 4)
    target = torch.randn(len(inputs["request_of_C"]), make_pair(1)[1].output_dim)

    def run(encoder: torch.nn.Module) -> tuple[Tensor, Tensor]:
        encoded, *gradients = encoded_and_gradients(encoder, inputs, target)
        return encoded, torch.cat([each.flatten() for each in gradients])

    errors = []
    for encoder in make_pair(1):
        with torch.autocast("cpu", torch.bfloat16):
            rounded = run(encoder)
        pairs = zip(rounded, run(encoder), strict=True)
        errors.append([float((near - exact).norm() / exact.norm()) for near, exact in pairs])
    for of_plain, of_ours in zip(*errors, strict=True):
        assert 0 < of_ours < 1.5 * of_plain


def test_scores_too_far_apart_to_split_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, ours = make_pair(num_heads=1)
    inputs = encoder_inputs([40, 7])
    for name in ("candidate_pins_CE", "action_pins_RSE"):
        inputs[name] = 80 * inputs[name]
    assert (ours(**inputs) - plain(**inputs)).abs().max() < 1e-3
    # split nevertheless, both factors are 0 and the quotient is 0 / 0
    monkeypatch.setattr(factors, "MAX_EXPONENT_RANGE", float("inf"))
    assert not torch.isfinite(ours(**inputs)).all()


@both_numbers_of_heads
def test_no_gradient_reaches_hidden_or_padded_positions(num_heads: int) -> None:
    encoder = small_encoder(num_attention_heads=num_heads)
    inputs = encoder_inputs([0, 5, 40], share_visible=0.7, padding=3)
    weight = torch.ones(len(inputs["request_of_C"]), encoder.output_dim)
    to_pins = encoded_and_gradients(encoder, inputs, weight)[1]
    assert ((to_pins != 0).any(dim=2) == inputs["is_visible_RS"]).all()


@both_numbers_of_heads
def test_a_batch_without_candidates_has_no_output_and_gradients_of_zero(num_heads: int) -> None:
    encoder = small_encoder(num_attention_heads=num_heads, encoder_variant="reference")
    inputs = encoder_inputs([5, 2])
    for name in ("candidate_pins_CE", "request_of_C"):
        inputs[name] = inputs[name][:0]
    found = encoder(**inputs)
    assert found.shape == (0, encoder.output_dim)
    gradients = torch.autograd.grad(found.sum(), list(encoder.parameters()))
    assert not any(gradient.any() for gradient in gradients)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigurationError, match="num_attention_heads=3"):
        small_encoder(num_attention_heads=3)


@both_variants
@both_numbers_of_heads
def test_ages_matter_once_they_are_learnt_and_only_where_asked_for(num_heads, variant) -> None:
    changes = {"num_attention_heads": num_heads, "encoder_variant": variant}
    inputs = encoder_inputs([5, 0, 2])
    minutes = torch.tensor([0, 1, 3, 60, 10**7])

    def aged(minutes: Tensor) -> dict[str, Tensor]:
        return inputs | {"action_ages_ms_RS": (minutes * 60_000).expand(3, 5)}

    plain = small_encoder(**changes)
    assert torch.equal(plain(**aged(minutes)), plain(**inputs))
    asked = small_encoder(**changes, use_action_ages=True)
    with torch.no_grad():
        asked.age_embedding.weight.normal_()
    found, without_actions = asked(**aged(minutes)), inputs["request_of_C"] == 1
    for row, other in ((3, 1), (2, 3), (0, 3)):
        older = asked(**aged(torch.where(torch.arange(5) == row, minutes[other], minutes)))
        assert not torch.allclose(older[~without_actions], found[~without_actions], atol=1e-3)
        assert torch.equal(older[without_actions], found[without_actions])
    # 10 000 000 minutes are in the last bucket, as 2 000 000 are
    assert torch.equal(asked(**aged(minutes.clamp(max=2_000_000))), found)
