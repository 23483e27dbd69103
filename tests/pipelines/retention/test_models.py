"""Old models at a real MLflow server: marked as deleted by its own call, and nothing else."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import DataContractError
from pipelines.registry import registry, tracking
from pipelines.retention.collect import why_model_stays
from pipelines.retention.inventory import find_versions
from pipelines.retention.plan import FoundVersion
from support.fake_registry import FakeRegistry, Page
from support.judgements import CHAMPION
from support.registered import promote_bundle, register_bundle
from support.runs import make_run

pytestmark = pytest.mark.services


class Old(NamedTuple):
    """A registered model whose first version serves, and whose second one is a logged model."""

    client: MlflowClient
    run: ResolvedRun
    champion: ModelRef
    logged: ModelRef

    @property
    def name(self) -> str:
        return self.run.registered_model

    def find(self) -> dict[str, FoundVersion]:
        return {each.name: each for each in find_versions(self.client, self.name)}

    def copy(self, number: str, name: str) -> None:
        """Copy a version into a registered model by MLflow's own call."""
        self.client.copy_model_version(f"models:/{self.name}/{number}", name)


@pytest.fixture
def old(tracking_uri: str, tmp_path: Path) -> Old:
    client = tracking.connect(tracking_uri)

    def cycle(run_id: str, **fields: object) -> ResolvedRun:
        name = f"old_{tmp_path.name}"
        names = {"registered_model": name, "experiment": name, "tracking_uri": tracking_uri}
        return make_run(tmp_path, run_id=run_id, **names, **fields)

    first = cycle("r1")
    champion = promote_bundle(client, first, tmp_path)
    run = cycle("r2", as_of=first.as_of + timedelta(days=14), champion=champion)
    return Old(client, run, champion, register_bundle(client, run, tmp_path, is_small=True))


def test_a_logged_model_is_marked_as_deleted_and_version_run_and_others_stay(
    old: Old, tmp_path: Path
) -> None:
    client = old.client
    other = old.run.model_copy(update={"run_id": "r3"})
    register_bundle(client, other, tmp_path, is_small=True)
    plain, first, second = old.find().values()
    # Files that are artifacts of an MLflow run are none that could be deleted.
    assert (plain.model_id, plain.aliases) == ("", ("champion",))
    assert (first.name, first.aliases, second.aliases) == ("2", (), ("challenger",))
    client.delete_logged_model(first.model_id)
    left = [each.model_id for each in old.find().values()]
    assert left == ["", "", second.model_id]
    assert len(client.search_model_versions(f"name = '{old.name}'")) == 3
    assert client.get_run(old.logged.mlflow_run_id).info.lifecycle_stage == "active"
    tags = client.get_model_version(old.name, old.logged.version).tags
    assert tags["bundle_digest"] == old.logged.bundle_digest


@pytest.mark.parametrize("version", ["2", "3"])
def test_what_is_marked_as_deleted_can_be_fetched_and_is_refused_as_is_a_copy(
    old: Old, tmp_path: Path, version: str
) -> None:
    old.copy("2", old.name)
    old.client.delete_logged_model(old.find()["2"].model_id)
    model = old.logged.model_copy(update={"version": version})
    assert registry.download_bundle(old.client, model, tmp_path / "marked").is_dir()
    told = f"v{version} cannot become champion: its logged model .* is marked as deleted"
    with pytest.raises(DataContractError, match=told):
        registry.require_unaltered(old.client, model)


def test_versions_that_are_one_logged_model_are_told_and_named_before_it_goes(old: Old) -> None:
    client, elsewhere = old.client, f"{old.name}_elsewhere"
    client.delete_registered_model_alias(old.name, "challenger")
    alone = old.find()["2"]
    assert why_model_stays(client, old.name, alone) == ""
    client.set_registered_model_alias(old.name, "mine", "2")
    assert "an alias was given" in why_model_stays(client, old.name, alone)

    version = client.get_model_version(old.name, "2")
    place = client.get_logged_model(alone.model_id).artifact_location
    client.create_model_version(old.name, place, version.run_id, model_id=alone.model_id)
    # Of a copy's copy, whose source is a registered model that is gone, and made anew.
    old.copy("2", f"{old.name}_between")
    client.copy_model_version(f"models:/{old.name}_between/1", elsewhere)
    client.delete_registered_model(f"{old.name}_between")
    client.create_registered_model(f"{old.name}_between")
    client.create_model_version(f"{old.name}_between", "s3://bucket/another/model")
    found = old.find()
    assert [each.shared_by for each in found.values()] == [
        (),
        (f"{old.name} v3", f"{elsewhere} v1"),
        (f"{old.name} v2", f"{elsewhere} v1"),
    ]
    told = why_model_stays(client, old.name, alone)
    assert told.startswith(f"it is registered as {old.name} v2, {old.name} v3, {elsewhere} v1")


def test_every_page_of_versions_is_read(tmp_path: Path) -> None:
    client = FakeRegistry(tmp_path / "registry.json")
    client.add(CHAMPION)
    [ours] = client.search_model_versions("of one model")
    theirs = SimpleNamespace(**(vars(ours) | {"name": "theirs"}))
    pages = {None: Page([ours]), "more": Page([theirs])}
    pages[None].token = "more"
    client.search_model_versions = lambda page_token=None: pages[page_token]  # type: ignore[method-assign,assignment]
    [found] = find_versions(client, CHAMPION.name)  # type: ignore[arg-type]
    assert found.shared_by == (f"theirs v{ours.version}",)
