"""What the registry may answer: not there, not let in, no MLflow, a version without files."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    TrackingEntryMissingError,
)
from pipelines.registry import registry, tracking
from support.answers import PAGE, server_that_answers
from support.mlflow_server import mlflow_server
from support.registered import register_bundle
from support.runs import make_run


def register(client: MlflowClient, folder: Path) -> ModelRef:
    places = {"tracking_uri": client.tracking_uri, "registered_model": f"answers_{folder.name}"}
    return register_bundle(client, make_run(folder, **places), folder)


@pytest.fixture(autouse=True)
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def test_a_server_that_lets_nobody_in_is_told_at_the_first_request() -> None:
    with server_that_answers(401, b"You are not authenticated.") as uri:
        with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_USERNAME"):
            tracking.connect(uri)


def test_another_service_at_the_address_is_told_at_the_first_request() -> None:
    with server_that_answers(404, PAGE) as uri:
        with pytest.raises(ConfigurationError, match="HOMEFEED_TRACKING_URI"):
            tracking.connect(uri)


def test_a_page_that_is_not_found_is_not_taken_for_no_champion() -> None:
    """It would make the cycle the first one, which needs to beat popularity only."""
    with server_that_answers(404, PAGE) as uri:
        with pytest.raises(ConfigurationError):
            registry.read_champion(MlflowClient(uri, registry_uri=uri), "homefeed_ranker")


@pytest.mark.services
def test_no_champion_yet_is_no_error(tracking_uri: str) -> None:
    assert registry.read_champion(tracking.connect(tracking_uri), "never_registered") is None


@pytest.mark.services
def test_a_deleted_version_is_told_as_such(tmp_path: Path, tracking_uri: str) -> None:
    client = tracking.connect(tracking_uri)
    model = register(client, tmp_path)
    client.delete_model_version(model.name, model.version)
    for ask in (
        lambda: registry.read_version(client, model.name, model.version),
        lambda: registry.read_tags(client, model),
        lambda: registry.download_bundle(client, model, tmp_path),
    ):
        with pytest.raises(TrackingEntryMissingError, match="was deleted or never was") as caught:
            ask()
        assert (caught.value.exit_code, caught.value.is_retryable) == (77, False)


@pytest.mark.services
def test_a_version_of_before_there_was_a_digest_of_the_code_is_taken_by_its_bundle(
    tmp_path: Path, tracking_uri: str
) -> None:
    client = tracking.connect(tracking_uri)
    model = register(client, tmp_path)
    client.delete_model_version_tag(model.name, model.version, "model_digest")
    of_old = registry.read_version(client, model.name, model.version)
    assert model.model_digest != "" == of_old.model_digest
    altered = tmp_path / "serving_model.py"
    altered.write_text("print('and one more line')\n")
    client.log_artifact(model.mlflow_run_id, str(altered), "model")
    assert registry.download_bundle(client, of_old, tmp_path / "down").is_dir()
    with pytest.raises(DataContractError, match="the digest of its model with its serving code is"):
        registry.download_bundle(client, model, tmp_path / "down")


@pytest.mark.services
def test_a_version_whose_files_are_gone_is_no_outage(tmp_path: Path) -> None:
    with mlflow_server(tmp_path / "server") as uri:
        client = tracking.connect(uri)
        model = register(client, tmp_path)
        artifacts = tmp_path / "server" / "artifacts"
        [manifest] = artifacts.rglob("bundle.json")
        manifest.unlink()
        with pytest.raises(DataContractError, match="found 0 bundle.json files.*roll back"):
            registry.download_bundle(client, model, tmp_path)
        shutil.rmtree(artifacts)
        with pytest.raises(DataContractError, match="found nothing at.*put them back") as caught:
            registry.download_bundle(client, model, tmp_path)
    assert isinstance(caught.value, DataContractError) and not caught.value.is_retryable
