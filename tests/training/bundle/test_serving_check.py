"""The serving check: what it measures of a good bundle, and what it holds against a bad one."""

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipelines.contracts.config import ServingConfig
from pipelines.contracts.errors import HomefeedError, ProcessKilledError
from support.serving import wait_until
from training.bundle import serving_check
from training.bundle.files import GOLDEN, Predictor, load_bundle, read_golden, write_bundle
from training.bundle.serving_check import check_serving, measure
from training.data.batches import Batch

QUICK = ServingConfig(num_calls=20)


@pytest.fixture(scope="module")
def bundle(trained) -> Path:
    return Path(trained[1].bundle_dir)


def test_a_good_bundle_passes_and_is_measured(bundle: Path) -> None:
    found = check_serving(bundle, QUICK)
    assert found.problems == ()
    assert found.golden_difference <= 1e-5
    assert 0 < found.latency_p50_ms <= found.latency_p99_ms
    assert 50 < found.peak_memory_mib < 2048
    assert found.score_spread > 0.01


def test_a_call_that_waits_for_the_machine_is_not_slow(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Predictor.probabilities

    def waits(self: Predictor, batch: Batch) -> np.ndarray:
        time.sleep(0.02)
        return score(self, batch)

    limit = 15 + 2 * measure(bundle, QUICK).processor_p99_ms
    monkeypatch.setattr(Predictor, "probabilities", waits)
    found = measure(bundle, QUICK.model_copy(update={"max_processor_p99_ms": limit}))
    assert found.latency_p50_ms > 20 and found.problems == ()


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Let two processes more than there are cores do nothing but spin."""
    spin = [sys.executable, "-c", "while True: pass"]
    spinning = [subprocess.Popen(spin) for _ in range(len(os.sched_getaffinity(0)) + 2)]
    yield
    for each in spinning:
        each.kill()
        each.wait()


@pytest.mark.usefixtures("busy_machine")
def test_a_busy_machine_makes_challenger_and_champion_wait_alike(bundle: Path) -> None:
    alone = check_serving(bundle, QUICK)
    found = check_serving(bundle, QUICK, bundle)
    assert alone.wall_ratio is None and found.problems == ()
    assert found.wall_ratio is not None and 0.5 < found.wall_ratio < 2


@pytest.mark.parametrize(("waits_s", "is_slow"), [(0.0, False), (0.15, True)])
def test_a_challenger_that_waits_longer_than_the_champion_is_slow(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits_s: float, is_slow: bool
) -> None:
    champion, score = tmp_path / "champion", Predictor.probabilities
    of_heads(1.0, 0.5)(bundle, champion)

    def waits(self: Predictor, batch: Batch) -> np.ndarray:
        is_champion = bool((self.ranker.heads.bias == 0.5).all())
        time.sleep(0.0 if is_champion else waits_s)
        return score(self, batch)

    monkeypatch.setattr(Predictor, "probabilities", waits)
    codes = [problem.code for problem in measure(bundle, QUICK, champion).problems]
    assert codes == ["serving_waits"] * is_slow


ASK_MEMORY = "from training.bundle.serving_check import peak_memory_mib; print(peak_memory_mib())"
LARGE_PARENT = f"""
import subprocess, sys
import numpy as np
held = np.ones(150_000_000)  # 1,144 MiB
subprocess.run([sys.executable, "-c", {ASK_MEMORY!r}], check=True)
"""


def test_the_memory_of_the_process_that_asks_is_not_charged_to_the_bundle() -> None:
    command = [sys.executable, "-c", LARGE_PARENT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 50 < float(done.stdout) < 1_000


def of_other_golden(bundle: Path, folder: Path) -> None:
    shutil.copytree(bundle, folder)
    tensors = load_file(folder / GOLDEN)
    tensors["expected_probabilities_CH"] += 3e-5  # little enough to be loaded
    with safe_open(folder / GOLDEN, framework="pt") as golden:
        written_beside = golden.metadata()
    save_file(tensors, folder / GOLDEN, metadata=written_beside)


def of_heads(weights: float, bias: float) -> Callable[[Path, Path], None]:
    """Return what writes a bundle whose heads have other weights and biases."""

    def write(bundle: Path, folder: Path) -> None:
        predictor = load_bundle(bundle)
        with torch.no_grad():
            predictor.ranker.heads.weight.mul_(weights)
            predictor.ranker.heads.bias.fill_(bias)
        write_bundle(folder, predictor.ranker, predictor.config, read_golden(bundle, 3)[0])

    return write


@pytest.mark.parametrize(
    ("write", "limit", "says"),
    [
        (shutil.copytree, {"max_processor_p99_ms": 1e-6}, "ms of the processor"),
        (shutil.copytree, {"max_memory_mib": 1.0}, "peak memory"),
        (of_other_golden, {}, "golden rows differ"),
        (of_heads(1.0, 1e4), {}, "share of scores at 0 or 1"),
        (of_heads(0.0, 0.3), {}, "every golden row got the same score"),
    ],
)
def test_what_must_not_serve_is_rejected(
    bundle: Path, tmp_path: Path, write: Callable[[Path, Path], object], limit: dict, says: str
) -> None:
    write(bundle, tmp_path / "bundle")
    found = measure(tmp_path / "bundle", QUICK.model_copy(update=limit))
    assert any(says in problem.sentence for problem in found.problems)


def stand_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a shell script take the place of Python, in which the check is made."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo the end >&2; kill -9 $$", "(?s)SIGKILL.*more memory.*the end"),
        ("exec sleep 60", r"(?s)timed out after 0\.2 seconds.*its end says:\n(?!None|b')"),
    ],
)
def test_a_check_that_was_killed_may_be_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    stand_in(tmp_path, script, monkeypatch)
    if "sleep" in script:
        monkeypatch.setattr(serving_check, "_TIMEOUT_S", 0.2)
    with pytest.raises(ProcessKilledError, match=says):
        check_serving(tmp_path, QUICK)


def test_a_check_without_an_answer_tells_its_end(tmp_path: Path) -> None:
    with pytest.raises(HomefeedError, match=r"(?s)exit status 1.*bundle\.json"):
        check_serving(tmp_path, QUICK)


def test_a_check_dies_with_the_stage_that_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = tmp_path / "pid"
    stand_in(tmp_path, f"echo $$ > {noted}; exec sleep 60", monkeypatch)
    forked = multiprocessing.get_context("fork")
    stage = forked.Process(target=check_serving, args=(tmp_path, QUICK))
    stage.start()
    try:
        wait_until(lambda: noted.exists() and noted.read_text(), 60)
    finally:
        stage.kill()
        stage.join()
    with contextlib.suppress(psutil.NoSuchProcess):
        checking = psutil.Process(int(noted.read_text()))
        # Where nobody waits for orphans, a dead one stays in the table.
        dead = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        wait_until(lambda: checking.status() in dead, 10)
