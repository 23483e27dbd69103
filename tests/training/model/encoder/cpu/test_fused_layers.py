"""The hand-written layers and their gradients against plain ones and autograd's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.contracts.config import ModelConfig
from training.model.encoder.columns import MaxAndNewest
from training.model.encoder.cpu.fused_layers import FeedForward, OwnAttention
from training.model.encoder.cpu.layer_stack import Columns, LayerStack
from training.model.encoder.cpu.matrix_products import padded
from training.model.encoder.cpu.parts import Gradient, Kept, Part, Positions, make_parts
from training.model.encoder.layer import TransformerLayer
from training.model.encoder.sequence_encoder import SequenceEncoder

B, S, D, HIDDEN = 5, 60, 12, 5
NUM_ROWS = B * S  # and filling


def parameters_of(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def plain_attention(
    x: Tensor, query_w: Tensor, query_b: Tensor, value_w: Tensor, value_b: Tensor, hidden: Tensor
) -> Tensor:
    scores = F.linear(x, query_w, query_b) @ x.transpose(1, 2)
    shares = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
    return x + shares @ F.linear(x, value_w, value_b)


def plain_feed_forward(x: Tensor, *parameters: Tensor) -> Tensor:
    norm_w, norm_b, in_w, in_b, out_w, out_b, last_w, last_b = parameters
    normed = F.layer_norm(x, (D,), norm_w, norm_b)
    hidden = F.relu(F.linear(normed, in_w, in_b))
    return F.layer_norm(normed + F.linear(hidden, out_w, out_b), (D,), last_w, last_b)


def filled_up(rows: Tensor) -> Tensor:
    missing = padded(len(rows)) - len(rows)
    assert missing > 0  # or the test does not show what it should
    return F.pad(rows, (0, 0, 0, missing))


def whole_gradient() -> tuple[Gradient, Tensor]:
    gradient_BSD = torch.randn(B, S, D, dtype=torch.float64)
    return Gradient(filled_up(gradient_BSD.flatten(0, 1)), Positions((B, S), None)), gradient_BSD


def gradient_at_some() -> tuple[Gradient, Tensor]:
    """Of 25 positions of each sequence, in no order."""
    position = torch.stack([torch.randperm(S)[:25] for _ in range(B)])
    rows = torch.randn(B * 25, D, dtype=torch.float64)
    place = (position + S * torch.arange(B)[:, None]).flatten()
    whole = torch.zeros(B * S, D, dtype=torch.float64).index_copy(0, place, rows)
    place = F.pad(place, (0, padded(len(place)) - len(place)))
    return Gradient(filled_up(rows), Positions((B, 25), place)), whole.view(B, S, D)


@pytest.fixture(params=[whole_gradient, gradient_at_some])
def gradient(request: pytest.FixtureRequest) -> tuple[Gradient, Tensor]:
    torch.manual_seed(7)
    return request.param()


def whole(gradient: Gradient) -> Tensor:
    total = torch.zeros(padded(NUM_ROWS), D, dtype=torch.float64)
    gradient.add_to(total)
    return total[:NUM_ROWS]


def assert_same_gradients(
    ours: Tensor, plain: Tensor, inputs: list[Tensor], gradient: Tensor
) -> None:
    expected = torch.autograd.grad(plain, inputs, gradient)
    assert_same([ours, *torch.autograd.grad(ours, inputs, gradient)], [plain, *expected])


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("is_hidden", [True, False])
def test_attention_is_the_plain_one(gradient: tuple[Gradient, Tensor], is_hidden: bool) -> None:
    torch.manual_seed(8)
    x, *parameters = parameters_of((B, S, D), (D, D), (D,), (D, D), (D,))
    hidden = (torch.rand(B, 1, S) < 0.2) & torch.tensor(is_hidden)
    mask = torch.zeros(B, 1, S, dtype=torch.float64).masked_fill(hidden, float("-inf"))
    part = Part(slice(0, B), slice(0, 1), (B, S), mask if is_hidden else None)
    expected = plain_attention(x, *parameters, hidden)
    block = OwnAttention([p.detach() for p in parameters], None)
    entered = filled_up(x.detach().flatten(0, 1))
    found, mixed = block.forward(entered, part)
    assert_same([found[:NUM_ROWS]], [expected.flatten(0, 1)])
    block.start_backward()
    kept = Kept(entered, mixed, entered, entered, entered)  # only the first two are read
    kept = kept.take(gradient[0].at)
    to_x = whole(block.backward(gradient[0], kept, part)).view(B, S, D)
    expected_gradients = torch.autograd.grad(expected, [x, *parameters], gradient[1])
    assert_same([to_x, *block.finish_backward()], list(expected_gradients))


def test_feed_forward_is_the_plain_one(gradient: tuple[Gradient, Tensor]) -> None:
    torch.manual_seed(9)
    shapes = [(B, S, D), (D,), (D,), (HIDDEN, D), (HIDDEN,), (D, HIDDEN), (D,), (D,), (D,)]
    x, *parameters = parameters_of(*shapes)
    expected = plain_feed_forward(x, *parameters)
    block = FeedForward([p.detach() for p in parameters], None)
    sums = filled_up(x.detach().flatten(0, 1))
    found, mean, scale = block.forward(sums)
    assert_same([found[:NUM_ROWS]], [expected.flatten(0, 1)])
    block.start_backward()
    kept = Kept(None, sums, sums, mean, scale).take(gradient[0].at)
    to_x = whole(block.backward(gradient[0], kept)).view(B, S, D)
    expected_gradients = torch.autograd.grad(expected, [x, *parameters], gradient[1])
    assert_same([to_x, *block.finish_backward()], list(expected_gradients))


@pytest.mark.parametrize("num_candidates", [1, 3, 19, 30])
@pytest.mark.parametrize("num_tokens", [[1], [60, 60, 59, 30, 30, 2, 1], [900, 900, 800], [5] * 99])
def test_parts_hold_every_sequence_once_and_few_rows(
    num_tokens: list[int], num_candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.model.encoder.cpu.parts.PART_ROWS", 1000)
    times = torch.zeros(len(num_tokens), num_candidates)
    mask = torch.where(torch.rand(len(num_tokens), max(num_tokens)) < 0.5, 0.0, -torch.inf)
    for part in make_parts(num_candidates, num_tokens, mask):
        times[part.requests, part.candidates] += 1
        chosen = times[part.requests, part.candidates]
        longest = max(num_tokens[part.requests])
        assert part.shape == (chosen.numel(), longest)
        assert part.shape[0] <= 8 or part.shape[0] * longest <= 1000
        expected = mask[part.requests, :longest].repeat_interleave(chosen.shape[1], dim=0)
        assert expected.any() == (part.mask_B1S is not None)
        assert part.mask_B1S is None or torch.equal(part.mask_B1S[:, 0], expected)
    assert (times == 1).all()


@pytest.mark.parametrize("num_pooled", [[7, 7, 7], [7, 3, 7], [1, 7, 2], [2, 2, 1]])
def test_the_pool_and_the_newest_are_those_of_plain_indexing(num_pooled: list[int]) -> None:
    torch.manual_seed(11)
    tokens = torch.randn(3, 2, 7, D, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[0, 1, 2], [2, 0, 2], [6, 6, 5]])
    pooled = [tokens[r, :, :count].amax(dim=1) for r, count in enumerate(num_pooled)]
    newest = [tokens[r][:, index[r]] for r in range(3)]
    plain = torch.cat([torch.stack(pooled)[:, :, None], torch.stack(newest)], dim=2)
    ours = MaxAndNewest.apply(tokens, torch.tensor(num_pooled), index)
    assert_same_gradients(ours, plain, [tokens], torch.randn(3, 2, 4, D, dtype=torch.float64))


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
    """Requests of several lengths and numbers of candidates, one that looks at nothing."""
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
def passes_through_the_stack(monkeypatch: pytest.MonkeyPatch) -> list[Columns]:
    """What has gone through the hand-written layers."""
    passes: list[Columns] = []
    apply = LayerStack.apply

    def counted(columns: Columns, *rest: object) -> Tensor:
        passes.append(columns)
        return apply(columns, *rest)

    monkeypatch.setattr(LayerStack, "apply", counted)
    return passes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("dense_share", [0.0, 0.85, 1.0])
@pytest.mark.parametrize("variant", ["default", "reference"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_encoder_equals_that_of_plain_layers(
    num_layers, variant, dense_share, dtype, monkeypatch, passes_through_the_stack
) -> None:
    monkeypatch.setattr("training.model.encoder.cpu.parts.PART_ROWS", 500)  # several times round
    monkeypatch.setattr("training.model.encoder.cpu.layer_stack.DENSE_SHARE", dense_share)
    encoder = make_encoder(num_layers, variant)
    weight = torch.randn(51, encoder.output_dim, dtype=torch.float64)
    weight[3] = 0.0
    fused = encoded_and_gradients(encoder, weight.to(dtype))
    num_passes = len(passes_through_the_stack)
    assert num_passes > 1
    monkeypatch.setattr(TransformerLayer, "may_be_fused", lambda *_: False)
    plain = encoded_and_gradients(encoder, weight)
    assert len(passes_through_the_stack) == num_passes
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for found, expected in zip(fused, plain, strict=True):
        atol = tolerance * max(1.0, float(expected.detach().abs().max()))
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=atol)


def few_pins(inputs: dict[str, Tensor]) -> Tensor:
    """Have each request look at few pins, and return the pins' keys."""
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
    monkeypatch.setattr("training.model.encoder.layer.MAX_EXPONENT_RANGE", exponent_range)
    encoder = make_encoder(num_layers, variant).double()
    found, computed = [], []
    for is_told in (False, True):
        inputs = make_inputs(torch.float64)
        keys_RS = few_pins(inputs)
        encoded = encoder(**inputs, action_pin_keys_RS=keys_RS if is_told else None)
        wanted = [*encoder.parameters(), inputs["candidate_pins_CE"], inputs["action_pins_RSE"]]
        weight = torch.randn(encoded.shape, generator=torch.Generator().manual_seed(6)).double()
        *gradients, to_pins = torch.autograd.grad(encoded, wanted, weight, allow_unused=True)
        # which of its equals an action's gradient goes to is no matter
        by_key = torch.zeros(7, 10, 8, dtype=torch.float64)
        by_key.scatter_add_(1, (keys_RS + 1)[:, :, None].expand_as(to_pins), to_pins)
        found.append([encoded, by_key[:, 1:], *(g for g in gradients if g is not None)])
        computed.append(sum(int(c.num_tokens_R.sum()) for c in passes_through_the_stack))
        passes_through_the_stack.clear()
    assert_same(found[1], found[0])
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


def test_keys_that_do_not_tell_pins_apart_change_nothing() -> None:
    encoder = make_encoder(2, "default")
    inputs = make_inputs(torch.float64)
    keys_RS = torch.zeros_like(inputs["action_types_RS"])
    found = encoder.double()(**inputs, action_pin_keys_RS=keys_RS)
    assert_same([found], [encoder(**inputs)])


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


def test_scores_too_far_apart_for_two_factors_take_the_plain_way(
    monkeypatch, passes_through_the_stack
) -> None:
    encoder = make_encoder(2, "default")
    weight = torch.randn(51, encoder.output_dim, dtype=torch.float64)
    expected = encoded_and_gradients(encoder, weight)
    passes_through_the_stack.clear()
    monkeypatch.setattr("training.model.encoder.layer.MAX_EXPONENT_RANGE", 1e-3)
    found = encoded_and_gradients(encoder, weight)
    assert_same(found, expected)
    # only the request that looks at nothing has a spread of zero
    assert len(passes_through_the_stack) <= 1
