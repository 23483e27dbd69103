"""The reference encoder against `nn.TransformerEncoder`, and all forms of ours against another."""

import copy
import shutil

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
# inductor writes C++; without a compiler the traced and decomposed graph is run as it is
COMPILER = "inductor" if shutil.which("g++") else "aot_eager"
Inputs = dict[str, Tensor]


def config(num_heads: int, variant: str = "reference") -> ModelConfig:
    return ModelConfig(num_attention_heads=num_heads, dropout=0.0, encoder_variant=variant)


def make_inputs(lengths: list[int], hidden: int = 0) -> Inputs:
    """Return sequences padded to the longest, ragged candidates, and `hidden` masked actions."""
    generator = torch.Generator().manual_seed(sum(lengths) + hidden)
    longest, num = max([*lengths, 1]), len(lengths)
    is_action = torch.arange(longest) < torch.tensor(lengths)[:, None]
    types = torch.randint(1, NUM_TYPES + 1, (num, longest), generator=generator)
    counts = torch.arange(num) % 3 + 2
    pins = torch.randn(num, longest, E, generator=generator)
    return {
        "action_types_RS": types.where(is_action, torch.tensor(0)),
        "action_pins_RSE": pins * is_action[:, :, None],
        "is_visible_RS": is_action & (torch.arange(longest) >= hidden),
        "candidate_pins_CE": torch.randn(int(counts.sum()), E, generator=generator),
        "request_of_C": torch.arange(num).repeat_interleave(counts),
    }


def make_pair(num_heads: int) -> tuple[PlainTransAct, SequenceEncoder]:
    """Return the plain formulation and ours with the same weights, both in training mode."""
    torch.manual_seed(3)
    plain = PlainTransAct(NUM_TYPES, E, config(num_heads)).train()
    with torch.no_grad():  # biases and norms start at constants, which would hide mistakes
        for parameter in plain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = SequenceEncoder(NUM_TYPES, E, config(num_heads)).train()
    load_public_weights(ours, plain.state_dict())
    return plain, ours


@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize("hidden", [0, 2])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_outputs_equal_the_plain_formulation(
    lengths: list[int], hidden: int, num_heads: int
) -> None:
    plain, ours = make_pair(num_heads)
    inputs = make_inputs(lengths, hidden)
    torch.testing.assert_close(ours(**inputs), plain(**inputs), **TOLERANCE)


@pytest.mark.parametrize("num_heads", [1, 2])
def test_gradients_equal_the_plain_formulation(num_heads: int) -> None:
    plain, ours = make_pair(num_heads)
    inputs = make_inputs([0, 1, 5, 40, 100], hidden=2)
    weights = torch.randn(ours(**inputs).shape) / 100
    for module in (plain, ours):
        (module(**inputs) * weights).sum().backward()
    by_plain = copy.deepcopy(ours)
    load_public_weights(by_plain, {name: p.grad for name, p in plain.named_parameters()})
    for (name, parameter), expected in zip(
        ours.named_parameters(), by_plain.parameters(), strict=True
    ):
        found = parameter.grad
        assert found is not None
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(
            found / scale, expected.data / scale, **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("variant", ["default", "reference"])
@pytest.mark.parametrize("num_heads", [1, 2])
def test_every_form_gives_the_same_numbers(
    num_heads: int, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    encoder = SequenceEncoder(NUM_TYPES, E, config(num_heads, variant))
    inputs = make_inputs([100, 0, 1, 5, 40], hidden=1)
    training = encoder.train()(**inputs)
    evaluation = encoder.eval()(**inputs)
    with torch.no_grad():
        no_grad = encoder(**inputs)
    exported = torch.export.export(encoder, (), inputs, strict=False).module()(**inputs)
    compiled = torch.compile(encoder, backend=COMPILER)(**inputs)
    monkeypatch.setattr(
        encoder, "_encode_grouped", lambda sequences, _: encoder._encode_each(sequences)
    )
    one_by_one = encoder(**inputs)
    for other in (evaluation, no_grad, exported, compiled, one_by_one):
        torch.testing.assert_close(training, other, **TOLERANCE)


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

    errors = [
        [
            float((near - exact).norm() / exact.norm())
            for near, exact in zip(
                run(encoder, is_bfloat16=True), run(encoder, is_bfloat16=False), strict=True
            )
        ]
        for encoder in make_pair(1)
    ]
    for of_plain, of_ours in zip(*errors, strict=True):
        assert 0 < of_ours < 1.5 * of_plain


def test_scores_too_far_apart_to_split_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, ours = make_pair(num_heads=1)
    inputs = make_inputs([40, 7])
    for name in ("candidate_pins_CE", "action_pins_RSE"):
        inputs[name] *= 40
    expected = plain(**inputs)
    assert (ours(**inputs) - expected).abs().max() < 1e-3
    # split nevertheless, both factors are 0 and the quotient is 0 / 0
    monkeypatch.setattr(factors, "MAX_EXPONENT_RANGE", float("inf"))
    assert not torch.isfinite(ours(**inputs)).all()


def test_published_weights_that_do_not_fit_are_refused() -> None:
    plain, ours = make_pair(num_heads=1)
    state = plain.state_dict()
    with pytest.raises(ConfigurationError, match="encoder_variant='reference'"):
        load_public_weights(SequenceEncoder(NUM_TYPES, E, config(1, "default")), state)
    with pytest.raises(ConfigurationError, match="'surprise'"):
        load_public_weights(ours, state | {"surprise": torch.zeros(1)})
    state["action_emb_module.weight"] = torch.zeros(3, 32)
    with pytest.raises(ConfigurationError, match="do not fit this encoder"):
        load_public_weights(ours, state)
