"""Versions in MLflow's registry: registered once, fetched as they were, missing, and altered."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines import storage
from pipelines.contracts import mlflow_errors
from pipelines.contracts.errors import (
    DataContractError,
    TrackingEntryMissingError,
    TrackingUnavailableError,
)
from pipelines.registry import registry, tracking
from support.answers import server_that_answers
from support.desk import Desk
from support.judgements import CHAMPION
from support.registered import register_bundle
from training.bundle.mlflow_model import fetch


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
    desk.client.create_model_version(desk.name, source=version.source)
    desk.point_at("2")
    with pytest.raises(DataContractError, match="lineage tags {}"):  # somebody else's
        assert desk.champion


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("as_of", "soon"),
        ("bundle_digest", "../.."),
        ("snapshot_digest", "a/b"),
        ("model_digest", ".."),
    ],
)
def test_what_a_registry_says_is_checked_before_a_path_is_made_of_it(
    desk: Desk, tag: str, value: str
) -> None:
    """What serves is then taken for somebody else's, so that a rollback or a repair goes on."""
    model = desk.register(desk.cycle(0))
    desk.client.set_model_version_tag(desk.name, model.version, tag, value)
    desk.point_at(model.version)
    with pytest.raises(DataContractError, match=f"{tag}.*{value}.*expected .*a time and digests"):
        assert desk.champion
    served = registry.read_champion(desk.client, desk.name, is_ours=False)
    assert served is not None and (served.version, served.bundle_digest) == (model.version, "")


@pytest.mark.parametrize("body", [b"{}", b'{"model_version": {}}', b'{"run": {"info": {}}}'])
def test_an_answer_about_nothing_is_an_outage_and_no_move_by_somebody_else(
    desk: Desk, body: bytes
) -> None:
    with server_that_answers(200, body) as uri:
        client, run = tracking.connect(uri), desk.cycle(0).model_copy(update={"tracking_uri": uri})
        for ask in (
            lambda: registry.read_champion(client, "ranker", is_ours=False),
            lambda: registry.read_version(client, "ranker", "1"),
            lambda: registry.read_keeper(client, "ranker"),
            lambda: registry.find_location(client, "m-1"),
            lambda: tracking.open_run(client, run, "challenger", "c"),
        ):
            with pytest.raises(TrackingUnavailableError, match="its answer to .* is about nothing"):
                ask()


def test_an_answer_without_a_body_is_an_outage_and_no_empty_list() -> None:
    """What is made once would be made again, and what is written be taken for written."""
    with server_that_answers(200) as uri:
        with pytest.raises(TrackingUnavailableError, match="there is no body"):
            tracking.connect(uri)
        for ask in (
            lambda: registry.read_versions(MlflowClient(uri, uri), "ranker"),
            lambda: registry.point_champion_at(MlflowClient(uri, uri), CHAMPION),
        ):
            with pytest.raises(TrackingUnavailableError, match="there is no body"):
                ask()


LISTS = [b"", b"[]", b"null", b"3", b'{"files": null}', b'{"files": [3]}', b'{"files": [{}]}']


@pytest.mark.parametrize("body", LISTS)
def test_a_list_of_artifacts_that_is_none_is_an_outage(body: bytes, tmp_path: Path) -> None:
    with server_that_answers(200, body) as uri:
        with pytest.raises(TrackingUnavailableError), mlflow_errors.translated_outages(uri):
            fetch("mlflow-artifacts:/1/models/m-1/artifacts", tmp_path, uri)


def test_a_deleted_version_is_told_as_such(desk: Desk, tmp_path: Path) -> None:
    model = desk.register(desk.cycle(0))
    desk.client.delete_model_version(model.name, model.version)
    for ask in (
        lambda: registry.read_version(desk.client, model.name, model.version),
        lambda: registry.require_unaltered(desk.client, model),
        lambda: registry.download_bundle(desk.client, model, tmp_path),
    ):
        with pytest.raises(TrackingEntryMissingError, match="was deleted or never was") as caught:
            ask()
        assert (caught.value.exit_code, caught.value.is_retryable) == (77, False)


def test_a_version_whose_files_are_gone_is_no_outage(desk: Desk, tmp_path: Path) -> None:
    model = desk.register(desk.cycle(0))
    artifacts = storage.local_path(desk.client.get_model_version(desk.name, model.version).source)
    [manifest] = artifacts.rglob("bundle.json")
    for remove in (manifest.unlink, lambda: shutil.rmtree(artifacts)):
        remove()
        with pytest.raises(DataContractError, match=r"found 0 bundle.json .*put them back") as told:
            registry.download_bundle(desk.client, model, tmp_path)
        assert not told.value.is_retryable and "roll back" in str(told.value)
