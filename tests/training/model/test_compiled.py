"""Compiled and bfloat16 training give the numbers of the plain one, exactly or nearly."""

import functools
from pathlib import Path

import pytest
import torch

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from training.data.batches import Batch, visible_actions
from training.data.data_module import HomefeedDataModule
from training.fitting.lightning_module import RankerModule
from training.launch.launcher import train
from training.model.loss import weighted_loss

# the traced and decomposed graph, run as it is: inductor's C++ would take a minute to compile
COMPILER = "aot_eager"


@pytest.fixture
def data(planted) -> HomefeedDataModule:
    return HomefeedDataModule(planted.snapshot, planted.folder, planted.config)


def loss_and_gradients(
    config: RunConfig, data: HomefeedDataModule, batch: Batch
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    module = RankerModule(config, data.statistics(), batch.candidate_pins_CE.shape[1], 10)
    is_visible = visible_actions(batch, 0.0)
    weights = module.get_buffer("label_weights_HL")
    loss = weighted_loss(module.forward_ranker(batch, is_visible), batch, weights)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in module.ranker.named_parameters()}


def with_training(config: RunConfig, **changes: object) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def test_a_compiled_step_is_the_same_step(planted, data, monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=COMPILER))
    compiled_config = with_training(planted.config, use_compile=True)
    for size in (5, 8):
        batch = data.golden_batch(size, size + 1)
        loss, gradients = loss_and_gradients(planted.config, data, batch)
        compiled_loss, compiled_gradients = loss_and_gradients(compiled_config, data, batch)
        torch.testing.assert_close(compiled_loss, loss, atol=1e-5, rtol=0)
        for name, expected in gradients.items():
            allowed = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(compiled_gradients[name], expected, atol=allowed, rtol=0)


def test_compiled_code_without_a_compiler_is_refused(planted, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    spec = planted.spec(tmp_path, training={"use_compile": True})
    with pytest.raises(ConfigurationError, match="there is no no-such-compiler on this machine"):
        train(spec)


def test_a_training_in_bfloat16_ends_near_the_one_in_float32(planted, trained, tmp_path) -> None:
    result = train(planted.spec(tmp_path, training={"precision": "bf16-mixed"}))
    assert result.final_training_loss == pytest.approx(trained[1].final_training_loss, rel=0.05)
    assert result.bundle_digest != trained[1].bundle_digest
