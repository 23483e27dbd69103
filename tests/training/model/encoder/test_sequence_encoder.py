"""The encoder against a naive one, over lengths and modes, and what must not leak from it."""

import math

import pytest
import torch
from torch import Tensor

from pipelines.contracts.config import ModelConfig
from pipelines.contracts.errors import ConfigurationError
from training.model.encoder.sequence_encoder import SequenceEncoder, TransformerLayer

NUM_TYPES, E = 4, 8


@pytest.fixture(params=[1, 2], ids=["one head", "two heads"])
def config(request: pytest.FixtureRequest) -> ModelConfig:
    """A small encoder; one head goes through `training.model.encoder.cpu`, two do not."""
    return ModelConfig(
        action_embedding_dim=4,
        num_attention_heads=request.param,
        feedforward_dim=6,
        dropout=0.0,
        first_k=3,
    )


def make_encoder(config: ModelConfig) -> SequenceEncoder:
    torch.manual_seed(5)
    return SequenceEncoder(NUM_TYPES, E, config)


def make_inputs(lengths: list[int], candidates: int = 3, padded_to: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    longest = max([*lengths, padded_to, 1])
    types_RS = torch.randint(1, NUM_TYPES + 1, (len(lengths), longest), generator=generator)
    is_action_RS = torch.arange(longest) < torch.tensor(lengths)[:, None]
    pins_RSE = torch.randn(len(lengths), longest, E, generator=generator)
    return {
        "action_types_RS": types_RS.where(is_action_RS, torch.tensor(0)),
        "action_pins_RSE": pins_RSE * is_action_RS[:, :, None],
        "is_visible_RS": is_action_RS,
        "candidate_pins_CE": torch.randn(len(lengths) * candidates, E, generator=generator),
        "request_of_C": torch.arange(len(lengths)).repeat_interleave(candidates),
    }


def naive_row(encoder: SequenceEncoder, inputs: dict[str, Tensor], candidate: int) -> Tensor:
    """One candidate, visible actions only, no batching, no splitting, softmax written out."""
    request = int(inputs["request_of_C"][candidate])
    visible = inputs["is_visible_RS"][request]
    first = torch.zeros(encoder.first_k, encoder.width)
    if not visible.any():
        return torch.cat([torch.zeros(encoder.width), first.flatten()])
    actions = encoder.action_embedding(inputs["action_types_RS"][request][visible])
    pins = inputs["action_pins_RSE"][request][visible]
    own = inputs["candidate_pins_CE"][candidate].expand(len(actions), -1)
    tokens = torch.cat([actions, pins, own], dim=1)
    for layer in encoder.layers:
        assert isinstance(layer, TransformerLayer)
        tokens = naive_layer(layer, tokens)
    for row, position in enumerate(torch.nonzero(visible)[:, 0].tolist()):
        if position < encoder.first_k:
            first[position] = tokens[row]
    return torch.cat([tokens.max(dim=0).values, first.flatten()])


def naive_layer(layer: TransformerLayer, tokens: Tensor) -> Tensor:
    width = tokens.shape[1]
    query, key, value = layer.query_key_value(tokens).split(width, dim=1)
    size = width // layer.num_heads
    mixed = torch.zeros_like(tokens)
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(tokens)):
            scores = (key[:, part] @ query[i, part]) / math.sqrt(size)
            shares = torch.exp(scores - scores.max())
            mixed[i, part] = (shares / shares.sum()) @ value[:, part]
    attended = layer.attention_norm(tokens + layer.attention_out(mixed))
    hidden = layer.feedforward_out(torch.relu(layer.feedforward_in(attended)))
    return layer.feedforward_norm(attended + hidden)


@pytest.mark.parametrize("lengths", [[0], [1], [5], [40], [100], [0, 1, 5, 40, 100]])
def test_equals_a_naive_encoder_at_every_length(lengths: list[int], config: ModelConfig) -> None:
    encoder, inputs = make_encoder(config), make_inputs(lengths, candidates=2)
    with torch.no_grad():
        found = encoder(**inputs)
        expected = torch.stack([naive_row(encoder, inputs, c) for c in range(len(found))])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_training_evaluation_and_no_grad_agree(config: ModelConfig) -> None:
    encoder, inputs = make_encoder(config), make_inputs([0, 1, 5, 40, 100])
    training = encoder.train()(**inputs)
    evaluation = encoder.eval()(**inputs)
    with torch.no_grad():
        without_grad = encoder(**inputs)
    with torch.inference_mode():
        inference = encoder(**inputs)
    for other in (evaluation, without_grad, inference):
        torch.testing.assert_close(training, other, atol=1e-6, rtol=1e-5)


def test_padding_length_does_not_matter(config: ModelConfig) -> None:
    encoder = make_encoder(config)
    short, long = make_inputs([1, 5]), make_inputs([1, 5], padded_to=100)
    # the same actions, differently padded
    long["action_types_RS"][:, :5] = short["action_types_RS"]
    long["action_pins_RSE"][:, :5] = short["action_pins_RSE"]
    long["candidate_pins_CE"] = short["candidate_pins_CE"]
    torch.testing.assert_close(encoder(**short), encoder(**long), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("hidden", [0, 1, 4])
def test_nothing_of_a_hidden_action_gets_out(hidden: int, config: ModelConfig) -> None:
    encoder, inputs = make_encoder(config), make_inputs([5, 5])
    inputs["is_visible_RS"][0, hidden] = False
    before = encoder(**inputs)
    inputs["action_pins_RSE"][0, hidden] = 1e3
    inputs["action_types_RS"][0, hidden] = 1
    after = encoder(**inputs)
    torch.testing.assert_close(before, after, atol=0, rtol=0)
    columns = before[0, encoder.width :].view(encoder.first_k, encoder.width)
    if hidden < encoder.first_k:
        assert (columns[hidden] == 0).all()


def test_a_visible_action_does_matter(config: ModelConfig) -> None:
    encoder, inputs = make_encoder(config), make_inputs([5])
    before = encoder(**inputs)
    inputs["action_pins_RSE"][0, 4] += 1.0
    assert (encoder(**inputs) - before).abs().max() > 1e-3


def test_no_gradient_reaches_hidden_or_padded_positions(config: ModelConfig) -> None:
    encoder, inputs = make_encoder(config), make_inputs([0, 5], padded_to=8)
    inputs["is_visible_RS"][1, 0] = False
    inputs["action_pins_RSE"].requires_grad_()
    encoder(**inputs).square().sum().backward()
    gradient = inputs["action_pins_RSE"].grad
    assert gradient is not None
    assert (gradient[~inputs["is_visible_RS"]] == 0).all()
    assert (gradient[inputs["is_visible_RS"]] != 0).any()


def test_a_batch_without_candidates_gives_no_rows_and_zero_gradients(config: ModelConfig) -> None:
    encoder, inputs = make_encoder(config), make_inputs([3], candidates=1)
    inputs["candidate_pins_CE"] = inputs["candidate_pins_CE"][:0]
    inputs["request_of_C"] = inputs["request_of_C"][:0]
    found = encoder(**inputs)
    assert found.shape == (0, encoder.output_dim)
    found.sum().backward()
    gradients = [parameter.grad for parameter in encoder.parameters()]
    assert all(g is not None and (g == 0).all() for g in gradients)


def test_heads_must_divide_the_width(config: ModelConfig) -> None:
    with pytest.raises(ConfigurationError, match="num_attention_heads=3"):
        make_encoder(config.model_copy(update={"num_attention_heads": 3}))


def test_candidates_and_action_types_are_seen(config: ModelConfig) -> None:
    encoder, inputs = make_encoder(config), make_inputs([5, 2])
    types, pins = inputs["action_types_RS"], inputs["candidate_pins_CE"]
    found = encoder(**inputs)
    for others in (
        {"candidate_pins_CE": torch.flip(pins, [0])},
        {"action_types_RS": torch.where(types > 0, NUM_TYPES + 1 - types, 0)},
    ):
        assert not torch.allclose(encoder(**(inputs | others)), found, atol=1e-3)


def test_candidates_may_stand_in_any_order(config: ModelConfig) -> None:
    encoder, inputs = make_encoder(config), make_inputs([5, 0, 40, 2])
    order = torch.randperm(len(inputs["request_of_C"]), generator=torch.Generator().manual_seed(0))
    of_candidates = ("candidate_pins_CE", "request_of_C")
    shuffled = inputs | {name: inputs[name][order] for name in of_candidates}
    expected = encoder(**inputs)[order]
    torch.testing.assert_close(encoder(**shuffled), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("variant", ["default", "reference"])
def test_ages_matter_once_they_are_learnt_and_only_where_asked_for(
    variant: str, config: ModelConfig
) -> None:
    inputs = make_inputs([5, 0, 2])
    minutes = torch.tensor([0, 1, 3, 60, 10**7])
    ages = {"action_ages_ms_RS": (minutes * 60_000).expand(3, 5)}
    plain = make_encoder(config.model_copy(update={"encoder_variant": variant}))
    assert torch.equal(plain(**inputs, **ages), plain(**inputs))
    aged = make_encoder(
        config.model_copy(update={"encoder_variant": variant, "use_action_ages": True})
    )
    with torch.no_grad():
        aged.age_embedding.weight.normal_()
    found = aged(**inputs, **ages)
    for row, other in ((3, 1), (2, 3)):  # request 1 has no action, whose age could matter
        older = torch.where(torch.arange(5) == row, minutes[other], minutes) * 60_000
        changed = aged(**inputs, action_ages_ms_RS=older.expand(3, 5))
        assert not torch.allclose(changed[:3], found[:3], atol=1e-3)
        assert torch.equal(changed[3:6], found[3:6])
    # 10 000 000 minutes are in the last bucket, as 2 000 000 are
    shorter = {"action_ages_ms_RS": (minutes.clamp(max=2_000_000) * 60_000).expand(3, 5)}
    assert torch.equal(aged(**inputs, **shorter), found)
