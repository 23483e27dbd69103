"""A whole cycle's metrics in a real store: their names, and what the alert rules make of them."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import DataContractError
from pipelines.metrics.instruments import INSTRUMENTS
from pipelines.stages.runner import read_artifact
from support.debian_tools import tool
from support.deployments import Deployment
from support.metrics_store import Store, metrics_store
from support.prometheus_names import label_name, metric_name
from support.runs import PLANTED_AS_OF
from support.serving import wait_until
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
def deployment(
    store: Store, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    """A deployment in which a cycle has ended."""
    home = tmp_path_factory.mktemp("measured")
    log, workspace = str(home / "event_log"), str(home / "workspace")
    write_planted_world(home / "event_log", num_users=240)
    made = Deployment(home, log, workspace, tracking_uri, "measured", store.environment)
    made.run_cycle("measured", PLANTED_AS_OF)
    return made


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
    deployment: Deployment, store: Store
) -> None:
    store.value('homefeed_stage_duration_seconds{homefeed_stage="alert"}')
    found: dict[str, set[str]] = {}
    for labels, _ in store.query('last_over_time({__name__=~"homefeed_.*"}[1h])'):
        found.setdefault(labels["__name__"], set()).update(labels)
    gauges = [each for each in INSTRUMENTS if each.name not in RARE]
    assert set(found) == {metric_name(each) for each in gauges}
    for each in gauges:
        labels = {label for label in found[metric_name(each)] if label.startswith(("home", "cpu"))}
        failures = {"error_type", "homefeed_is_retryable"}  # Nothing has failed.
        assert labels == {label_name(name) for name in each.attributes} - failures


def test_a_value_is_that_of_the_cycle(deployment: Deployment, store: Store) -> None:
    run_uri = deployment.run_uri("measured", PLANTED_AS_OF)
    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    assert store.value("homefeed_champion_as_of_seconds") == run.as_of.timestamp()


def test_the_rules_say_what_is_wrong_and_nothing_else(
    deployment: Deployment, store: Store, tmp_path: Path
) -> None:
    # The planted world lies in 2017, so its champion is old.
    old, failed = ("HomefeedChampionOld", ""), ("HomefeedStageFailedForGood", "resolve_run")
    wait_until(lambda: old in firing(store))
    assert firing(store) == {old}
    nowhere = replace(deployment, event_log=str(tmp_path / "nowhere"))
    ended = nowhere.perform(nowhere.act_of("resolve_run", "another", PLANTED_AS_OF))
    assert ended.code == DataContractError.exit_code, ended.said
    wait_until(lambda: failed in firing(store))
    time.sleep(1)
    assert firing(store) == {old, failed}
