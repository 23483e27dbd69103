"""One run, one version and one model per cycle, whatever answers of a real MLflow are lost."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import TrackingUnavailableError
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.registry import registry, tracking
from support.bundles import write_small_bundle
from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.runs import make_run
from training.bundle.mlflow_model import log_bundle

pytestmark = pytest.mark.services
Value = TypeVar("Value")
TAGS = {"bundle_digest": "b" * 64, "snapshot_digest": "s" * 64}
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
    proxy.lose(path, fault)
    model = retried(lambda: registry.register(client, run, run_id, source, TAGS))
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

    def train_side() -> ModelRef:
        client = tracking.connect(run.tracking_uri)
        run_id = tracking.open_run(client, run, "challenger", "a challenger")
        return registry.register(client, run, run_id, log_bundle(client, bundle, run_id).uri, TAGS)

    with spoiled(proxy, 0.3, at_least=10):
        model = retried(train_side, 100)
    client = tracking.connect(run.tracking_uri)
    [version] = client.search_model_versions(f"name = '{run.registered_model}'")
    experiment = client.get_experiment_by_name(run.experiment)
    [found] = client.search_runs([experiment.experiment_id])
    [logged] = client.search_logged_models([experiment.experiment_id])
    assert (model.version, model.mlflow_run_id) == ("1", found.info.run_id)
    assert str(version.version) == "1" and str(logged.status) == "READY"


def test_many_files_go_both_ways_through_a_line_that_spoils_one_request_in_twenty(
    run: ResolvedRun, proxy: FaultyProxy, tmp_path: Path
) -> None:
    """A registration that is tried again fetches all files, and compares them with its own."""
    client = tracking.connect(run.tracking_uri)
    bundle = write_small_bundle(tmp_path / "bundle", 1)
    run_id = tracking.open_run(client, run, "challenger", "a challenger")
    logged = log_bundle(client, bundle, run_id)
    tags = TAGS | {"bundle_digest": digest_of_files(digest_files(bundle))}
    model = registry.register(client, run, run_id, logged.uri, tags)
    with spoiled(proxy, 0.05, at_least=3):
        assert retried(lambda: log_bundle(client, bundle, run_id)) == logged
    with spoiled(proxy, 0.05, at_least=3):
        found = retried(lambda: registry.download_version(client, model, tmp_path / "down"))
    assert len([path for path in found.rglob("*") if path.is_file()]) > 50


@contextlib.contextmanager
def spoiled(proxy: FaultyProxy, share: float, at_least: int) -> Iterator[None]:
    """Spoil a share of the requests, and see that so many were."""
    proxy.met.clear()
    proxy.spoil(share=share, seed=7)
    try:
        yield
    finally:
        proxy.mend()
    assert len(proxy.met) >= at_least
