"""Old models at a real MLflow server: marked as deleted by its own call, and nothing else."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import DataContractError
from pipelines.registry import history, moves, registry, tracking
from pipelines.retention import models
from pipelines.settings import Settings
from support.registered import (
    NO_ANCHOR,
    NOW,
    challenger_of,
    judgement_of,
    promote_bundle,
    register_bundle,
)
from support.runs import make_run

pytestmark = pytest.mark.services
SOON = datetime.now(UTC) + timedelta(days=1)
LATER = NOW + timedelta(days=1)


class Old(NamedTuple):
    """A registered model whose first version serves, and whose second one is a logged model."""

    client: MlflowClient
    run: ResolvedRun
    champion: ModelRef
    logged: ModelRef

    @property
    def name(self) -> str:
        return self.run.registered_model

    def find(self) -> dict[str, models.FoundVersion]:
        return {each.name: each for each in models.find_versions(self.client, self.name, SOON)}

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
    young = models.find_versions(client, old.name, SOON - timedelta(days=2))
    assert [each.num_bytes for each in young] == [0, 0, 0]
    plain, first, second = old.find().values()
    # Files that are artifacts of an MLflow run are none that could be deleted.
    assert (plain.model_id, plain.aliases) == ("", ("champion",))
    assert (first.name, first.aliases, second.aliases) == ("2", (), ("challenger",))
    files = registry.download_version(client, old.logged, tmp_path / "whole")
    sizes = [path.stat().st_size for path in files.rglob("*") if path.is_file()]
    assert len(sizes) > 3 and first.num_bytes == sum(sizes)

    models.mark_deleted(client, first)
    left = [each.model_id for each in old.find().values()]
    assert left == ["", "", second.model_id]
    assert len(client.search_model_versions(f"name = '{old.name}'")) == 3
    assert client.get_run(old.logged.mlflow_run_id).info.lifecycle_stage == "active"
    tags = registry.read_tags(client, old.logged)
    assert tags["bundle_digest"] == old.logged.bundle_digest


def roll_back(old: Old) -> None:
    settings = Settings(
        workspace=old.run.workspace_uri,
        tracking_uri=old.run.tracking_uri,
        registered_model=old.name,
    )
    moves.rollback(old.client, settings, old.logged.version, LATER, "hides rose")


def force(old: Old) -> None:
    moves.force(old.client, old.run, old.logged, LATER, "we want it")


def mend(old: Old) -> None:
    where = old.run.workspace_uri, old.name
    moves.repair(old.client, where, LATER, "we want it", to_version=old.logged.version)


def promote(old: Old) -> None:
    judgement = judgement_of(old.run, old.logged)
    moves.move_if_permitted(old.run, challenger_of(old.logged), NO_ANCHOR, judgement, LATER)


@pytest.mark.parametrize("act", [roll_back, force, mend, promote])
def test_what_is_marked_as_deleted_becomes_champion_by_nobody_though_it_can_be_fetched(
    old: Old, tmp_path: Path, act: Callable[[Old], None]
) -> None:
    found = old.find()["2"]
    models.mark_deleted(old.client, found)
    assert registry.download_bundle(old.client, old.logged, tmp_path / "marked").is_dir()
    told = (
        f"^{old.name} v2 cannot become champion: its logged model {found.model_id} is marked as "
        f"deleted in MLflow.* expected one that is there.*--to-version N"
    )
    with pytest.raises(DataContractError, match=told):
        act(old)
    assert registry.read_champion(old.client, old.name) == old.champion
    assert history.load(old.run.workspace_uri, old.name).pending is None


def test_a_copy_of_what_is_marked_as_deleted_does_not_become_champion_either(old: Old) -> None:
    old.copy("2", old.name)
    models.mark_deleted(old.client, old.find()["2"])
    copy = old.logged.model_copy(update={"version": "3"})
    with pytest.raises(
        DataContractError,
        match="v3 cannot become champion: its logged model .* is marked as deleted",
    ):
        force(old._replace(logged=copy))


def test_versions_that_are_one_logged_model_are_told_and_named_before_it_goes(old: Old) -> None:
    client, elsewhere = old.client, f"{old.name}_elsewhere"
    client.delete_registered_model_alias(old.name, "challenger")
    alone = old.find()["2"]
    assert models.why_kept_by_now(client, old.name, alone) == ""
    client.set_registered_model_alias(old.name, "mine", "2")
    told = models.why_kept_by_now(client, old.name, alone)
    assert told == "an alias was given to it since the plan was made"

    version = client.get_model_version(old.name, "2")
    model_id = str(version.source).removeprefix("models:/")
    place = client.get_logged_model(model_id).artifact_location
    client.create_model_version(old.name, place, version.run_id, model_id=model_id)
    old.copy("2", elsewhere)
    found = old.find()
    assert {name for name, each in found.items() if each.model_id == model_id} == {"2", "3"}
    assert found["2"].shared_by == (f"{old.name} v3", f"{elsewhere} v1")
    assert found["3"].shared_by == (f"{old.name} v2", f"{elsewhere} v1")
    assert found["1"].shared_by == ()
    told = models.why_kept_by_now(client, old.name, alone)
    assert told.startswith(f"it is registered as {old.name} v2, {old.name} v3, {elsewhere} v1")


def test_a_copy_is_told_with_its_files_where_what_was_copied_is_gone_or_another(old: Old) -> None:
    """Of a registered model that is made anew, the numbers begin anew."""
    client, between, elsewhere = old.client, f"{old.name}_between", f"{old.name}_elsewhere"
    old.copy("2", between)
    client.copy_model_version(f"models:/{between}/1", elsewhere)
    client.delete_registered_model(between)
    assert old.find()["2"].shared_by == (f"{elsewhere} v1",)
    client.create_registered_model(between)
    client.create_model_version(between, "s3://bucket/another/model")
    assert old.find()["2"].shared_by == (f"{elsewhere} v1",)


def test_every_page_of_versions_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pages = {None: ("ours", "more"), "more": ("theirs", None)}

    def page(page_token: str | None = None) -> object:
        name, token = pages[page_token]
        made = {"creation_timestamp": 0, "tags": {}, "source": "models:/m-1"}
        return type("Page", (list,), {"token": token})(
            [SimpleNamespace(name=name, version=1, **made)]
        )

    client = SimpleNamespace(
        tracking_uri="http://127.0.0.1:9",
        search_model_versions=page,
        get_registered_model=lambda name: SimpleNamespace(aliases={}),
        get_logged_model=lambda id_: SimpleNamespace(artifact_location=tmp_path.as_uri()),
    )
    [found] = models.find_versions(client, "ours", SOON)  # type: ignore[arg-type]
    assert found.shared_by == ("theirs v1",)
