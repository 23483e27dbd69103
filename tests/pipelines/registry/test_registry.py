"""What the registry may answer: not there, not let in, no MLflow, a version without files."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines import storage
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    TrackingEntryMissingError,
)
from pipelines.registry import registry, tracking
from support.answers import PAGE, server_that_answers
from support.desk import Desk
from support.registered import register_bundle


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


def test_a_version_is_registered_once_and_comes_back_as_it_was(desk: Desk, tmp_path: Path) -> None:
    run = desk.cycle(0)
    model = register_bundle(desk.client, run, tmp_path)
    assert desk.champion is None
    version = desk.client.get_model_version(model.name, model.version)
    tags = dict(version.tags)
    assert registry.register(desk.client, run, model.mlflow_run_id, version.source, tags) == model
    alias = desk.client.get_model_version_by_alias(desk.name, "challenger")
    assert str(alias.version) == model.version
    found = registry.download_bundle(desk.client, model, tmp_path / "down")
    assert (found / "bundle.json").exists()
    altered = model.model_copy(update={"bundle_digest": "0" * 64})
    with pytest.raises(DataContractError, match="altered after registration"):
        registry.download_bundle(desk.client, altered, tmp_path / "down")


def test_a_foreign_version_behind_the_alias_is_refused(desk: Desk) -> None:
    model = desk.register(desk.cycle(0))
    source = desk.client.get_model_version(desk.name, model.version).source
    desk.client.create_model_version(desk.name, source=source)
    desk.point_at("2")
    with pytest.raises(DataContractError, match="has no tags"):
        assert desk.champion


def test_a_deleted_version_is_told_as_such(desk: Desk, tmp_path: Path) -> None:
    model = desk.register(desk.cycle(0))
    desk.client.delete_model_version(model.name, model.version)
    for ask in (
        lambda: registry.read_version(desk.client, model.name, model.version),
        lambda: registry.read_tags(desk.client, model),
        lambda: registry.download_bundle(desk.client, model, tmp_path),
    ):
        with pytest.raises(TrackingEntryMissingError, match="was deleted or never was") as caught:
            ask()
        assert (caught.value.exit_code, caught.value.is_retryable) == (77, False)


def test_a_version_whose_files_are_gone_is_no_outage(desk: Desk, tmp_path: Path) -> None:
    model = desk.register(desk.cycle(0))
    found = desk.client.get_model_version(desk.name, model.version).source
    artifacts = storage.local_path(found)
    [manifest] = artifacts.rglob("bundle.json")
    manifest.unlink()
    with pytest.raises(DataContractError, match=r"found 0 bundle.json files.*roll back"):
        registry.download_bundle(desk.client, model, tmp_path)
    shutil.rmtree(artifacts)
    with pytest.raises(DataContractError, match=r"found nothing at.*put them back") as caught:
        registry.download_bundle(desk.client, model, tmp_path)
    assert not caught.value.is_retryable
