"""What the processes of a model find: cores, memory, GPUs; for nodes see launch/test_nodes.py."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipelines.contracts.errors import ConfigurationError
from training.environment import model_environment, require_devices, threads_per_process
from training.spin_count import SPIN_S, spin_count


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


def test_threads_that_wait_sleep_soon_unless_a_person_says_how_they_wait(monkeypatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    count = model_environment(1)["GOMP_SPINCOUNT"]
    assert 20 <= int(count) <= 30_000  # a look takes 0.3 to 500 ns
    assert "GOMP_SPINCOUNT" not in model_environment(2)  # of one thread each: nobody waits
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert model_environment(1)["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "GOMP_SPINCOUNT" not in model_environment(1)


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """The count is measured once per process: let this test measure, and later ones again."""
    spin_count.cache_clear()
    yield
    spin_count.cache_clear()


@pytest.mark.usefixtures("unmeasured")
def test_the_count_lasts_as_long_as_it_should() -> None:
    """A thousand times the count must spin a thousand times SPIN_S, measured by itself."""
    library = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    environment = {**os.environ, "GOMP_SPINCOUNT": f"{spin_count()}000"}
    command = [sys.executable, "-m", "training.spin_count", str(library)]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    spun_s = float(done.stdout) / 1000
    assert SPIN_S / 3 < spun_s < SPIN_S * 3


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("is_installed", [True, False])
def test_without_libgomp_nothing_is_set_and_nothing_is_said(
    monkeypatch, tmp_path, caplog, is_installed: bool
) -> None:
    """A torch of another OpenMP, and none at all."""
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)]) if is_installed else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    assert spin_count() is None
    assert not caplog.records


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    "script",
    [
        "echo 'a library says hello'; echo 0.001",
        "echo nan",
        "echo 0.0",
        "exit 1",
        "kill -9 $$",
        "exec sleep 60",
    ],
)
def test_a_measurement_that_fails_ends_no_training(
    monkeypatch, tmp_path, caplog, script: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr("training.spin_count._PATIENCE_S", 0.5)
    assert spin_count() is None
    (warning,) = caplog.records
    assert "cannot be measured" in warning.getMessage()


def test_more_processes_than_the_cores_can_bear_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    require_devices(12, "cpu")
    with pytest.raises(ConfigurationError, match="13 training .* on 3 usable.* at most 12.*lower"):
        require_devices(13, "cpu")


def test_gpus_that_are_not_there_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    require_devices(1, "gpu")
    with pytest.raises(ConfigurationError, match="num_devices=2.* sees 1 GPUs.*accelerator=cpu"):
        require_devices(2, "gpu")
