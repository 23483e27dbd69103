"""What a run may ask to be trained on, by where its stages run and what the settings say of it."""

from datetime import UTC, datetime
from typing import Any

import pytest
import torch

from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.errors import ConfigurationError
from pipelines.preconditions.hardware import require_hardware
from pipelines.settings import Settings

BUCKET = {"workspace": "s3://bucket/workspace"}


def request(**options: Any) -> RunRequest:
    day = datetime(2017, 6, 12, tzinfo=UTC)
    usual = {"recipe": "smoke", "as_of": day, "now": day, "may_promote": True, "trigger": "x"}
    return RunRequest(**({"num_devices": 1, **usual} | options))


@pytest.mark.parametrize(
    ("runner", "devices", "is_taken"),
    [("bash", 1, True), ("bash", 2, False), ("docker", 4, True), ("kubernetes", 8, True)],
)
def test_gpus_are_counted_where_stages_run_on_the_worker(
    monkeypatch: pytest.MonkeyPatch, runner: str, devices: int, is_taken: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    settings = Settings(stage_runner=runner)
    on_gpus = request(accelerator="gpu", num_devices=devices)
    if is_taken:
        require_hardware(on_gpus, settings)
        return
    with pytest.raises(ConfigurationError) as caught:
        require_hardware(on_gpus, settings)
    told = str(caught.value)
    assert f"'gpu' with {devices} device(s)" in told and "'cpu' or fewer devices" in told


@pytest.mark.parametrize("runner", ["bash", "docker"])
def test_a_runner_that_starts_one_machine_is_not_asked_for_two(runner: str) -> None:
    settings = Settings(stage_runner=runner, stage_image="x")
    require_hardware(request(), settings)
    with pytest.raises(ConfigurationError, match=f"nodes is 2.* is '{runner}'.*'kubernetes' for"):
        require_hardware(request(num_nodes=2), settings)


@pytest.mark.parametrize(
    ("places", "is_taken"),
    [
        ({}, True),  # a volume that all mount, by the pod template
        (BUCKET, False),
        (BUCKET | {"work_folder": "/trainings"}, True),
    ],
)
def test_several_machines_must_share_a_folder(places: dict[str, str], is_taken: bool) -> None:
    settings = Settings(stage_runner="kubernetes", **places)
    require_hardware(request(), settings)
    if is_taken:
        require_hardware(request(num_nodes=2), settings)
        return
    with pytest.raises(ConfigurationError, match="share no folder: HOMEFEED_WORK_FOLDER is .*Many"):
        require_hardware(request(num_nodes=2), settings)
