"""A registered model names its one workspace; of two that make it at once, one is named."""

import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines import storage
from pipelines.contracts.errors import RecordDisagreesError
from pipelines.registry import reconcile, registry, tracking
from support.registered import promote_bundle
from support.runs import make_run


def test_of_two_workspaces_that_make_a_model_at_once_one_is_named(
    tmp_path: Path, store_uri: str
) -> None:
    name = f"kept_{tmp_path.name}"
    client: MlflowClient = tracking.connect(store_uri)
    places = [storage.to_uri(tmp_path / each) for each in ("one", "two")]
    threads = [
        threading.Thread(target=registry.ensure_registered_model, args=(client, name, place))
        for place in places
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    keeper = registry.read_keeper(client, name)
    assert keeper in places
    registry.ensure_registered_model(client, name, places[0])
    assert registry.read_keeper(client, name) == keeper
    for place in places:
        run = make_run(tmp_path, workspace_uri=place, tracking_uri=store_uri, registered_model=name)
        if place == keeper:
            promote_bundle(client, run, tmp_path)
        else:
            with pytest.raises(RecordDisagreesError, match=f"is kept by workspace {keeper}"):
                promote_bundle(client, run, tmp_path)
    assert reconcile.look(client, keeper, name).serves == "2" or keeper == places[0]
