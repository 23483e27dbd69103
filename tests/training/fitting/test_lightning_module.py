"""One optimizer step: its learning rate, its optimizer, what it hides from the model."""

from types import SimpleNamespace

import pytest
import torch

from pipelines.contracts.errors import DataContractError
from support.device_cost import autocast_on_meta, to_meta
from training.data.batches import Batch, visible_actions
from training.data.data_module import HomefeedDataModule
from training.fitting.lightning_module import RankerModule, learning_rate_factor
from training.fitting.spec import TrainingSpec


def make_module(spec: TrainingSpec, data: HomefeedDataModule, num_steps: int = 100) -> RankerModule:
    width = data.reader.pins["embedding"].shape[1]
    return RankerModule(spec.config, data.statistics(), width, num_steps)


@pytest.fixture
def data(planted) -> HomefeedDataModule:
    return HomefeedDataModule(planted.snapshot, planted.folder, planted.config)


def test_the_learning_rate_rises_then_falls_by_a_cosine() -> None:
    factors = [learning_rate_factor(step, 4, 24) for step in range(25)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[14] == pytest.approx(0.5)  # half way down
    assert factors[24] == pytest.approx(0.0)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert learning_rate_factor(0, 0, 10) == 1.0


def test_adam_with_decay_follows_the_schedule_step_by_step(planted, data, tmp_path) -> None:
    options = {"learning_rate": 0.01, "weight_decay": 0.1, "warmup_steps": 4}
    made = make_module(planted.spec(tmp_path, training=options), data).configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["weight_decay"], group["betas"]) == (0.1, (0.9, 0.999))
    assert schedule["interval"] == "step"
    rates = []
    for _ in range(6):
        rates.append(group["lr"])
        optimizer.step()
        schedule["scheduler"].step()
    assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert rates[5] < 0.01


def test_a_training_step_hides_the_actions_within_the_window(
    planted, data, tmp_path, monkeypatch
) -> None:
    hours = {"time_window_mask_hours": 24 * 365.0}
    module = make_module(planted.spec(tmp_path, model=hours), data)
    seen: list[torch.Tensor] = []
    module.ranker.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    monkeypatch.setattr(type(module), "trainer", type("Trainer", (), {"world_size": 1})())
    batch = data.make(0, data.plan(0).share(0, 0, 1))
    module.training_step(module.on_before_batch_transfer(batch, 0), 0)
    is_action = batch.action_types_RS > 0
    assert torch.equal(seen[0], visible_actions(batch, hours["time_window_mask_hours"]))
    hidden_R = (is_action & ~seen[0]).sum(dim=1)
    assert 0 < hidden_R.sum() < is_action.sum()


def test_no_step_waits_for_a_device(planted, data, tmp_path, monkeypatch) -> None:
    module = make_module(planted.spec(tmp_path, model={"dropout": 0.1}), data).to("meta")
    monkeypatch.setattr(type(module), "trainer", type("Trainer", (), {"world_size": 1})())
    batch = data.make(0, data.plan(0).share(0, 0, 1))
    planned = to_meta(module.on_before_batch_transfer(batch, 0))
    with autocast_on_meta():
        module.training_step(planned, 0).backward()
    optimizer = SimpleNamespace()
    module.configure_gradient_clipping(optimizer)
    assert optimizer.found_inf.is_meta  # read where the weights are
    with pytest.raises(RuntimeError, match="meta"):  # as whatever waits for numbers
        module.require_finite()


@pytest.mark.parametrize("field", ["numeric_CN", "labels_CH"])
def test_a_step_that_is_not_finite_changes_no_weight_and_is_told(
    planted, data, tmp_path, monkeypatch, field: str
) -> None:
    module = make_module(planted.spec(tmp_path), data)
    trainer = SimpleNamespace(world_size=1, num_training_batches=5)
    monkeypatch.setattr(RankerModule, "trainer", trainer)
    monkeypatch.setattr(RankerModule, "global_step", 8)
    optimizer = module.configure_optimizers()["optimizer"]
    batch = data.make(0, data.plan(0).share(0, 0, 1))
    spoilt = batch._replace(**{field: torch.full_like(getattr(batch, field), torch.inf)})
    before = [parameter.detach().clone() for parameter in module.parameters()]

    def changes_weights(given: Batch) -> bool:
        optimizer.zero_grad()
        module.training_step(module.on_before_batch_transfer(given, 0), 0).backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        return not all(map(torch.equal, before, module.parameters()))

    assert not changes_weights(spoilt)
    for look in (module.on_save_checkpoint, lambda _: module.on_train_batch_start(None, 0)):
        with pytest.raises(DataContractError, match="at step 7, epoch 1, batch 2: loss is"):
            look({})
    assert changes_weights(batch)
    module.on_train_batch_start(None, 0)
