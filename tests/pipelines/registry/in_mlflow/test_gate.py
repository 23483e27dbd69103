"""The data report and its pages lie among a run's artifacts, as far as they are there."""

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import DataReport
from pipelines.registry import tracking
from pipelines.registry.in_mlflow.gate import log_gate
from support.runs import make_run


@pytest.mark.services
def test_what_was_deleted_is_left_out(tmp_path: Path, tracking_uri: str) -> None:
    places = {"tracking_uri": tracking_uri, "experiment": f"gate_{tmp_path.name}"}
    run, client = make_run(tmp_path, **places), tracking.connect(tracking_uri)
    mine = tracking.open_run(client, run, "challenger", "challenger")
    page = tmp_path / "index.html"
    page.write_text("the docs")
    report = DataReport(
        outcomes=(),
        docs_uri=storage.to_uri(page),
        log_docs_uri=storage.to_uri(tmp_path / "gone.html"),
        snapshot_digest="d" * 64,
        reference_digest=None,
    )
    for _ in range(2):
        log_gate(client, run, mine, report)
    names = [each.path for each in client.list_artifacts(mine, "data_gate")]
    assert names == ["data_gate/data_docs.html", "data_gate/report.json"]
    place = client.download_artifacts(mine, "data_gate/data_docs.html", str(tmp_path / "out"))
    assert Path(place).read_text() == "the docs"
