"""The serving check: what it measures of a good bundle, and what it holds against a bad one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipelines.contracts.config import ServingConfig
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Decision, ServingCheck, Verdict
from support.comparisons import CONFIG, SOUND, comparison
from support.holdouts import HEADS
from training.bundle.files import GOLDEN, load_bundle, read_golden, write_bundle
from training.bundle.serving_check import check_serving
from validation.model_gate.verdict import decide

QUICK = ServingConfig(num_calls=20)


@pytest.fixture(scope="module")
def bundle(trained) -> Path:
    return Path(trained[1].bundle_dir)


def verdict_with(serving: ServingCheck) -> Verdict:
    """Return the verdict on a challenger that is better and would be promoted."""
    return decide(comparison(), SOUND, serving, CONFIG, HEADS)


def test_a_good_bundle_passes_and_is_measured(bundle: Path) -> None:
    found = check_serving(bundle, QUICK)
    assert found.problems == ()
    assert found.golden_difference <= 1e-5
    assert 0 < found.latency_p50_ms <= found.latency_p99_ms
    assert 50 < found.peak_memory_mib < 2048
    assert found.score_spread > 0.01
    promoted = verdict_with(found)
    assert promoted.decision is Decision.PROMOTE
    assert promoted.reasons[-1] == found.describe()


LARGE_PARENT = """
import subprocess, sys
import numpy as np
held = np.ones(150_000_000)  # 1,144 MiB
ask = "from training.bundle.serving_check import peak_memory_mib; print(peak_memory_mib())"
subprocess.run([sys.executable, "-c", ask], check=True)
"""


def test_the_memory_of_the_process_that_asks_is_not_charged_to_the_bundle() -> None:
    command = [sys.executable, "-c", LARGE_PARENT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 50 < float(done.stdout) < 1_000


def assert_rejected(bundle: Path, config: ServingConfig, says: str) -> None:
    found = check_serving(bundle, config)
    verdict = verdict_with(found)
    assert verdict.decision is Decision.REJECT
    assert says in verdict.reasons[0] and "allowed" in verdict.reasons[0]
    assert "above the -1.00 % required" in verdict.reasons[2]  # better, and yet not promoted


@pytest.mark.parametrize(
    ("limit", "says"),
    [({"max_latency_p99_ms": 1e-6}, "latency p99"), ({"max_memory_mib": 1.0}, "peak memory")],
)
def test_a_budget_that_is_broken_rejects(bundle: Path, limit: dict, says: str) -> None:
    assert_rejected(bundle, QUICK.model_copy(update=limit), says)


def test_golden_rows_that_come_out_differently_reject(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    tensors = load_file(copy / GOLDEN)
    tensors["expected_probabilities_CH"] += 3e-5  # little enough to be loaded
    with safe_open(copy / GOLDEN, framework="pt") as golden:
        written_beside = golden.metadata()
    save_file(tensors, copy / GOLDEN, metadata=written_beside)
    assert_rejected(copy, QUICK, "golden rows differ")


@pytest.mark.parametrize(
    ("weights", "bias", "says"),
    [(1.0, 1e4, "share of scores at 0 or 1"), (0.0, 0.3, "every golden row got the same score")],
)
def test_scores_that_say_nothing_reject(
    bundle: Path, tmp_path: Path, weights: float, bias: float, says: str
) -> None:
    predictor = load_bundle(bundle)
    golden, _ = read_golden(bundle, len(predictor.config.features.heads))
    with torch.no_grad():
        predictor.ranker.heads.weight.mul_(weights)
        predictor.ranker.heads.bias.fill_(bias)
    write_bundle(tmp_path / "bundle", predictor.ranker, predictor.config, golden)
    found = check_serving(tmp_path / "bundle", QUICK)
    assert any(says in problem for problem in found.problems)
    assert verdict_with(found).decision is Decision.REJECT


def test_a_bundle_that_cannot_be_served_stops_the_stage(tmp_path: Path) -> None:
    with pytest.raises(HomefeedError, match=r"(?s)exit code 1.*bundle\.json") as caught:
        check_serving(tmp_path, QUICK)
    assert "run it by hand" in str(caught.value)
