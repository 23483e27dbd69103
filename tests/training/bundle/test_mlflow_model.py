"""MLflow: the model loads without pickle, metrics arrive once, an outage is bearable."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.errors import TrackingUnavailableError
from support.mlflow_server import free_port, mlflow_server
from support.training_process import signal_when
from training.bundle.files import read_golden
from training.bundle.mlflow_model import log_bundle
from training.data.batches import MODEL_INPUTS
from training.fitting.live_metrics import LiveTracking, LoggedValue, MetricLog, read_metrics, replay
from training.fitting.progress import LOSS
from training.fitting.work_folder import WorkFolder
from training.launch.launcher import train

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture
def client(server):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=server)


@pytest.fixture
def run_id(client) -> str:
    return client.create_run("0").info.run_id


def test_a_logged_bundle_loads_and_reproduces_its_golden_rows(
    server, client, run_id, trained, monkeypatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    bundle_dir = Path(trained[1].bundle_dir)
    uri = log_bundle(bundle_dir, run_id, server)
    assert log_bundle(bundle_dir, run_id, server) == uri  # a retry logs nothing new
    assert len(client.search_logged_models(["0"], f"source_run_id = '{run_id}'")) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server)
    try:
        model = mlflow.pyfunc.load_model(uri)
        local = Path(mlflow.artifacts.download_artifacts(uri))
    finally:
        mlflow.set_tracking_uri(before)
    golden, expected = read_golden(bundle_dir, 3)
    found = model.predict({name: getattr(golden, name).numpy() for name in MODEL_INPUTS})
    assert np.abs(found["probabilities"] - expected).max() < 1e-6
    raw = found["uncalibrated_probabilities"]
    assert raw.shape == expected.shape and np.abs(raw - expected).max() > 1e-6
    assert model.metadata.signature.inputs.input_names() == list(MODEL_INPUTS)
    names = [path.name for path in local.rglob("*") if path.is_file()]
    assert {"weights.safetensors", "bundle.json", "golden.safetensors"} <= set(names)
    assert {"sequence_encoder.py", "door.py", "schemas.py"} <= set(names)
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]


def test_training_logs_live_and_a_replay_adds_nothing(
    server, client, run_id, planted, tmp_path
) -> None:
    one_epoch = {"training": {"num_epochs": 1}}
    result = train(planted.spec(tmp_path, tracking_uri=server, mlflow_run_id=run_id, **one_epoch))
    values = [v for v in read_metrics(Path(result.metrics_path)) if v.name == "training/loss"]
    history = client.get_metric_history(run_id, "training/loss")
    assert [(m.step, m.value) for m in history] == [(v.step, v.value) for v in values]
    for _ in range(2):
        replay(Path(result.metrics_path), server, run_id)
    assert len(client.get_metric_history(run_id, "training/loss")) == len(values)


def test_a_killed_training_goes_on_in_the_same_run_and_no_step_stands_twice(
    server, client, run_id, planted, tmp_path
) -> None:
    many = {"training": {"num_epochs": 20}}  # long enough for steps to be sent within an epoch
    spec = planted.spec(tmp_path / "work", tracking_uri=server, mlflow_run_id=run_id, **many)
    spec_path = tmp_path / "spec.json"
    spec_path.write_text(spec.model_dump_json())
    folder = WorkFolder(Path(spec.work_dir))

    def has_sent_more_than_it_saved(checkpoints: Path) -> bool:
        sent = [metric.step for metric in client.get_metric_history(run_id, LOSS)]
        saved = [int(path.stem.split("-")[1]) for path in checkpoints.glob("step-*.ckpt")]
        return bool(saved) and bool(sent) and max(sent) > max(saved)

    signal_when(folder.checkpoints, has_sent_more_than_it_saved, spec_path)
    result = train(spec)
    replay(Path(result.metrics_path), server, run_id)
    assert result.resumed_from_step > 0
    values = [v for v in read_metrics(Path(result.metrics_path)) if v.name == LOSS]
    history = client.get_metric_history(run_id, LOSS)
    assert [(m.step, m.value) for m in history] == [(v.step, v.value) for v in values]


def test_training_goes_on_without_a_server_and_is_sent_afterwards(
    server, client, run_id, planted, tmp_path
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    one_epoch = {"training": {"num_epochs": 1}}
    result = train(planted.spec(tmp_path, tracking_uri=nowhere, mlflow_run_id=run_id, **one_epoch))
    assert result.num_steps > 0
    assert (tmp_path / "training.log").read_text().count("cannot be reached") == 1
    metrics = Path(result.metrics_path)
    with pytest.raises(TrackingUnavailableError, match=nowhere):
        replay(metrics, nowhere, run_id)
    kept = f"{nowhere} does not answer.*the bundle {result.bundle_dir} for MLflow run {run_id} is"
    with pytest.raises(TrackingUnavailableError, match=kept):
        log_bundle(Path(result.bundle_dir), run_id, nowhere)
    assert replay(metrics, server, run_id) == len(read_metrics(metrics))
    assert len(client.get_metric_history(run_id, "training/loss")) == result.num_steps


@pytest.fixture(autouse=True)
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


def test_a_metric_log_rewinds_to_the_step_it_resumes_from(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path, "", "")
    for step in (1, 2, 3):
        log.add(step, 0, {"training/loss": float(step)})
    with path.open("a") as stream:
        stream.write('{"step": 4, "epo')  # torn by a kill
    log.rewind(2)
    log.add(3, 0, {"training/loss": 3.5})
    assert [(v.step, v.value) for v in read_metrics(path)] == [(1, 1.0), (2, 2.0), (3, 3.5)]


def test_live_tracking_gives_up_once(caplog) -> None:
    live = LiveTracking(f"http://127.0.0.1:{free_port()}", "run")
    for step in range(3):
        live.add([LoggedValue(step, 0, "training/loss", 1.0, 1)])
        live.flush()
    assert len(caplog.records) == 1
