"""The CPU kernel gives what the plain layers give, and encodes where the configuration says so."""

import pytest
import torch
from torch import Tensor

from pipelines.contracts.config import ModelConfig
from training.model.encoder import cpu, layer
from training.model.encoder.layer import TransformerLayer
from training.model.encoder.sequence_encoder import SequenceEncoder
from training.model.encoder.tokens import TokenRoles

LENGTHS = torch.tensor([40, 40, 33, 7, 1])
R, S, M, K, E, d = 5, 40, 11, 3, 8, 12
CPU = torch.device("cpu")


def make_config(**changes: object) -> ModelConfig:
    small = ModelConfig(action_embedding_dim=4, num_attention_heads=1, feedforward_dim=6, dropout=0)
    return ModelConfig(**(small.model_dump() | changes))


def make_layers(num_layers: int, **changes: object) -> list[TransformerLayer]:
    torch.manual_seed(1)
    layers = [TransformerLayer(d + E, make_config(**changes)) for _ in range(num_layers)]
    with torch.no_grad():  # biases and norms start at constants, which would hide mistakes
        for parameter in torch.nn.ModuleList(layers).parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layers


def make_roles(most_merged: int) -> TokenRoles:
    """Return roles of ragged requests whose tokens stand for up to most_merged actions each."""
    counts = torch.randint(1, most_merged + 1, (R, S), generator=torch.Generator().manual_seed(2))
    counts = counts * (torch.arange(S) < LENGTHS[:, None])
    counts[0, 5] = 0  # hidden, although other tokens follow
    return TokenRoles(
        log_count_RS=counts.double().log(),
        num_tokens_R=LENGTHS,
        num_pooled_R=LENGTHS - (LENGTHS > 30).long(),
        newest_RK=torch.minimum(torch.arange(K), LENGTHS[:, None] - 1),
    )


@pytest.mark.parametrize("most_merged", [1, 4], ids=["all different", "merged"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_kernel_gives_what_the_plain_layers_give(
    num_layers: int, most_merged: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.model.encoder.cpu.blocks.BLOCK_ROWS", 500)  # several blocks
    layers = [layer.double() for layer in make_layers(num_layers)]
    roles = make_roles(most_merged)
    assert cpu.supports(layers, CPU, True)
    generator = torch.Generator().manual_seed(3)
    sequence = torch.randn(R, S, d, generator=generator).double().requires_grad_()
    candidates = torch.randn(R, M, E, generator=generator).double().requires_grad_()
    wanted = [sequence, candidates, *torch.nn.ModuleList(layers).parameters()]
    weight = torch.randn(R, M, 1 + K, d + E, generator=generator).double()
    found: list[list[Tensor | None]] = []
    for encode in (cpu.encode, layer.encode):
        columns = encode(layers, sequence, candidates, roles)
        assert columns is not None
        found.append([columns, *torch.autograd.grad(columns, wanted, weight)])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


def test_a_token_of_three_actions_is_three_tokens_of_one() -> None:
    layers = [layer.double() for layer in make_layers(2)]
    sequence, candidates = torch.randn(1, 4, d).double(), torch.randn(1, M, E).double()
    merged = TokenRoles(
        log_count_RS=torch.tensor([[1.0, 3.0, 1.0, 1.0]]).double().log(),
        num_tokens_R=torch.tensor([4]),
        num_pooled_R=torch.tensor([4]),
        newest_RK=torch.tensor([[0, 1, 1]]),
    )
    repeated = TokenRoles(None, torch.tensor([6]), torch.tensor([6]), torch.tensor([[0, 1, 2]]))
    expected = layer.encode(layers, sequence[:, [0, 1, 1, 1, 2, 3]], candidates, repeated)
    for encode in (cpu.encode, layer.encode):
        torch.testing.assert_close(encode(layers, sequence, candidates, merged), expected)


def test_scores_that_spread_too_far_are_left_to_the_plain_layers() -> None:
    layers = make_layers(1)
    roles = make_roles(1)._replace(log_count_RS=None)
    sequence, candidates = torch.randn(R, S, d), torch.randn(R, M, E)
    assert cpu.encode(layers, sequence, candidates, roles) is not None
    assert cpu.encode(layers, 100 * sequence, 100 * candidates, roles) is None


def test_what_the_kernel_supports() -> None:
    assert cpu.supports(make_layers(2), CPU, training=True)
    assert not cpu.supports(make_layers(2), torch.device("cuda"), training=True)
    assert not cpu.supports(make_layers(2, num_attention_heads=2), CPU, training=False)
    with_dropout = make_layers(2, dropout=0.1)
    assert not cpu.supports(with_dropout, CPU, training=True)
    assert cpu.supports(with_dropout, CPU, training=False)


def encoded(**changes: object) -> Tensor:
    torch.manual_seed(4)
    encoder = SequenceEncoder(4, E, make_config(**changes))
    generator = torch.Generator().manual_seed(5)
    return encoder(
        action_types_RS=torch.ones(2, 6, dtype=torch.int64),
        action_pins_RSE=torch.randn(2, 6, E, generator=generator),
        is_visible_RS=torch.ones(2, 6, dtype=torch.bool),
        candidate_pins_CE=torch.randn(5, E, generator=generator),
        request_of_C=torch.tensor([0, 0, 1, 1, 1]),
    )


def test_the_kernel_encodes_where_it_can_and_the_plain_layers_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast, calls = encoded(), []
    monkeypatch.setattr(cpu, "encode", lambda *_: calls.append("kernel"))  # None: it gives up
    torch.testing.assert_close(encoded(), fast, rtol=0, atol=1e-5)
    assert calls
    calls.clear()
    encoded(num_attention_heads=2)
    encoded(dropout=0.1)
    assert not calls
