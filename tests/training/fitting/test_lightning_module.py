"""One optimizer step: its learning rate, its optimizer, what it hides from the model."""

import pytest
import torch

from training.data.batches import visible_actions
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
    module.training_step(batch, 0)
    is_action = batch.action_types_RS > 0
    assert torch.equal(seen[0], visible_actions(batch, hours["time_window_mask_hours"]))
    hidden_R = (is_action & ~seen[0]).sum(dim=1)
    assert 0 < hidden_R.sum() < is_action.sum()
