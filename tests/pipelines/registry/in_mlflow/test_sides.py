"""A model's page shows what it scored, once for each cycle, also where it was measured again."""

from pathlib import Path

import pytest

from pipelines.registry import tracking
from pipelines.registry.in_mlflow.datasets import Named
from pipelines.registry.in_mlflow.sides import Side, log_side
from pipelines.registry.registry import find_logged_model
from support.registered import register_bundle
from support.runs import make_run

ROWS = Named("snapshot 2017-03-02", "d" * 36)


@pytest.mark.services
def test_a_model_has_its_own_metrics_and_their_rows(tmp_path: Path, tracking_uri: str) -> None:
    name = f"sides_{tmp_path.name}"
    places = {"tracking_uri": tracking_uri, "registered_model": name, "experiment": name}
    run = make_run(tmp_path, **places)
    client = tracking.connect(tracking_uri)
    model = register_bundle(client, run, tmp_path, is_small=True)
    version = client.get_model_version(name, model.version)
    model_id = find_logged_model(client, version)
    assert model_id

    def log(side: str, latency: float) -> str:
        metrics = {"decision/x": 1.0, "holdout/x": 2.0, "serving/latency_p50_ms": latency}
        return log_side(client, run, Side(side, side, model), metrics, {"verdict": "REJECT"}, ROWS)

    ids = [log("challenger", 4.0), log("challenger", 4.0), log("challenger", 5.0)]
    other = log("baseline", 4.0)  # as the champion of another run
    assert len(set(ids)) == 1
    kept = client.get_logged_model(model_id).metrics
    of_first = {(m.key, m.value) for m in kept if m.run_id == ids[0]}
    assert of_first >= {("holdout/x", 2.0), ("serving/latency_p50_ms", 5.0)}
    assert {m.key for m in kept if m.run_id == other} == {"holdout/x", "serving/latency_p50_ms"}
    assert {(m.dataset_name, m.dataset_digest) for m in kept} == {ROWS}
    assert client.get_run(ids[0]).data.metrics == {
        "decision/x": 1.0,
        "holdout/x": 2.0,
        "serving/latency_p50_ms": 5.0,
    }
    everything = f"tags.{tracking.CYCLE} = '{run.run_id}'"
    experiment = client.get_experiment_by_name(name).experiment_id
    assert {r.info.run_id for r in client.search_runs([experiment], everything)} == {ids[0], other}


@pytest.mark.services
def test_a_version_that_is_gone_leaves_the_runs_numbers(tmp_path: Path, tracking_uri: str) -> None:
    name = f"gone_{tmp_path.name}"
    places = {"tracking_uri": tracking_uri, "registered_model": name, "experiment": name}
    run = make_run(tmp_path, **places)
    client = tracking.connect(tracking_uri)
    model = register_bundle(client, run, tmp_path)  # files of the run, which are no logged model
    missing = model.model_copy(update={"version": "99"})
    for each in (model, missing):
        run_id = log_side(client, run, Side("baseline", "b", each), {"holdout/x": 2.0}, {}, ROWS)
    assert client.get_run(run_id).data.metrics == {"holdout/x": 2.0}
