"""What MLflow's pages show of cycles: once, and no stage fails because of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from pipelines import storage
from pipelines.contracts import mlflow_errors
from pipelines.contracts.artifacts import DataReport
from pipelines.contracts.errors import DataContractError, TrackingUnavailableError
from pipelines.contracts.judgement import Decision
from pipelines.registry import tracking
from pipelines.registry.in_mlflow import (
    ALL_CYCLES,
    FIRST_DAY,
    Named,
    Side,
    as_decoration,
    log_cycle,
    log_dataset,
    log_gate,
    log_side,
    named,
)
from pipelines.registry.registry import find_logged_model
from pipelines.registry.tracking import patient
from pipelines.stages.sides import log_whole
from support.desk import DAY, Desk
from support.judgements import CHALLENGER, CHAMPION, make_judgement
from support.registered import judgement_of
from support.runs import make_run
from support.snapshots import snapshot_of


def test_the_snapshot_is_an_input_once(desk: Desk) -> None:
    client, snapshot = desk.client, snapshot_of()
    mine = tracking.open_run(client, desk.cycle(0), "challenger", "challenger")
    for _ in range(2):
        log_dataset(client, mine, snapshot, "training")
    [found] = client.get_run(mine).inputs.dataset_inputs
    kept = found.dataset
    assert (kept.name, kept.digest) == named(snapshot) and len(kept.digest) == 36
    assert kept.name == "snapshot 2017-03-02" and kept.source_type == "homefeed_snapshot"
    assert json.loads(kept.source) == {"uri": snapshot.uri}
    profile = json.loads(kept.profile)
    assert profile["training"] == "2017-02-10 00:00 to 2017-02-24 00:00 UTC, end excluded"
    assert profile["num_pins"] == 7 and profile["digest"] == "a" * 64
    [tag] = found.tags
    assert (tag.key, tag.value) == ("mlflow.data.context", "training")


def test_a_lost_answer_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Losing:
        tracking_uri = "http://127.0.0.1:9"
        num_asked = 0

        def log_inputs(self, run_id: str, datasets: list) -> None:
            self.num_asked += 1
            if self.num_asked == 1:
                raise MlflowException("the connection was refused")

    monkeypatch.setattr(mlflow_errors, "WAITS_S", (0.0, 0.0))
    client = Losing()
    log_dataset(patient(client), "0" * 32, snapshot_of(), "training")
    assert client.num_asked == 2


def test_what_was_deleted_is_left_out(desk: Desk, tmp_path: Path) -> None:
    run, client = desk.cycle(0), desk.client
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


REPORT = DataReport(outcomes=(), docs_uri="", snapshot_digest="d" * 64, reference_digest=None)


class Refusing:
    """A client of MLflow that refuses whatever is asked, and keeps what that was."""

    tracking_uri = "http://127.0.0.1:9"

    def __init__(self, code: int) -> None:
        self.code, self.asked = code, list[str]()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def refuse(*arguments: Any, **options: Any) -> None:
            self.asked.append(name)
            raise MlflowException("no", error_code=self.code)

        return refuse


def test_what_is_refused_is_told_and_the_rest_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client, run = Refusing(INVALID_PARAMETER_VALUE), make_run(tmp_path)
    log_gate(client, run, "r", REPORT)
    log_whole(client, run, make_judgement(Decision.REJECT).comparison, snapshot_of(), "r")
    assert client.asked == ["log_artifacts", "log_inputs", "get_experiment_by_name"]
    assert caplog.text.count("ConfigurationError: MLflow at http://127.0.0.1:9 refuses") == 3


def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    client, run = Refusing(TEMPORARILY_UNAVAILABLE), make_run(tmp_path)
    with pytest.raises(TrackingUnavailableError):
        log_gate(client, run, "r", REPORT)
    with pytest.raises(TrackingUnavailableError):
        log_whole(client, run, make_judgement(Decision.REJECT).comparison, snapshot_of(), "r")


def test_a_defect_is_not_hidden() -> None:
    with pytest.raises(KeyError), as_decoration("a table"):
        raise KeyError("column")
    with as_decoration("a table"):
        raise DataContractError("the run has no first day")


ROWS = Named("snapshot 2017-03-02", "d" * 36)


def test_a_model_has_its_own_metrics_and_their_rows(desk: Desk) -> None:
    run, client = desk.cycle(0), desk.client
    model = desk.register(run, is_small=True)
    model_id = find_logged_model(client, client.get_model_version(desk.name, model.version))
    assert model_id

    def log(side: str, latency: float) -> str:
        metrics = {"decision/x": 1.0, "holdout/x": 2.0, "serving/latency_p50_ms": latency}
        return log_side(client, run, Side(side, side, model), metrics, {"verdict": "REJECT"}, ROWS)

    ids = [log("challenger", 4.0), log("challenger", 4.0), log("challenger", 5.0)]
    other = log("baseline", 4.0)  # as the champion of another run
    assert len(set(ids)) == 1
    kept = client.get_logged_model(model_id).metrics
    of_first = {(m.key, m.value) for m in kept if m.run_id == ids[0]}
    assert of_first == {("holdout/x", 2.0), ("serving/latency_p50_ms", 4.0)}
    assert {m.key for m in kept if m.run_id == other} == {"holdout/x", "serving/latency_p50_ms"}
    assert {(m.dataset_name, m.dataset_digest) for m in kept} == {ROWS}
    assert client.get_run(ids[0]).data.metrics == {
        "decision/x": 1.0,
        "holdout/x": 2.0,
        "serving/latency_p50_ms": 5.0,
    }
    everything = f"tags.{tracking.CYCLE} = '{run.run_id}'"
    experiment = client.get_experiment_by_name(desk.name).experiment_id
    assert {r.info.run_id for r in client.search_runs([experiment], everything)} == {ids[0], other}


def test_a_version_that_is_gone_leaves_the_runs_numbers(desk: Desk) -> None:
    run, client = desk.cycle(0), desk.client
    model = desk.register(run)  # files of the run, which are no logged model
    missing = model.model_copy(update={"version": "99"})
    for each in (model, missing):
        run_id = log_side(client, run, Side("baseline", "b", each), {"holdout/x": 2.0}, {}, ROWS)
    assert client.get_run(run_id).data.metrics == {"holdout/x": 2.0}


def test_each_cycle_adds_its_points_once(desk: Desk) -> None:
    client, ids = desk.client, set()
    for number in range(3):
        champion = CHAMPION.model_copy(update={"version": str(number)}) if number else None
        run = desk.cycle(number, champion=champion)
        comparison = judgement_of(run, CHALLENGER).comparison
        ids |= {log_cycle(client, run, comparison) for _ in range(2)}
    nothing = comparison.model_copy(update={"metrics": ()})
    ids.add(log_cycle(client, desk.cycle(3), nothing))
    ids.add(log_cycle(client, desk.cycle(4), comparison, is_void=True))

    [run_id] = ids
    found = client.get_run(run_id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", ALL_CYCLES)
    assert tracking.CYCLE not in found.data.tags

    def line(key: str) -> list[float]:
        return [point.value for point in client.get_metric_history(run_id, key)]

    assert line("change/percent") == pytest.approx([1.0] * 3)
    assert line("change/percent high") == pytest.approx([2.0] * 3)
    assert line("target/repin_volume_at_3 of challenger") == [1.8] * 3
    assert line("champion/version") == [1.0, 2.0, 2.0, 2.0]  # the first cycle had none
    assert line("champion/repin_volume_at_3") == [1.78] * 2
    steps = [point.step for point in client.get_metric_history(run_id, "champion/version")]
    assert steps == [14, 28, 42, 56]
    client.set_tag(run_id, FIRST_DAY, "some day")
    with pytest.raises(DataContractError, match="first_day='some day'; expected the day of"):
        log_cycle(client, run, comparison)
    first = client.get_metric_history(run_id, "change/percent")[0]
    assert first.timestamp == DAY.timestamp() * 1000
