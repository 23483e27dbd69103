"""The encoder against `nn.TransformerEncoder` and its own forms, and what must not leak from it."""

import copy

import pytest
import torch
from torch import Tensor

from pipelines.contracts.config import ModelConfig
from pipelines.contracts.errors import ConfigurationError
from support.plain_encoder import PlainTransAct
from support.public_weights import load_public_weights
from training.model.encoder.cpu import factors
from training.model.encoder.sequence_encoder import SequenceEncoder

NUM_TYPES, E = 5, 32
LENGTHS = [[0], [1], [5], [40], [100], [0, 1, 5, 40, 100], [100, 3, 3, 0, 77]]
TOLERANCE = {"atol": 1e-5, "rtol": 0.0}
Inputs = dict[str, Tensor]
both_variants = pytest.mark.parametrize("variant", ["default", "reference"])
# one head goes through `training.model.encoder.cpu`, two do not
both_numbers_of_heads = pytest.mark.parametrize("num_heads", [1, 2])


def config(num_heads: int, variant: str, **changes: object) -> ModelConfig:
    small = {"num_attention_heads": num_heads, "dropout": 0.0, "encoder_variant": variant}
    return ModelConfig(**(small | changes))


def make_inputs(lengths: list[int], share_visible: float = 1.0, padding: int = 0) -> Inputs:
    """Return padded sequences, some actions of which are hidden, and candidates of each request."""
    generator = torch.Generator().manual_seed(sum(lengths) + padding)
    num, longest = len(lengths), min(100, max([*lengths, 1]) + padding)
    is_action = torch.arange(longest) < torch.tensor(lengths)[:, None]
    types = torch.randint(1, NUM_TYPES + 1, (num, longest), generator=generator)
    pins = torch.randn(num, longest, E, generator=generator)
    is_visible = torch.rand(num, longest, generator=generator) < share_visible
    request_of = torch.arange(num).repeat_interleave(torch.arange(num) % 3 + 2)
    return {
        "action_types_RS": types.where(is_action, torch.tensor(0)),
        "action_pins_RSE": pins * is_action[:, :, None],
        "is_visible_RS": is_action & is_visible,
        "candidate_pins_CE": torch.randn(len(request_of), E, generator=generator),
        "request_of_C": request_of,
    }


def make_pair(num_heads: int, variant: str = "reference") -> tuple[PlainTransAct, SequenceEncoder]:
    """Return the plain formulation and ours with the same weights, both in training mode."""
    torch.manual_seed(3)
    plain = PlainTransAct(NUM_TYPES, E, config(num_heads, "reference")).train()
    with torch.no_grad():  # biases and norms start at constants, which would hide mistakes
        for parameter in plain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    published = SequenceEncoder(NUM_TYPES, E, config(num_heads, "reference")).train()
    load_public_weights(published, plain.state_dict())
    ours = SequenceEncoder(NUM_TYPES, E, config(num_heads, variant)).train()
    ours.load_state_dict(published.state_dict(), strict=variant == "reference")
    return plain, ours


def of_visible_alone(plain: PlainTransAct, inputs: Inputs) -> Tensor:
    """Return the default variant's output, candidate by candidate, with what is visible alone."""
    rows = []
    for request, candidate in zip(
        inputs["request_of_C"].tolist(), inputs["candidate_pins_CE"], strict=True
    ):
        visible = torch.nonzero(inputs["is_visible_RS"][request])[:, 0]
        columns = torch.zeros(1 + plain.first_k, 32 + 2 * E)
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
def test_outputs_equal_the_plain_formulation(lengths, hiding, num_heads, variant) -> None:
    plain, ours = make_pair(num_heads, variant)
    inputs = make_inputs(lengths, **hiding)
    with torch.no_grad():
        if variant == "reference":
            expected = plain(**inputs)
        else:
            expected = of_visible_alone(plain, inputs)
        torch.testing.assert_close(ours(**inputs), expected, **TOLERANCE)


@both_numbers_of_heads
def test_gradients_equal_the_plain_formulation(num_heads: int) -> None:
    plain, ours = make_pair(num_heads)
    inputs = make_inputs([0, 1, 5, 40, 100], share_visible=0.7)
    weights = torch.randn(ours(**inputs).shape) / 100
    for module in (plain, ours):
        (module(**inputs) * weights).sum().backward()
    by_plain = copy.deepcopy(ours)
    load_public_weights(by_plain, {name: p.grad for name, p in plain.named_parameters()})
    for parameter, expected in zip(ours.parameters(), by_plain.parameters(), strict=True):
        assert parameter.grad is not None
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(parameter.grad / scale, expected.data / scale, **TOLERANCE)


@both_variants
@both_numbers_of_heads
def test_candidate_by_candidate_as_on_a_gpu_it_is_the_same(num_heads, variant, monkeypatch) -> None:
    _, encoder = make_pair(num_heads, variant)
    inputs = make_inputs([100, 0, 1, 5, 40], share_visible=0.9)
    together = encoder(**inputs)
    torch.testing.assert_close(encoder.eval()(**inputs), together, **TOLERANCE)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(encoder(**inputs), together, **TOLERANCE)


def test_bfloat16_is_as_near_as_the_plain_formulation_in_it() -> None:
    inputs = make_inputs([100, 0, 5, 40] * 4)
    target = torch.randn(len(inputs["request_of_C"]), make_pair(1)[1].output_dim)

    def run(encoder: torch.nn.Module, *, is_bfloat16: bool) -> tuple[Tensor, Tensor]:
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
            encoded = encoder(**inputs).float()
        (encoded * target).sum().backward()
        gradients = [p.grad.flatten() for p in encoder.parameters() if p.grad is not None]
        return encoded.detach(), torch.cat(gradients)

    errors = []
    for encoder in make_pair(1):
        pairs = zip(run(encoder, is_bfloat16=True), run(encoder, is_bfloat16=False), strict=True)
        errors.append([float((near - exact).norm() / exact.norm()) for near, exact in pairs])
    for of_plain, of_ours in zip(*errors, strict=True):
        assert 0 < of_ours < 1.5 * of_plain


def test_scores_too_far_apart_to_split_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, ours = make_pair(num_heads=1)
    inputs = make_inputs([40, 7])
    for name in ("candidate_pins_CE", "action_pins_RSE"):
        inputs[name] *= 40
    assert (ours(**inputs) - plain(**inputs)).abs().max() < 1e-3
    # split nevertheless, both factors are 0 and the quotient is 0 / 0
    monkeypatch.setattr(factors, "MAX_EXPONENT_RANGE", float("inf"))
    assert not torch.isfinite(ours(**inputs)).all()


@both_numbers_of_heads
def test_no_gradient_reaches_hidden_or_padded_positions(num_heads: int) -> None:
    _, encoder = make_pair(num_heads, "default")
    inputs = make_inputs([0, 5, 40], share_visible=0.7, padding=3)
    inputs["action_pins_RSE"].requires_grad_()
    encoder(**inputs).square().sum().backward()
    gradient = inputs["action_pins_RSE"].grad
    assert gradient is not None
    assert ((gradient != 0).any(dim=2) == inputs["is_visible_RS"]).all()


@both_numbers_of_heads
def test_a_batch_without_candidates_has_no_output_and_gradients_of_zero(num_heads: int) -> None:
    _, encoder = make_pair(num_heads)
    inputs = make_inputs([5, 2])
    for name in ("candidate_pins_CE", "request_of_C"):
        inputs[name] = inputs[name][:0]
    found = encoder(**inputs)
    assert found.shape == (0, encoder.output_dim)
    found.sum().backward()
    gradients = [parameter.grad for parameter in encoder.parameters()]
    assert all(g is not None and (g == 0).all() for g in gradients)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigurationError, match="num_attention_heads=5"):
        SequenceEncoder(NUM_TYPES, E, config(5, "default"))


@both_variants
@both_numbers_of_heads
def test_ages_matter_once_they_are_learnt_and_only_where_asked_for(num_heads, variant) -> None:
    inputs = make_inputs([5, 0, 2])
    minutes = torch.tensor([0, 1, 3, 60, 10**7])

    def aged(minutes: Tensor) -> Inputs:
        return inputs | {"action_ages_ms_RS": (minutes * 60_000).expand(3, 5)}

    plain = SequenceEncoder(NUM_TYPES, E, config(num_heads, variant))
    assert torch.equal(plain(**aged(minutes)), plain(**inputs))
    asked = SequenceEncoder(NUM_TYPES, E, config(num_heads, variant, use_action_ages=True))
    with torch.no_grad():
        asked.age_embedding.weight.normal_()
    found, without_actions = asked(**aged(minutes)), inputs["request_of_C"] == 1
    for row, other in ((3, 1), (2, 3)):
        older = asked(**aged(torch.where(torch.arange(5) == row, minutes[other], minutes)))
        assert not torch.allclose(older[~without_actions], found[~without_actions], atol=1e-3)
        assert torch.equal(older[without_actions], found[without_actions])
    # 10 000 000 minutes are in the last bucket, as 2 000 000 are
    assert torch.equal(asked(**aged(minutes.clamp(max=2_000_000))), found)
