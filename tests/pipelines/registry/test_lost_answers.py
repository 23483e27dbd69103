"""One run, one version and one model per cycle, whatever answers of a real MLflow are lost."""

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


def train_side(run: ResolvedRun, bundle: Path) -> ModelRef:
    """Do what `train_challenger` asks of MLflow; each client is a new process's."""
    client = tracking.connect(run.tracking_uri)
    run_id = tracking.open_run(client, run, "challenger", "a challenger")
    logged = log_bundle(client, bundle, run_id)
    tags = {"bundle_digest": digest_of_files(digest_files(bundle)), "snapshot_digest": "s" * 64}
    return registry.register(client, run, run_id, logged.uri, tags)


def assert_made_once(run: ResolvedRun, made: ModelRef) -> None:
    client = tracking.connect(run.tracking_uri)
    experiment = client.get_experiment_by_name(run.experiment).experiment_id
    [found] = client.search_runs([experiment])
    [logged] = client.search_logged_models([experiment])
    [version] = client.search_model_versions(f"name = '{run.registered_model}'")
    alias = client.get_model_version_by_alias(run.registered_model, "challenger")
    assert (made.version, made.mlflow_run_id) == ("1", found.info.run_id)
    assert str(version.version) == str(alias.version) == "1"
    assert (logged.model_uri, str(logged.status)) == (version.source, "READY")
    assert not client.search_logged_models(["0"], f"source_run_id = '{found.info.run_id}'")


@pytest.mark.parametrize("fault", ["request lost", "answer lost", "truncated"])
@pytest.mark.parametrize(
    "path",
    [
        *("experiments/create", "runs/create", "runs/search"),
        *("registered-models/create", "model-versions/create", "alias"),
        *("mlflow/logged-models", "bundle.json", "MLmodel", "outputs"),
    ],
)
def test_one_run_one_logged_model_and_one_version(
    run: ResolvedRun, proxy: FaultyProxy, tmp_path: Path, fault: str, path: str
) -> None:
    bundle = write_small_bundle(tmp_path / "bundle", 1)
    proxy.lose(path, fault)
    made = retried(lambda: train_side(run, bundle))
    assert proxy.met.pop()[0] == fault
    proxy.mend()
    assert train_side(run, bundle) == made
    assert_made_once(run, made)
