"""The server of rankings in containers: what it is given exists, and what it imports is there."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement

from pipelines.cli.main import app
from pipelines.serving.batching import MOST_AT_ONCE, MOST_WAITING
from pipelines.serving.server import TOKEN
from pipelines.settings import Settings
from support.kubernetes_objects import read_back

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSED = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["ranker"]
KINDS = {"HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler"}
VARIABLES = {TOKEN, "HOMEFEED_RANKER_OPTIONS"} | {
    f"HOMEFEED_{name.upper()}" for name in Settings.model_fields
}
WITHOUT_OTHERS = """
from importlib.machinery import PathFinder
found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: (
    None if name.partition(".")[0] in {others} else found(name, *more)
)
from pipelines.cli import main, serve
from pipelines.registry import history, reconcile, registry, tracking
from pipelines.serving import served_log, server
from training.bundle import files
import uvicorn
"""


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    """The objects of the cluster's file by their kind."""
    found = yaml.safe_load_all((DOCKER / "kubernetes" / "ranker.yaml").read_text())
    return {
        each["kind"]: read_back(each, KINDS.get(each["kind"], f"V1{each['kind']}"))
        for each in found
    }


def options_of(words: list[str]) -> dict[str, Any]:
    """Return what `homefeed serve` understands of its options; one that it does not know fails."""
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return dict(command.make_context("serve", words).params)


def test_pods_are_changed_without_a_gap_and_keep_nothing(objects: dict[str, Any]) -> None:
    spec = objects["Deployment"].spec
    assert spec.strategy.rolling_update.max_unavailable == 0 and spec.replicas is None
    pod, [container] = spec.template.spec, spec.template.spec.containers
    probes = container.liveness_probe, container.startup_probe, container.readiness_probe
    assert [each.http_get.path for each in probes] == ["/health", "/health", "/ready"]
    assert pod.termination_grace_period_seconds >= 5 + 10 + 2 * 20  # As cli/serve.py, server.py.
    assert pod.security_context.run_as_non_root
    assert container.security_context.read_only_root_filesystem
    assert [each.empty_dir is not None for each in pod.volumes] == [True]
    options = options_of([word.replace("$(CORES)", "2") for word in container.args])
    assert (options["host"], options["threads"]) == ("0.0.0.0", 2)
    [port] = container.ports
    assert port.container_port == options["port"]
    names = {each.name for each in container.env}
    assert {name for name in names if name.startswith("HOMEFEED_")} <= VARIABLES
    labels = spec.template.metadata.labels
    found = [objects["Service"].spec.selector, spec.selector.match_labels]
    assert found == [labels] * 2
    assert objects["PodDisruptionBudget"].spec.selector.match_labels == labels


def test_the_queue_s_length_chooses_how_many_pods_there_are(objects: dict[str, Any]) -> None:
    """That the server has such a metric, tests/pipelines/serving/test_server.py asks a real one."""
    spec, deployment = objects["HorizontalPodAutoscaler"].spec, objects["Deployment"]
    target = spec.scale_target_ref
    assert (target.kind, target.name) == (deployment.kind, deployment.metadata.name)
    [metric] = spec.metrics
    assert metric.type == "Pods" and 2 <= spec.min_replicas < spec.max_replicas
    assert MOST_AT_ONCE < int(metric.pods.target.average_value) < MOST_WAITING
    told = deployment.spec.template.metadata.annotations
    expected = {"scrape": "true", "port": "8500", "path": "/metrics"}
    assert told == {f"prometheus.io/{key}": value for key, value in expected.items()}


def test_the_stack_serves_with_a_token_or_not_at_all(tmp_path: Path) -> None:
    assert COMPOSED["environment"].keys() - VARIABLES == {
        name for name in COMPOSED["environment"] if name.startswith("AWS_")
    }
    shell, flag, script = COMPOSED["entrypoint"]
    script = script.replace("$$", "$").replace("/run/secrets", str(tmp_path))
    assert set(re.findall(r"HOMEFEED_\w+", script)) <= VARIABLES
    program = tmp_path / "homefeed"
    program.write_text(f'#!/bin/sh\nprintf "%s|" "${TOKEN}" "$@"\n')
    program.chmod(0o755)
    told = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOMEFEED_RANKER_OPTIONS": "--log s3://b/l"}
    command: Any = {"args": [shell, flag, script], "env": told, "capture_output": True}
    assert subprocess.run(**command, check=False).returncode != 0
    (tmp_path / "serving_token").write_text("s3cret")
    [token, name, *words, _] = subprocess.run(**command, check=True).stdout.decode().split("|")
    assert (token, name, options_of(words)["log"]) == ("s3cret", "serve", "s3://b/l")


@pytest.mark.slow
def test_what_serving_imports_is_in_the_image() -> None:
    """Of everything installed here, the image's requirements and what they need may be imported."""
    text = (DOCKER / "requirements" / "ranker.txt").read_text()
    wanted, seen = ["torch", *re.findall(r"^[\w-]+", text, re.MULTILINE)], {"homefeed-retrain"}
    while wanted:
        if (name := wanted.pop()) not in seen:
            seen.add(name)
            needed = map(Requirement, importlib.metadata.requires(name) or ())
            wanted += [
                each.name for each in needed if each.marker is None or each.marker.evaluate()
            ]
    plain = {re.sub("[-_.]+", "-", name).lower() for name in seen}
    modules = importlib.metadata.packages_distributions().items()
    owners = {top: {re.sub("[-_.]+", "-", of).lower() for of in owned} for top, owned in modules}
    others = {top for top, owned in owners.items() if not owned & plain}
    assert {"mlflow", "torch"}.isdisjoint(others) and {"airflow", "sklearn"} <= others
    code = WITHOUT_OTHERS.format(others=others)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
