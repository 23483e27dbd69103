"""The encoder through the CPU kernel: its numbers and gradients are those of the plain layers."""

import pytest
import torch
from torch import Tensor

from pipelines.contracts.config import ModelConfig
from training.model.encoder import cpu
from training.model.encoder.cpu.layer_stack import LayerStack
from training.model.encoder.sequence_encoder import SequenceEncoder
from training.model.encoder.tokens import TokenRoles

S = 60


def make_encoder(num_layers: int, variant: str) -> SequenceEncoder:
    torch.manual_seed(5)
    config = ModelConfig(
        action_embedding_dim=4,
        num_attention_heads=1,
        num_layers=num_layers,
        feedforward_dim=6,
        dropout=0.0,
        first_k=3,
        max_actions=S,
        encoder_variant=variant,
    )
    return SequenceEncoder(4, 8, config)


def make_inputs(dtype: torch.dtype) -> dict[str, Tensor]:
    """Return requests of several lengths and numbers of candidates; one has no actions."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([60, 60, 60, 59, 30, 0, 58])
    counts = torch.tensor([11, 3, 19, 7, 5, 4, 2])
    is_action = torch.arange(S) < lengths[:, None]
    types = torch.randint(1, 5, is_action.shape, generator=generator) * is_action
    pins = torch.randn(*is_action.shape, 8, generator=generator).to(dtype)
    is_visible = is_action & (torch.rand(is_action.shape, generator=generator) < 0.9)
    is_visible[1] = is_action[1]
    candidates = torch.randn(int(counts.sum()), 8, generator=generator).to(dtype)
    return {
        "action_types_RS": types,
        "action_pins_RSE": (pins * is_action[:, :, None]).requires_grad_(),
        "is_visible_RS": is_visible,
        "candidate_pins_CE": candidates.requires_grad_(),
        "request_of_C": torch.arange(7).repeat_interleave(counts),
    }


def encoded_and_gradients(encoder: SequenceEncoder, weight: Tensor) -> list[Tensor]:
    inputs = make_inputs(weight.dtype)
    encoded = encoder.to(weight.dtype)(**inputs)
    wanted = [inputs["action_pins_RSE"], inputs["candidate_pins_CE"], *encoder.parameters()]
    gradients = torch.autograd.grad(encoded, wanted, weight, allow_unused=True)
    return [encoded, *(g for g in gradients if g is not None)]


@pytest.fixture
def passes_through_the_stack(monkeypatch: pytest.MonkeyPatch) -> list[TokenRoles]:
    """Return a list that grows with every pass through the hand-written layers."""
    passes: list[TokenRoles] = []
    apply = LayerStack.apply

    def counted(roles: TokenRoles, *rest: object) -> Tensor:
        passes.append(roles)
        return apply(roles, *rest)

    monkeypatch.setattr(LayerStack, "apply", counted)
    return passes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("dense_share", [0.0, 0.85, 1.0])
@pytest.mark.parametrize("variant", ["default", "reference"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_encoder_equals_that_of_plain_layers(
    num_layers, variant, dense_share, dtype, monkeypatch, passes_through_the_stack
) -> None:
    monkeypatch.setattr("training.model.encoder.cpu.blocks.BLOCK_ROWS", 500)  # several blocks
    monkeypatch.setattr("training.model.encoder.cpu.layer_stack.DENSE_SHARE", dense_share)
    encoder = make_encoder(num_layers, variant)
    weight = torch.randn(51, encoder.output_dim, dtype=torch.float64)
    weight[3] = 0.0
    fused = encoded_and_gradients(encoder, weight.to(dtype))
    num_passes = len(passes_through_the_stack)
    assert num_passes > 1
    monkeypatch.setattr(cpu, "supports", lambda *_: False)
    plain = encoded_and_gradients(encoder, weight)
    assert len(passes_through_the_stack) == num_passes
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for found, expected in zip(fused, plain, strict=True):
        atol = tolerance * max(1.0, float(expected.detach().abs().max()))
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=atol)


def few_pins(inputs: dict[str, Tensor]) -> Tensor:
    """Give each request actions on few different pins, and return the pins' keys."""
    is_action_RS = inputs["action_types_RS"] > 0
    keys_RS = torch.randint(0, 9, is_action_RS.shape, generator=torch.Generator().manual_seed(4))
    pins = inputs["action_pins_RSE"].detach()[0, :9]
    inputs["action_pins_RSE"] = (pins[keys_RS] * is_action_RS[:, :, None]).requires_grad_()
    return keys_RS.where(is_action_RS, -1)


@pytest.mark.parametrize("exponent_range", [60.0, 1e-3], ids=["in the stack", "plain"])
@pytest.mark.parametrize("variant", ["default", "reference"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_equal_actions_are_computed_once_and_count_as_many(
    num_layers, variant, exponent_range, passes_through_the_stack, monkeypatch
) -> None:
    monkeypatch.setattr("training.model.encoder.cpu.factors.MAX_EXPONENT_RANGE", exponent_range)
    encoder = make_encoder(num_layers, variant).double()
    found, computed = [], []
    for is_told in (False, True):
        inputs = make_inputs(torch.float64)
        keys_RS = few_pins(inputs)
        encoded = encoder(**inputs, action_pin_keys_RS=keys_RS if is_told else None)
        wanted = [*encoder.parameters(), inputs["candidate_pins_CE"], inputs["action_pins_RSE"]]
        weight = torch.randn(encoded.shape, generator=torch.Generator().manual_seed(6)).double()
        *gradients, to_pins = torch.autograd.grad(encoded, wanted, weight, allow_unused=True)
        # which of several equal actions gets their gradient does not matter
        by_key = torch.zeros(7, 10, 8, dtype=torch.float64)
        by_key.scatter_add_(1, (keys_RS + 1)[:, :, None].expand_as(to_pins), to_pins)
        found.append([encoded, by_key[:, 1:], *(g for g in gradients if g is not None)])
        computed.append(sum(int(c.num_tokens_R.sum()) for c in passes_through_the_stack))
        passes_through_the_stack.clear()
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)
    assert exponent_range < 1.0 or computed[1] < 0.7 * computed[0]


def test_equal_actions_are_kept_apart_where_something_tells_them_apart() -> None:
    torch.manual_seed(12)
    config = ModelConfig(action_embedding_dim=4, num_attention_heads=1, feedforward_dim=6)
    dropped = config.model_copy(update={"dropout": 0.5, "max_actions": S})
    aged = config.model_copy(update={"dropout": 0.0, "max_actions": S, "use_action_ages": True})
    for of_kind in (dropped, aged):
        encoder = SequenceEncoder(4, 8, of_kind)
        inputs = make_inputs(torch.float32)
        keys_RS = few_pins(inputs)
        if encoder.age_embedding is not None:
            torch.nn.init.normal_(encoder.age_embedding.weight)
        ages_ms_RS = torch.randint(0, 10**9, keys_RS.shape)
        encoded = []
        for keys in (None, keys_RS):
            torch.manual_seed(13)  # dropout's
            encoded.append(encoder(**inputs, action_ages_ms_RS=ages_ms_RS, action_pin_keys_RS=keys))
        assert torch.equal(*encoded)


def test_backward_within_an_autocast_is_that_without() -> None:
    encoder, found = make_encoder(2, "default"), []
    for is_within in (False, True):
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = encoder(**make_inputs(torch.float32)).float().square().mean()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_within):
            loss.backward()
        found.append([p.grad.clone() for p in encoder.layers[1].parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=1e-3)


def test_a_second_backward_pass_is_refused_not_wrong() -> None:
    encoded = make_encoder(2, "default")(**make_inputs(torch.float32))
    encoded.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="call the encoder again"):
        encoded.sum().backward()


def test_without_gradients_the_numbers_are_the_same() -> None:
    encoder = make_encoder(2, "reference")
    expected = encoder(**make_inputs(torch.float32))
    with torch.inference_mode():
        assert torch.equal(encoder(**make_inputs(torch.float32)), expected)
    encoder.requires_grad_(False)
    inputs = {name: tensor.detach() for name, tensor in make_inputs(torch.float32).items()}
    frozen = encoder(**inputs)
    torch.testing.assert_close(frozen, expected.detach())
    assert not frozen.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_loss_that_is_not_a_number_reaches_every_weight(dtype) -> None:
    encoder = make_encoder(2, "default")
    weight = torch.zeros(51, encoder.output_dim, dtype=dtype)
    weight[4, 30] = float("nan")
    _, *gradients = encoded_and_gradients(encoder, weight)
    assert all(gradient.isnan().any() for gradient in gradients)


@pytest.mark.parametrize("name", ["feedforward_in", "feedforward_out", "query_key_value"])
def test_a_weight_that_is_not_a_number_is_seen(name: str) -> None:
    encoder = make_encoder(2, "default")
    with torch.no_grad():
        getattr(encoder.layers[1], name).weight[0, 0] = float("nan")
    encoded = encoder(**make_inputs(torch.float32)).unflatten(1, (4, -1))
    assert encoded[:, 0].isnan().any(dim=1)[:45].all()
