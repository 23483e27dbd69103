"""What the processes of a model find: cores, memory, GPUs; for nodes see launch/test_nodes.py."""

import os

import pytest
import torch

from pipelines.contracts.errors import ConfigurationError
from training.environment import (
    model_environment,
    require_devices,
    threads_per_process,
    wait_briefly,
)


@pytest.mark.parametrize(
    ("num_cores", "num_processes", "asked_for", "expected"),
    [(8, 1, "", 8), (8, 3, "", 2), (2, 4, "", 1), (8, 2, "3", 3), (8, 2, "6", 4), (8, 2, "0", 4)],
)
def test_processes_share_the_cores_and_keep_below_what_was_asked_for(
    monkeypatch, num_cores, num_processes, asked_for, expected
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(num_cores)))
    monkeypatch.setenv("OMP_NUM_THREADS", asked_for)
    assert threads_per_process(num_processes) == expected
    assert model_environment(num_processes)["OMP_NUM_THREADS"] == str(expected)


def test_what_a_person_set_for_the_allocator_is_kept(monkeypatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    environment = model_environment(1)
    assert environment["MALLOC_TRIM_THRESHOLD_"] == "1"
    assert int(environment["MALLOC_MMAP_THRESHOLD_"]) > 2**30
    assert environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


@pytest.mark.parametrize("said", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "9"}])
def test_threads_wait_briefly_unless_somebody_says_how(said: dict[str, str]) -> None:
    environment = dict(said)
    wait_briefly(environment)
    assert environment == (said or {"GOMP_SPINCOUNT": "1000"})


def test_devices_that_are_not_there_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    require_devices(12, "cpu")
    with pytest.raises(ConfigurationError, match="13 training .* on 3 usable.* at most 12.*lower"):
        require_devices(13, "cpu")
    require_devices(1, "gpu")
    with pytest.raises(ConfigurationError, match="'gpu' with 2 device.* has 1 GPU.* 'cpu'"):
        require_devices(2, "gpu")
