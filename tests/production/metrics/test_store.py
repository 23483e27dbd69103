"""A whole cycle's metrics in a real store: names, values, and what the alert rules make of them.

Each stage runs as Airflow runs it, in a process of its own, before a real MLflow server.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pipelines.contracts.artifacts import STAGES, Challenger, ResolvedRun, Snapshot
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import Decision, Judgement, Promotion
from pipelines.metrics.instruments import INSTRUMENTS
from pipelines.stages.runner import read_artifact
from support.debian_tools import tool
from support.metrics_store import Store, metrics_store
from support.prometheus_names import label_name, metric_name
from support.runs import PLANTED_AS_OF
from support.worlds import write_planted_world

pytestmark = [pytest.mark.services, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[3]
RARE = {"homefeed.stage.gpu.held_time"}
"""What a cycle on the processor does not send."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    program = tool("victoria-metrics", "victoria-metrics")
    with metrics_store(program, tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(scope="module")
def environment(
    store: Store, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    home = tmp_path_factory.mktemp("measured")
    write_planted_world(home / "event_log", num_users=240)
    return {
        **os.environ,
        **store.environment,
        "PYTHONPATH": ":".join(sys.path),
        "OMP_NUM_THREADS": "1",
        "HOMEFEED_HOME": str(home),
        "HOMEFEED_TRACKING_URI": tracking_uri,
        "HOMEFEED_REGISTERED_MODEL": "measured",
        "HOMEFEED_EXPERIMENT": "measured",
    }


def homefeed(environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pipelines.cli", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def resolve(environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    day = f"{PLANTED_AS_OF:%Y-%m-%d}"
    return homefeed(environment, "resolve", "--as-of", day, "--recipe", "smoke", *words)


@pytest.fixture(scope="module")
def run(environment: dict[str, str]) -> ResolvedRun:
    """A cycle that has ended."""
    done = resolve(environment)
    assert done.returncode == 0, done.stderr
    run_uri = done.stdout.strip().splitlines()[-1]
    for stage in STAGES[1:]:
        done = homefeed(environment, "stage", stage, "--run", run_uri)
        assert done.returncode == 0, done.stderr
        assert "did not reach" not in done.stderr, done.stderr
    return read_artifact(run_uri, "resolve_run", ResolvedRun)


def firing(store: Store) -> set[tuple[str, str]]:
    """Return which rules' expressions give something now, with the stage that it is about."""
    groups = yaml.safe_load((ROOT / "docker" / "alerts" / "homefeed.yaml").read_text())["groups"]
    return {
        (rule["alert"], labels.get("homefeed_stage", ""))
        for group in groups
        for rule in group["rules"]
        for labels, _ in store.query(rule["expr"])
    }


def test_the_store_has_every_gauge_under_the_name_that_the_rules_use(
    run: ResolvedRun, store: Store
) -> None:
    store.value('homefeed_stage_duration_seconds{homefeed_stage="alert"}')
    found: dict[str, set[str]] = {}
    for labels, _ in store.query('last_over_time({__name__=~"homefeed_.*"}[1h])'):
        found.setdefault(labels["__name__"], set()).update(labels)
    gauges = [each for each in INSTRUMENTS if each.kind == "gauge" and each.name not in RARE]
    assert set(found) == {metric_name(each) for each in gauges}, (
        "counters are dropped by this store"
    )
    for each in gauges:
        labels = {label for label in found[metric_name(each)] if label.startswith(("home", "cpu"))}
        failures = {"error_type", "homefeed_is_retryable"}  # Nothing has failed.
        assert labels == {label_name(name) for name in each.attributes} - failures


def test_the_values_are_those_of_the_cycle(run: ResolvedRun, store: Store) -> None:
    snapshot = read_artifact(run.run_uri, "build_snapshot", Snapshot)
    challenger = read_artifact(run.run_uri, "train_challenger", Challenger)
    judgement = read_artifact(run.run_uri, "compare_with_champion", Judgement)
    promotion = read_artifact(run.run_uri, "promote_challenger", Promotion)
    rows = 'homefeed_stage_rows{homefeed_row="example",homefeed_stage="%s"}'
    assert store.value(rows % "build_snapshot") == snapshot.num_examples
    assert store.value(rows % "train_challenger") == challenger.num_training_examples
    assert store.value(rows % "compare_with_champion") == judgement.comparison.num_examples
    for decision in Decision:
        state = store.value(f'homefeed_verdict_state{{homefeed_verdict="{decision}"}}')
        assert state == (judgement.verdict.decision is decision)
    assert promotion.champion_after is not None
    as_of = store.value("homefeed_champion_as_of_seconds")
    assert as_of == promotion.champion_after.as_of.timestamp()
    age = store.value("homefeed_champion_age_seconds")
    assert age == pytest.approx(datetime.now(UTC).timestamp() - as_of, abs=600)


def test_the_processes_of_a_training_count(run: ResolvedRun, store: Store) -> None:
    """The stage's own process waits for them, and holds no model."""
    about = '{homefeed_stage="train_challenger"%s}'
    cpu = "homefeed_stage_cpu_time_seconds"
    wall_s = store.value("homefeed_stage_duration_seconds" + about % "")
    user_s = store.value(cpu + about % ',cpu_mode="user"')
    assert 2 < user_s < wall_s * (os.cpu_count() or 1)
    peak = store.value("homefeed_stage_memory_peak_bytes" + about % "")
    assert 400e6 < peak < store.value("homefeed_stage_memory_limit_bytes" + about % "")


def test_the_rules_say_what_is_wrong_and_nothing_else(
    run: ResolvedRun, store: Store, environment: dict[str, str], tmp_path: Path
) -> None:
    # The planted world lies in 2017, so its champion is old.
    old = ("HomefeedChampionOld", "")
    assert firing(store) == {old}
    nowhere = {"HOMEFEED_EVENT_LOG": str(tmp_path / "nowhere")}
    done = resolve(environment | nowhere, "--key", "another")
    assert done.returncode == DataContractError.exit_code, done.stderr
    failed = ("HomefeedStageFailedForGood", "resolve_run")
    end = time.monotonic() + 20
    while failed not in firing(store):
        assert time.monotonic() < end, firing(store)
        time.sleep(0.2)
    assert firing(store) == {old, failed}
