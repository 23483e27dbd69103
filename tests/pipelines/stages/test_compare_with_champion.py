"""What the comparison leaves in MLflow: two finished runs, whose numbers have the same names."""

from pathlib import Path

import pytest

from pipelines.contracts.judgement import Decision
from pipelines.registry import tracking
from pipelines.stages.compare_with_champion import log_sides
from support.registered import judgement_of, register_bundle
from support.runs import make_run


@pytest.mark.services
def test_both_sides_are_logged_once_under_the_same_names(tmp_path: Path, tracking_uri: str) -> None:
    name = f"ranker_{tmp_path.name}"
    places = {"tracking_uri": tracking_uri, "registered_model": name, "experiment": name}
    run = make_run(tmp_path, **places)
    client = tracking.connect(tracking_uri)
    model = register_bundle(client, run, tmp_path)
    judged = judgement_of(run, model, Decision.REJECT)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "verdict.html").write_text("a page")
    ids = [log_sides(client, run, judged, tmp_path / "report") for _ in range(2)]

    assert ids[0] == ids[1]
    experiment = client.get_experiment_by_name(name)
    assert len(client.search_runs([experiment.experiment_id])) == 2
    challenger, baseline = (client.get_run(id_) for id_ in ids[0])
    assert challenger.info.run_id == model.mlflow_run_id
    assert challenger.data.metrics == {
        "holdout/repin_volume_at_3": 1.8,
        "serving/latency_p50_ms": 4.0,
        "serving/latency_p99_ms": 6.0,
        "serving/peak_memory_mib": 400.0,
        "serving/golden_difference": 1e-8,
    }
    assert baseline.data.metrics == {"holdout/repin_volume_at_3": 1.78}
    assert baseline.info.run_name == "2017-03-02 popularity ranking"
    assert [file.path for file in client.list_artifacts(challenger.info.run_id, "comparison")] == [
        "comparison/verdict.html"
    ]
    told = {"verdict": "REJECT", "verdict_reason": "Because of a test: REJECT."}
    for found in (challenger, baseline):
        assert found.info.status == "FINISHED"
        assert found.data.tags.items() >= told.items()
        assert found.data.tags["homefeed_run_id"] == run.run_id
    assert client.get_model_version(name, model.version).tags.items() >= told.items()
