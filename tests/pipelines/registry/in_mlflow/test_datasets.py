"""What a run was computed from is told by digest and window, and nothing is loaded."""

import json
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from pipelines import storage
from pipelines.contracts import mlflow_errors
from pipelines.contracts.run_layout import listing_uri
from pipelines.event_log.listing import ListedFile, Listing
from pipelines.registry import tracking
from pipelines.registry.in_mlflow.datasets import log_datasets, named
from pipelines.registry.patient import patient
from support.runs import make_run
from support.snapshots import snapshot_of


@pytest.mark.services
def test_snapshot_and_event_log_are_inputs_once(tmp_path: Path, tracking_uri: str) -> None:
    places = {"tracking_uri": tracking_uri, "experiment": f"inputs_{tmp_path.name}"}
    run, snapshot = make_run(tmp_path, **places), snapshot_of()
    client = tracking.connect(tracking_uri)
    mine = tracking.open_run(client, run, "challenger", "challenger")
    log_datasets(client, run, mine, snapshot, "training")  # the log is not on record
    [only] = client.get_run(mine).inputs.dataset_inputs
    assert only.dataset.source_type == "homefeed_snapshot"

    file = ListedFile(
        path="actions/a.parquet", num_bytes=9, modified_at=None, footer="f", num_rows=5, num_known=4
    )
    listing = Listing(event_log_uri=run.event_log_uri, files=(file,))
    storage.write_model(listing_uri(run.run_uri), listing)
    for _ in range(2):
        log_datasets(client, run, mine, snapshot, "training")
    found = {each.dataset.name: each for each in client.get_run(mine).inputs.dataset_inputs}
    assert found.keys() == {"snapshot 2017-03-02", "event log"}
    kept, log = found["snapshot 2017-03-02"].dataset, found["event log"].dataset
    assert (kept.name, kept.digest) == named(snapshot) and len(kept.digest) == 36
    assert json.loads(kept.source) == {"uri": snapshot.uri}
    profile = json.loads(kept.profile)
    assert profile["training"] == "2017-02-10 00:00 to 2017-02-24 00:00 UTC, end excluded"
    assert profile["num_pins"] == 7 and profile["digest"] == "a" * 64
    assert log.source_type == "homefeed_event_log" and json.loads(log.profile)["num_rows"] == 5
    [tag] = found["event log"].tags
    assert (tag.key, tag.value) == ("mlflow.data.context", "training")


def test_a_lost_answer_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Losing:
        tracking_uri = "http://127.0.0.1:9"
        num_asked = 0

        def log_inputs(self, run_id: str, datasets: list) -> None:
            self.num_asked += 1
            if self.num_asked == 1:
                raise MlflowException("the connection was refused")

    monkeypatch.setattr(mlflow_errors, "WAITS_S", (0.0, 0.0))
    client = Losing()
    log_datasets(patient(client), make_run(tmp_path), "0" * 32, snapshot_of(), "training")
    assert client.num_asked == 2
