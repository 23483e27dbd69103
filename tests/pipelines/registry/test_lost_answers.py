"""One run, one version and one model per cycle, whatever answers of a real MLflow are lost."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import TrackingUnavailableError
from pipelines.registry import registry, tracking
from support.bundles import write_small_bundle
from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.registered import register_bundle
from support.runs import make_run
from training.bundle.mlflow_model import log_bundle

pytestmark = pytest.mark.services
Value = TypeVar("Value")
LOSSES = ("request lost", "answer lost", "truncated")


@pytest.fixture(scope="module")
def proxy(tracking_uri: str) -> Iterator[FaultyProxy]:
    with faulty_proxy(tracking_uri) as proxy:
        yield proxy


@pytest.fixture
def run(tmp_path: Path, proxy: FaultyProxy) -> ResolvedRun:
    name = f"lost_{tmp_path.name}"
    return make_run(tmp_path, tracking_uri=proxy.url, registered_model=name, experiment=name)


def retried(action: Callable[[], Value], times: int = 3) -> Value:
    """Do as Airflow does: try again where the error says that this may help."""
    for _ in range(times - 1):
        try:
            return action()
        except TrackingUnavailableError:
            continue
    return action()


@pytest.mark.parametrize("fault", LOSSES)
@pytest.mark.parametrize("path", ["experiments/create", "runs/create", "runs/search"])
def test_one_run(run: ResolvedRun, proxy: FaultyProxy, fault: str, path: str) -> None:
    client = tracking.connect(run.tracking_uri)
    proxy.lose(path, fault)
    run_id = retried(lambda: tracking.open_run(client, run, "challenger", "a challenger"))
    assert proxy.met.pop()[0] == fault
    experiment = client.get_experiment_by_name(run.experiment)
    found = client.search_runs([experiment.experiment_id])
    assert [each.info.run_id for each in found] == [run_id]


@pytest.mark.parametrize("fault", LOSSES)
@pytest.mark.parametrize("path", ["registered-models/create", "model-versions/create", "alias"])
def test_one_version(
    run: ResolvedRun, proxy: FaultyProxy, tmp_path: Path, fault: str, path: str
) -> None:
    client = tracking.connect(run.tracking_uri)
    run_id = tracking.open_run(client, run, "challenger", "a challenger")
    source = client.get_run(run_id).info.artifact_uri + "/model"
    tags = {"bundle_digest": "b" * 64, "snapshot_digest": "s" * 64}
    proxy.lose(path, fault)
    model = retried(lambda: registry.register(client, run, run_id, source, tags))
    assert proxy.met.pop()[0] == fault
    found = client.search_model_versions(f"name = '{run.registered_model}'")
    assert len(found) == 1
    alias = client.get_model_version_by_alias(run.registered_model, "challenger")
    assert str(alias.version) == model.version == "1"


@pytest.mark.parametrize("fault", LOSSES)
@pytest.mark.parametrize("path", ["mlflow/logged-models", "bundle.json", "MLmodel", "outputs"])
def test_one_logged_model_in_the_cycle_s_experiment(
    run: ResolvedRun, proxy: FaultyProxy, tmp_path: Path, fault: str, path: str
) -> None:
    client = tracking.connect(run.tracking_uri)
    run_id = tracking.open_run(client, run, "challenger", "a challenger")
    bundle = write_small_bundle(tmp_path / "bundle", 1)
    proxy.lose(path, fault)
    logged = retried(lambda: log_bundle(client, bundle, run_id))
    assert proxy.met.pop()[0] == fault
    proxy.mend()
    assert log_bundle(client, bundle, run_id) == logged
    experiment = client.get_experiment_by_name(run.experiment)
    [model] = client.search_logged_models([experiment.experiment_id])
    assert (model.model_uri, str(model.status)) == (logged.uri, "READY")
    assert not client.search_logged_models(["0"], f"source_run_id = '{run_id}'")


def test_a_bundle_gets_through_a_line_that_spoils_a_third_of_all_requests(
    run: ResolvedRun, proxy: FaultyProxy, tmp_path: Path
) -> None:
    bundle = write_small_bundle(tmp_path / "bundle", 1)
    tags = {"bundle_digest": "b" * 64, "snapshot_digest": "s" * 64}

    def train_side() -> ModelRef:
        client = tracking.connect(run.tracking_uri)
        run_id = tracking.open_run(client, run, "challenger", "a challenger")
        uri = log_bundle(client, bundle, run_id).uri
        return registry.register(client, run, run_id, uri, tags)

    proxy.met.clear()
    proxy.spoil(share=0.3, seed=7)
    try:
        model = retried(train_side, 100)
    finally:
        proxy.mend()
    assert len(proxy.met) >= 10
    client = tracking.connect(run.tracking_uri)
    [version] = client.search_model_versions(f"name = '{run.registered_model}'")
    experiment = client.get_experiment_by_name(run.experiment)
    [found] = client.search_runs([experiment.experiment_id])
    [logged] = client.search_logged_models([experiment.experiment_id])
    assert (model.version, model.mlflow_run_id) == ("1", found.info.run_id)
    assert str(version.version) == "1" and str(logged.status) == "READY"


def test_a_model_of_many_files_is_fetched_through_a_line_that_spoils_one_request_in_twenty(
    run: ResolvedRun, proxy: FaultyProxy, tmp_path: Path
) -> None:
    client = tracking.connect(run.tracking_uri)
    model = register_bundle(client, run, tmp_path, is_logged=True)
    proxy.met.clear()
    proxy.spoil(share=0.05, seed=7)
    try:
        found = retried(lambda: registry.download_version(client, model, tmp_path / "down"))
    finally:
        proxy.mend()
    assert len(proxy.met) >= 3
    assert len([path for path in found.rglob("*") if path.is_file()]) > 50


def test_a_registration_is_tried_again_through_a_line_that_spoils_one_request_in_twenty(
    run: ResolvedRun, proxy: FaultyProxy, tmp_path: Path
) -> None:
    """The retry fetches all files of the logged model, and compares them with what was logged."""
    client = tracking.connect(run.tracking_uri)
    run_id = tracking.open_run(client, run, "challenger", "a challenger")
    bundle = write_small_bundle(tmp_path / "bundle", 1)
    logged = log_bundle(client, bundle, run_id)
    proxy.met.clear()
    proxy.spoil(share=0.05, seed=7)
    try:
        found = retried(lambda: log_bundle(client, bundle, run_id))
    finally:
        proxy.mend()
    assert found == logged
    assert len(proxy.met) >= 3
