"""A cycle's runs in MLflow: who answers at the address, one run per side, what each shows once."""

import json
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from pipelines import storage
from pipelines.contracts.artifacts import DataReport
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import completejourney, smoke
from pipelines.recipes.text import differences
from pipelines.registry import registry, tracking
from support.answers import PAGE, server_that_answers
from support.desk import Desk
from support.snapshots import snapshot_of


@pytest.mark.parametrize(
    ("status", "page", "message"),
    [
        (401, b"You are not authenticated.", "MLFLOW_TRACKING_USERNAME"),
        (404, PAGE, "HOMEFEED_TRACKING_URI"),
    ],
)
def test_who_lets_nobody_in_and_another_service_are_told_at_the_first_request(
    status: int, page: bytes, message: str
) -> None:
    """A page that is not found is never taken for no champion: that cycle would be the first."""
    with server_that_answers(status, page) as uri:
        with pytest.raises(ConfigurationError, match=message):
            tracking.connect(uri)
        with pytest.raises(ConfigurationError):
            registry.read_champion(MlflowClient(uri, registry_uri=uri), "homefeed_ranker")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://user:secret@host", "carries credentials"),
        *((each, "expected the http") for each in ("file:///x", "sqlite:////x/mlflow.db")),
    ],
)
def test_an_address_that_may_not_be_kept_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        tracking.check_tracking_uri(uri)
    assert "secret" not in str(caught.value)
    own = f"sqlite:////rebuilt/{tracking.OWN_REGISTRY}"  # a rebuilt cycle's, and no other file
    assert tracking.check_tracking_uri(own) == own


def test_the_address_of_the_process_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the three the address that was set wins in MLflow, then the environment's, then a file."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    mlflow.set_tracking_uri(None)  # A store of the tests before is put back by nobody here.
    with tracking.address_of_process("sqlite:////nowhere/outer.db"):
        with tracking.address_of_process("sqlite:////nowhere/inner.db"):
            assert mlflow.get_tracking_uri() == "sqlite:////nowhere/inner.db"
        assert mlflow.get_tracking_uri() == "sqlite:////nowhere/outer.db"
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:9"


def test_a_retry_finds_the_run_and_keeps_its_options(desk: Desk) -> None:
    run, client = desk.cycle(0), desk.client
    run_id = tracking.open_run(client, run, "challenger", "challenger")
    tracking.log_config(client, run_id, run.config)
    other = run.config.training.model_copy(update={"seed": 18})
    assert tracking.open_run(client, run, "challenger", "another name") == run_id
    tracking.log_config(client, run_id, run.config.model_copy(update={"training": other}))

    params = client.get_run(run_id).data.params
    assert params["training.seed"] == str(run.config.training.seed) != "18"
    with tracking.address_of_process(client.tracking_uri):
        kept = mlflow.artifacts.load_dict(f"runs:/{run_id}/{tracking.CONFIG_FILE}")
    assert kept["model"]["mlp_dims"] == list(run.config.model.mlp_dims)
    assert params["features.heads.0.name"] == '"repin"'
    named = [kept["recipe"], kept["recipe_digest"], kept["recipe_reference"]]
    assert named == ["smoke", run.config.recipe_digest, "smoke"] and "source" not in kept
    expected = {"cycle": "2017-06-12", "side": "challenger", "recipe": "smoke", "trigger": "test"}
    found = client.get_run(run_id)
    assert found.data.tags.items() >= expected.items()
    assert not any("digest" in name for name in found.data.tags)
    assert found.info.run_name == "2017-06-12 challenger cycle-0"
    assert tracking.open_run(client, run, "baseline", "popularity ranking") != run_id


def test_the_parameters_that_differ_are_the_fields_that_recipe_diff_tells(desk: Desk) -> None:
    """The last two have more fields than a request may have, and differ where MLflow cuts."""
    many = smoke().model_dump(mode="json")
    kinds = [f"kind {number:04d}" for number in range(900)]
    of_pins = [{"name": f"kind_{n}", "table": "pins", "values": kinds} for n in range(20)]
    many["features"]["categorical"] = of_pins
    recipes = [smoke(), completejourney(), RunConfig.model_validate(many)]
    kinds[-1] = "another"
    recipes.append(RunConfig.model_validate(many))
    found = list[dict[str, str]]()
    for number, recipe in enumerate(recipes):
        run_id = tracking.open_run(desk.client, desk.cycle(number), "challenger", "challenger")
        tracking.log_config(desk.client, run_id, recipe)
        found.append(desk.client.get_run(run_id).data.params)
    assert len(found[2]) > 100
    for one, other in ((0, 1), (1, 2), (2, 3)):
        differing = {name for name, _ in found[one].items() ^ found[other].items()}
        paths = (each.split(": ")[0] for each in differences(recipes[one], recipes[other]))
        assert differing == {path.replace("[", ".").replace("]", "") for path in paths}


def test_the_snapshot_is_an_input_once(desk: Desk) -> None:
    client, snapshot = desk.client, snapshot_of()
    mine = tracking.open_run(client, desk.cycle(0), "challenger", "challenger")
    for _ in range(2):
        tracking.log_dataset(client, mine, snapshot, "training")
    [found] = client.get_run(mine).inputs.dataset_inputs
    kept, [tag] = found.dataset, found.tags
    assert (kept.name, kept.digest) == ("snapshot 2017-03-02", snapshot.digest[:36])
    assert (kept.source_type, json.loads(kept.source)["uri"]) == ("homefeed_snapshot", snapshot.uri)
    assert (tag.key, tag.value) == ("mlflow.data.context", "training")


def test_what_the_gate_found_is_kept_but_for_a_page_that_was_deleted(
    desk: Desk, tmp_path: Path
) -> None:
    client = desk.client
    mine = tracking.open_run(client, desk.cycle(0), "challenger", "challenger")
    (tmp_path / "index.html").write_text('<h1>The</h1> <a href="details/a.html">docs</a>')
    docs, gone = (storage.to_uri(tmp_path / name) for name in ("index.html", "gone.html"))
    fields = {"docs_uri": docs, "log_docs_uri": gone, "reference_digest": None}
    report = DataReport(outcomes=(), snapshot_digest="d" * 64, **fields)
    for _ in range(2):
        tracking.log_gate(client, mine, report, lambda uri: "http://pages/w/index.html")
    names = [each.path for each in client.list_artifacts(mine, "data_gate")]
    assert names == ["data_gate/data_docs.html", "data_gate/report.json"]
    place = client.download_artifacts(mine, "data_gate/data_docs.html", str(tmp_path / "out"))
    assert 'href="http://pages/w/details/a.html"' in Path(place).read_text()


def test_the_numbers_of_a_side_are_logged_once(desk: Desk) -> None:
    run, client = desk.cycle(0), desk.client

    def log(side: str, latency: float) -> str:
        metrics, tags = {"holdout/x": 2.0, "serving/latency_p50_ms": latency}, {"verdict": "REJECT"}
        return tracking.log_side(client, run, side, side, metrics, tags, "the verdict")

    mine = {log("challenger", 4.0), log("challenger", 4.0), log("challenger", 5.0)}
    assert len(mine) == 1 and log("baseline", 4.0) not in mine
    [run_id] = mine
    found = client.get_run(run_id)
    assert (found.info.status, found.data.tags["verdict"]) == ("FINISHED", "REJECT")
    assert found.data.metrics == {"holdout/x": 2.0, "serving/latency_p50_ms": 5.0}
    assert len(client.get_metric_history(run_id, "holdout/x")) == 1
    [kept] = client.list_artifacts(run_id, "comparison")
    assert kept.path == "comparison/verdict.html"
