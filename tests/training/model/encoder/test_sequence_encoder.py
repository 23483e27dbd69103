"""The encoder against `nn.TransformerEncoder` and its own forms, and what must not leak from it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.contracts.errors import ConfigurationError
from support.plain_encoder import PlainTransAct
from support.public_weights import load_public_weights, own_name
from support.small_encoder import (
    NUM_TYPES,
    E,
    S,
    encoded_and_gradients,
    encoder_inputs,
    small_config,
    small_encoder,
)
from training.model.encoder import groups, layer, sequence_encoder
from training.model.encoder.sequence_encoder import SequenceEncoder
from training.model.encoder.tokens import Tokens

LENGTHS = [[0], [1], [5], [40], [60], [0, 1, 5, 40, 60], [60, 3, 3, 0, 47]]
MANY = [60, 60, 60, 59, 30, 0, 58]
TOLERANCE = {"atol": 1e-5, "rtol": 0.0}
both_variants = pytest.mark.parametrize("variant", ["default", "reference"])
both_numbers_of_heads = pytest.mark.parametrize("num_heads", [1, 2])


class Dropped(torch.nn.Module):
    """Dropout that both encoders can be given: of a generator that starts anew for each."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(9)

    def kept(self, like: Tensor, dropout: float) -> tuple[Tensor, float]:
        return (torch.rand(like.shape, generator=self.generator) >= dropout).float(), 1 - dropout

    def forward(self, branch: Tensor) -> Tensor:
        kept, share = self.kept(branch, 0.5)
        return branch * kept / share


def make_pair(
    num_heads: int, variant: str = "reference", dropout: float = 0.0
) -> tuple[PlainTransAct, SequenceEncoder]:
    """Return the plain formulation and ours with the same weights, both in training mode.

    Dropout acts on the residual branches only, and the plain formulation draws it by `Dropped`.
    """
    changes = {"num_attention_heads": num_heads, "dropout": dropout}
    torch.manual_seed(3)
    plain = PlainTransAct(NUM_TYPES, E, small_config(**changes)).train()
    drawn = Dropped() if dropout else torch.nn.Identity()
    for each in plain.transformer_encoder.layers:
        each.self_attn.dropout, each.dropout = 0.0, torch.nn.Identity()
        each.dropout1 = each.dropout2 = drawn
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
def test_outputs_equal_the_plain_formulation(lengths, hiding, num_heads, variant) -> None:
    plain, ours = make_pair(num_heads, variant)
    inputs = encoder_inputs(lengths, **hiding)
    expected = plain(**inputs) if variant == "reference" else of_visible_alone(plain, inputs)
    torch.testing.assert_close(ours(**inputs), expected, **TOLERANCE)
    torch.testing.assert_close(ours.eval()(**inputs), expected, **TOLERANCE)


@both_numbers_of_heads
def test_appended_candidates_look_at_actions_that_do_not_look_at_them(num_heads: int) -> None:
    ours = small_encoder(num_attention_heads=num_heads, encoder_variant="append")
    layer = torch.nn.TransformerEncoderLayer(4 + E, num_heads, 6, 0.0, batch_first=True)
    plain = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for name, weight in plain.named_parameters():
        weight.data = ours.get_parameter(own_name(name)).data
    inputs, found = encoder_inputs([60, 5, 1, 0], share_visible=0.8), []
    pairs = zip(inputs["request_of_C"], inputs["candidate_pins_CE"], strict=True)
    for request, candidate in pairs:
        visible = torch.nonzero(inputs["is_visible_RS"][request])[:, 0]
        columns = torch.zeros(1 + ours.first_k, 4 + E)
        if num := len(visible):
            described = ours.action_embedding(inputs["action_types_RS"][request, visible])
            own = torch.cat([torch.zeros(1, 4), candidate[None]], dim=1)
            tokens = torch.cat([described, inputs["action_pins_RSE"][request, visible]], dim=1)
            is_no_key = torch.arange(num + 1).expand(num + 1, -1) == num
            tokens = plain(torch.cat([tokens, own])[None], mask=is_no_key)[0]
            is_new = visible < ours.first_k
            columns[0], columns[1 + visible[is_new]] = tokens[num], tokens[:num][is_new]
        found.append(columns.flatten())
    torch.testing.assert_close(ours(**inputs), torch.stack(found), **TOLERANCE)


@both_numbers_of_heads
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_equal_the_plain_formulation_also_with_the_same_dropout(
    num_heads: int, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, ours = make_pair(num_heads, dropout=dropout)
    inputs = encoder_inputs([0, 1, 5, 40, 60], share_visible=0.7)
    if dropout:  # side by side both draw in the same order
        monkeypatch.setattr(layer, "kept_by_dropout", Dropped().kept)
        inputs = encoder_inputs([60, 60], num_pins=30)
        inputs["request_of_C"] = torch.arange(2).repeat_interleave(4)
        inputs["candidate_pins_CE"] = torch.randn(8, E).requires_grad_()
    weight = torch.randn(len(inputs["request_of_C"]), ours.output_dim) / 100
    encoded, _, *found = encoded_and_gradients(ours, inputs, weight)
    expected, _, to_candidates, *to_plain = encoded_and_gradients(plain, inputs, weight)
    torch.testing.assert_close(encoded, expected, **TOLERANCE)
    names = [name for name, _ in plain.named_parameters()]
    load_public_weights(ours, dict(zip(names, to_plain, strict=True)))
    for gradient, expected in zip(found, [to_candidates, *ours.parameters()], strict=True):
        scale = max(1.0, float(expected.detach().abs().max()))
        torch.testing.assert_close(gradient / scale, expected.detach() / scale, **TOLERANCE)


@both_numbers_of_heads
def test_dropout_of_its_own_has_the_distribution_of_the_plain_formulation(num_heads: int) -> None:
    plain, ours = make_pair(num_heads, dropout=0.5)
    inputs = encoder_inputs([5])
    inputs["candidate_pins_CE"] = torch.randn(E).expand(2000, E)  # as many draws
    inputs["request_of_C"] = torch.zeros(2000, dtype=torch.int64)
    # not the pool: of the reference's padded positions each draws for itself in the plain one
    found, expected = (each(**inputs).detach()[:, ours.width :] for each in (ours, plain))
    error = (found.var(dim=0) + expected.var(dim=0)).div(len(found)).sqrt()
    assert ((found.mean(dim=0) - expected.mean(dim=0)) / error).abs().max() < 5.0
    torch.testing.assert_close(found.std(dim=0), expected.std(dim=0), rtol=0.15, atol=0.0)
    assert abs(float((found.std(dim=0) / expected.std(dim=0)).mean()) - 1.0) < 0.02


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.999])
def test_dropout_is_drawn_for_each_element(dropout: float) -> None:
    num = 400_003  # not a multiple of the numbers that are drawn at once
    kept, share = layer.kept_by_dropout(torch.empty(num), dropout)
    assert kept.shape == (num,) and set(kept.tolist()) == {0.0, 1.0}
    assert abs(share - (1 - dropout)) < 2**-16
    deviation = (share * (1 - share)) ** 0.5
    for start in range(4):
        of_lane = kept[start::4].mean()
        assert abs(float(of_lane) - share) < 5 * deviation * (num / 4) ** -0.5
        other = layer.kept_by_dropout(kept, dropout)[0] if start == 0 else kept.roll(start)
        correlation = (kept - share).mul(other - share).mean() / deviation**2
        assert abs(float(correlation)) < 5 * num**-0.5


@both_numbers_of_heads
def test_bfloat16_is_as_near_as_the_plain_formulation_in_it(num_heads: int) -> None:
    inputs = encoder_inputs([60, 0, 5, 40] * 4)
    target = torch.randn(len(inputs["request_of_C"]), make_pair(1)[1].output_dim)

    def run(encoder: torch.nn.Module) -> tuple[Tensor, Tensor]:
        encoded, *gradients = encoded_and_gradients(encoder, inputs, target)
        return encoded, torch.cat([each.flatten() for each in gradients])

    errors = []
    for encoder in make_pair(num_heads):
        with torch.autocast("cpu", torch.bfloat16):
            rounded = run(encoder)
        pairs = zip(rounded, run(encoder), strict=True)
        errors.append([float((near - exact).norm() / exact.norm()) for near, exact in pairs])
    for of_plain, of_ours in zip(*errors, strict=True):
        assert 0 < of_ours < 1.5 * of_plain


@pytest.mark.parametrize("num_pins", [S, 9])
@pytest.mark.parametrize("variant", ["default", "reference", "append"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_equal_actions_are_computed_once_and_groups_change_no_number(
    num_layers: int, variant: str, num_pins: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = small_encoder(num_layers=num_layers, encoder_variant=variant).double()
    inputs = encoder_inputs(MANY, 0.9, num_pins=num_pins, dtype=torch.float64)
    weight = torch.randn(len(inputs["request_of_C"]), encoder.output_dim, dtype=torch.float64)
    planned, ran = [], []

    def plan(tokens: Tokens, *others: Any) -> list[groups.Group]:
        planned.append((int(tokens.num_tokens_R.sum()), groups.plan_groups(tokens, *others)))
        return planned[-1][1]

    monkeypatch.setattr(sequence_encoder, "plan_groups", plan)
    for keys, limits in ((inputs["action_pin_keys_RS"], (1, 500)), (None, (10**6, 10**6))):
        monkeypatch.setattr(sequence_encoder, "CPU_LIMITS", groups.GroupLimits(*limits))
        each = encoded_and_gradients(encoder, inputs | {"action_pin_keys_RS": keys}, weight)
        # which of several equal actions gets their gradient does not matter
        index = (inputs["action_pin_keys_RS"] + 1)[:, :, None].expand_as(each[1])
        by_pin = torch.zeros(len(MANY), S + 1, E, dtype=torch.float64)
        each[1] = by_pin.scatter_add_(1, index, each[1])[:, 1:]
        ran.append(each)
    (num_merged, several), (num_tokens, one) = planned
    assert len(several) > 3 and len(one) == 1
    assert (num_merged < 0.6 * num_tokens) == (num_pins < S)
    for found, expected in zip(*ran, strict=True):
        atol = 1e-10 * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("changes", [{"dropout": 0.5}, {"use_action_ages": True}], ids=str)
def test_equal_actions_are_kept_apart_where_something_tells_them_apart(changes) -> None:
    encoder, inputs = small_encoder(**changes), encoder_inputs(MANY, num_pins=9)
    if encoder.age_embedding is not None:
        torch.nn.init.normal_(encoder.age_embedding.weight)
    inputs["action_ages_ms_RS"] = torch.randint(0, 10**9, inputs["action_types_RS"].shape)
    encoded = []
    for keys in ({}, {"action_pin_keys_RS": None}):
        torch.manual_seed(13)  # dropout's
        encoded.append(encoder(**(inputs | keys)))
    assert torch.equal(*encoded)


def test_without_gradients_the_numbers_are_the_same() -> None:
    encoder, inputs = small_encoder(encoder_variant="reference"), encoder_inputs(MANY)
    expected = encoder(**inputs)
    with torch.inference_mode():
        assert torch.equal(encoder(**inputs), expected)
    encoder.requires_grad_(False)
    frozen = encoder(**{name: tensor.detach() for name, tensor in inputs.items()})
    torch.testing.assert_close(frozen, expected.detach())
    assert not frozen.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_loss_that_is_not_a_number_reaches_every_weight(dtype) -> None:
    encoder, inputs = small_encoder().to(dtype), encoder_inputs(MANY, dtype=dtype)
    weight = torch.zeros(len(inputs["request_of_C"]), encoder.output_dim, dtype=dtype)
    weight[4, 30] = float("nan")
    _, *gradients = encoded_and_gradients(encoder, inputs, weight)
    assert all(gradient.isnan().any() for gradient in gradients)


@pytest.mark.parametrize("name", ["feedforward_in", "feedforward_out", "query_key_value"])
def test_a_weight_that_is_not_a_number_is_seen(name: str) -> None:
    encoder, inputs = small_encoder(), encoder_inputs(MANY)
    with torch.no_grad():
        getattr(encoder.layers[1], name).weight[0, 0] = float("nan")
    pooled = encoder(**inputs)[:, : encoder.width]
    has_actions = torch.tensor(MANY)[inputs["request_of_C"]] > 0
    assert torch.equal(pooled.isnan().any(dim=1), has_actions)


@pytest.mark.parametrize("variant", ["default", "append"])
@both_numbers_of_heads
def test_no_gradient_reaches_hidden_or_padded_positions(num_heads: int, variant: str) -> None:
    encoder = small_encoder(num_attention_heads=num_heads, encoder_variant=variant)
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


@pytest.mark.parametrize("variant", ["default", "reference", "append"])
@both_numbers_of_heads
def test_where_everything_is_hidden_all_is_finite_and_requests_need_no_candidates(
    num_heads: int, variant: str
) -> None:
    encoder = small_encoder(num_attention_heads=num_heads, encoder_variant=variant)
    inputs = encoder_inputs([5, 40, 0, 60], share_visible=0.0)
    weight = torch.ones(len(inputs["request_of_C"]), encoder.output_dim)
    encoded, *gradients = encoded_and_gradients(encoder, inputs, weight)
    assert all(each.isfinite().all() for each in (encoded, *gradients))
    assert variant == "reference" or not encoded.any()
    is_kept = inputs["request_of_C"] != 1  # the second request has no candidate
    kept = {name: inputs[name][is_kept] for name in ("request_of_C", "candidate_pins_CE")}
    torch.testing.assert_close(encoder(**(inputs | kept)), encoded[is_kept], **TOLERANCE)


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
