"""Old models in MLflow's own store: marked as deleted by its own call, and nothing else."""

from pathlib import Path

import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.registry import registry
from pipelines.retention.collect import why_model_stays
from pipelines.retention.inventory import find_versions
from pipelines.retention.plan import FoundVersion
from support.desk import Desk
from support.fake_registry import FakeRegistry, Page
from support.judgements import CHAMPION


@pytest.fixture
def old(desk: Desk) -> Desk:
    """A registered model whose first version serves, and whose second one is a logged model."""
    desk.promote(desk.cycle(0))
    desk.register(desk.cycle(1), is_small=True)
    return desk


def find(old: Desk) -> dict[str, FoundVersion]:
    return {each.name: each for each in find_versions(old.client, old.name)}


def test_a_logged_model_is_marked_as_deleted_and_version_run_and_others_stay(
    old: Desk, tmp_path: Path
) -> None:
    client = old.client
    old.register(old.cycle(2), is_small=True)
    client.copy_model_version(f"models:/{old.name}/2", old.name)
    plain, first, second, copy = find(old).values()
    # Files that are artifacts of an MLflow run are none that could be deleted.
    assert (plain.model_id, plain.aliases) == ("", ("champion",))
    assert (first.name, first.aliases, second.aliases) == ("2", (), ("challenger",))
    client.delete_logged_model(first.model_id)
    assert [each.model_id for each in find(old).values()] == ["", "", second.model_id, ""]
    # It can be fetched still, and becomes champion no more, nor does its copy.
    for each in (first, copy):
        model = registry.read_version(client, old.name, each.name)
        assert client.get_run(model.mlflow_run_id).info.lifecycle_stage == "active"
        assert registry.download_bundle(client, model, tmp_path / "marked").is_dir()
        told = f"v{each.name} cannot become champion: its logged model .* is marked as deleted"
        with pytest.raises(DataContractError, match=told):
            registry.require_unaltered(client, model)


def test_versions_that_are_one_logged_model_are_told_and_named_before_it_goes(old: Desk) -> None:
    client, elsewhere, between = old.client, f"{old.name}_elsewhere", f"{old.name}_between"
    client.delete_registered_model_alias(old.name, "challenger")
    alone = find(old)["2"]
    assert why_model_stays(client, old.name, alone) == ""
    client.set_registered_model_alias(old.name, "mine", "2")
    assert "an alias was given" in why_model_stays(client, old.name, alone)

    version = client.get_model_version(old.name, "2")
    place = client.get_logged_model(alone.model_id).artifact_location
    client.create_model_version(old.name, place, version.run_id, model_id=alone.model_id)
    # Of a copy's copy, whose source is a registered model that is gone, and made anew.
    client.copy_model_version(f"models:/{old.name}/2", between)
    client.copy_model_version(f"models:/{between}/1", elsewhere)
    client.delete_registered_model(between)
    client.create_registered_model(between)
    client.create_model_version(between, "s3://bucket/another/model")
    ours, theirs = [f"{old.name} v{number}" for number in (2, 3)], f"{elsewhere} v1"
    shared = [each.shared_by for each in find(old).values()]
    assert shared == [(), (ours[1], theirs), (ours[0], theirs)]
    told = why_model_stays(client, old.name, alone)
    assert told.startswith(f"it is registered as {', '.join(ours)}, {theirs}")


def test_every_page_of_versions_is_read(tmp_path: Path) -> None:
    client = FakeRegistry(tmp_path / "registry.json")
    client.add(CHAMPION)
    client.add_theirs(CHAMPION.version)
    [ours] = client.search_model_versions("of one model")
    pages = {None: Page([ours]), "more": Page(client.others)}
    pages[None].token = "more"
    client.search_model_versions = lambda page_token=None: pages[page_token]  # type: ignore[method-assign,assignment]
    [found] = find_versions(client, CHAMPION.name)  # type: ignore[arg-type]
    assert found.shared_by == ("theirs v1",)
