"""What MLflow's pages show of cycles: once, and no stage fails because of it."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Experiment, ExperimentTag, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from mlflow.utils.validation import MAX_EXPERIMENT_TAG_VAL_LENGTH as LONGEST

from pipelines import storage
from pipelines.contracts import mlflow_errors
from pipelines.contracts.artifacts import DataReport, ModelRef
from pipelines.contracts.errors import DataContractError, TrackingUnavailableError
from pipelines.contracts.judgement import Decision
from pipelines.contracts.run_layout import listing_uri
from pipelines.event_log.listing import ListedFile, Listing
from pipelines.registry import tracking
from pipelines.registry.in_mlflow import (
    ALL_CYCLES,
    FIRST_DAY,
    HEADING,
    NUM_SHOWN,
    Named,
    Side,
    as_decoration,
    describe_experiment,
    log_cycle,
    log_datasets,
    log_gate,
    log_side,
    named,
)
from pipelines.registry.registry import find_logged_model
from pipelines.registry.tracking import patient
from pipelines.stages.in_mlflow.sides import log_whole
from support.judgements import make_judgement
from support.registered import judgement_of, register_bundle
from support.runs import PLANTED_AS_OF, make_run
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
    assert client.asked == [
        "log_artifacts", "log_inputs", "get_experiment_by_name", "get_experiment_by_name"
    ]  # fmt: skip
    assert caplog.text.count("ConfigurationError: MLflow at http://127.0.0.1:9 refuses") == 4


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


def model_of(version: str) -> ModelRef:
    return ModelRef(
        name="ranker",
        version=version,
        mlflow_run_id="0" * 32,
        as_of=PLANTED_AS_OF,
        bundle_digest="b",
        snapshot_digest="s",
    )


@pytest.mark.services
def test_each_cycle_adds_its_points_once(tmp_path: Path, tracking_uri: str) -> None:
    places = {"tracking_uri": tracking_uri, "experiment": f"cycles_{tmp_path.name}"}
    client, ids = tracking.connect(tracking_uri), set()
    for number, champion in enumerate((None, model_of("1"), model_of("2"))):
        day = PLANTED_AS_OF + timedelta(days=14 * number)
        run = make_run(tmp_path, as_of=day, champion=champion, **places)
        comparison = judgement_of(run, model_of(str(number + 1))).comparison
        ids |= {log_cycle(client, run, comparison) for _ in range(2)}
    nothing = comparison.model_copy(update={"metrics": ()})
    later = [run.model_copy(update={"as_of": day + timedelta(days=14 * n)}) for n in (1, 2)]
    ids.add(log_cycle(client, later[0], nothing))
    ids.add(log_cycle(client, later[1], comparison, is_void=True))

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
    assert first.timestamp == PLANTED_AS_OF.timestamp() * 1000


@pytest.mark.services
def test_it_tells_of_the_last_cycles_and_keeps_what_a_person_wrote(
    tmp_path: Path, tracking_uri: str
) -> None:
    name = f"told_{tmp_path.name}"
    client = tracking.connect(tracking_uri)
    experiment = client.create_experiment(name)  # by a person: without a description
    days = [PLANTED_AS_OF + timedelta(days=14 * number) for number in range(NUM_SHOWN + 1)]
    runs = [
        make_run(tmp_path, as_of=day, tracking_uri=tracking_uri, experiment=name) for day in days
    ]
    ids = [tracking.open_run(client, run, "challenger", "a challenger") for run in runs]
    for run_id in ids[:-2]:
        client.set_tag(run_id, "verdict", "REJECT")
        client.set_tag(run_id, "outcome", "v1 <b>is</b> worse\n# and | *more*")
    client.set_tag(ids[-2], tracking.FAILURE, "train_challenger broke: " + "x" * 9000)
    client.set_experiment_tag(experiment, tracking.DESCRIPTION, "Ask *team ranking*.")
    texts = []
    for _ in range(2):
        describe_experiment(client, runs[0])
        texts.append(client.get_experiment(experiment).tags[tracking.DESCRIPTION])

    assert texts[0] == texts[1]
    own, ours = texts[0].split(HEADING)
    assert own == "Ask *team ranking*.\n\n"
    lines = [line for line in ours.splitlines() if line.startswith("- ")]
    assert len(lines) == NUM_SHOWN
    newest = f"{days[-1]:%Y-%m-%d}"
    assert newest in lines[0] and lines[0].endswith("not judged")
    assert f"/runs/{ids[-1]}?workflowType=machine_learning>)" in lines[0]
    assert "broke. train_challenger broke: xxx" in lines[1].replace("\\", "")
    assert len(lines[1]) < 1000
    assert lines[2].endswith(r"**REJECT**. v1 &lt;b\>is&lt;/b\> worse \# and \| \*more\*")
    assert f"{days[0]:%Y-%m-%d}" not in ours  # the eleventh


@pytest.mark.parametrize(("length", "is_told"), [(19_000, True), (19_990, False), (20_000, False)])
def test_a_long_text_of_a_person_stays_whole_and_what_is_written_fits(
    tmp_path: Path, length: int, is_told: bool
) -> None:
    own, written = "x" * length, []

    class Described:
        tracking_uri = "http://127.0.0.1:9"

        def get_experiment_by_name(self, name: str) -> Experiment:
            tags = [ExperimentTag(tracking.DESCRIPTION, own)]
            return Experiment("1", name, "file:///a", "active", tags)

        def search_runs(self, *about: object, **options: object) -> list[Run]:
            return []

        def set_experiment_tag(self, experiment_id: str, key: str, text: str) -> None:
            written.append(text)

    describe_experiment(Described(), make_run(tmp_path))
    assert [HEADING in text for text in written] == ([True] if is_told else [])
    assert all(text.startswith(own) and len(text) <= LONGEST for text in written)


def test_an_experiment_that_is_not_there_is_left_alone(tmp_path: Path) -> None:
    asked = []

    class Nothing:
        """Has no other call: whatever is written would fail."""

        tracking_uri = "http://127.0.0.1:9"

        def get_experiment_by_name(self, name: str) -> None:
            asked.append(name)

    run = make_run(tmp_path)
    describe_experiment(Nothing(), run)
    assert asked == [run.experiment]
