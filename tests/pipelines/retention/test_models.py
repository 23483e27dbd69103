"""Old models at a real MLflow server: marked as deleted by its own call, and nothing else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.contracts.errors import HomefeedError
from pipelines.registry import registry, tracking
from pipelines.retention import models
from support.registered import register_bundle
from support.runs import make_run

pytestmark = pytest.mark.services
SOON = datetime.now(UTC) + timedelta(days=1)


def test_a_logged_model_is_marked_as_deleted_and_version_run_and_others_stay(
    tracking_uri: str, tmp_path: Path
) -> None:
    name = f"old_{tmp_path.name}"
    client = tracking.connect(tracking_uri)
    run = make_run(
        tmp_path, tracking_uri=tracking_uri, registered_model=name, experiment=name, run_id="r"
    )
    experiment = client.create_experiment(name)
    opened = tracking.open_run(client, run, "challenger", "x")
    weights = tmp_path / "weights"
    weights.write_bytes(b"x" * 500)
    refs = []
    for number in range(2):
        model = client.create_logged_model(experiment, f"ranker{number}", opened)
        client.log_model_artifact(model.model_id, str(weights), "bundle")
        client.finalize_logged_model(model.model_id, "READY")
        digests = {"bundle_digest": str(number), "snapshot_digest": "s", "homefeed_run_id": "r"}
        refs.append(registry.register(client, run, opened, model.model_uri, digests))
    # A version whose files are artifacts of an MLflow run is none that could be deleted.
    register_bundle(client, run.model_copy(update={"run_id": "other"}), tmp_path)

    young = models.find_versions(client, name, SOON - timedelta(days=2))
    assert [(each.num_bytes, each.run_name) for each in young] == [(0, "r"), (0, "r"), (0, "")]
    first, second, plain = models.find_versions(client, name, SOON)
    assert plain.model_id == ""
    assert (first.name, first.num_bytes, first.run_name) == ("1", 500, "r")
    assert (first.aliases, second.aliases) == ((), ())
    client.set_registered_model_alias(name, "mine", "2")
    assert models.find_versions(client, name, SOON)[1].aliases == ("mine",)

    models.mark_deleted(client, first)
    left = [each.model_id for each in models.find_versions(client, name, SOON)]
    assert left == ["", second.model_id, ""]
    assert len(client.search_model_versions(f"name = '{name}'")) == 3
    assert client.get_run(opened).info.lifecycle_stage == "active"
    with pytest.raises(HomefeedError):
        registry.download_bundle(client, refs[0], tmp_path / "gone")
    assert registry.read_tags(client, refs[0])["bundle_digest"] == "0"


def test_of_a_logged_model_that_is_two_registered_models_both_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def version(name: str) -> SimpleNamespace:
        made = {"creation_timestamp": 0, "tags": {}}
        return SimpleNamespace(name=name, version=1, source="models:/m-1", **made)

    class Client:
        tracking_uri = "http://127.0.0.1:9"

        def search_model_versions(self, page_token: str | None) -> object:
            pages = {None: ("ours", "more"), "more": ("theirs", None)}
            name, token = pages[page_token]
            return type("Page", (list,), {"token": token})([version(name)])

        def get_registered_model(self, name: str) -> SimpleNamespace:
            return SimpleNamespace(aliases={})

        def get_logged_model(self, model_id: str) -> SimpleNamespace:
            return SimpleNamespace(artifact_location=tmp_path.as_uri())

    [found] = models.find_versions(Client(), "ours", SOON)  # type: ignore[arg-type]
    assert found.other_names == ("theirs v1",)
