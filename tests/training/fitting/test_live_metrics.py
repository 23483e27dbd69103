"""Live metrics: all arrive, once, also after a kill or an outage, and none is lost without them."""

import resource
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.contracts.errors import TrackingUnavailableError
from support.serving import free_port
from support.training_process import ended, signal_when, start_training
from training.fitting.live_metrics import MetricLog
from training.fitting.metrics_file import LOSS, append, read_metrics, replay
from training.fitting.spec import WorkFolder
from training.launch.launcher import train

pytestmark = pytest.mark.usefixtures("few_retries")


@pytest.mark.services
def test_a_killed_training_goes_on_in_the_same_run_and_no_step_stands_twice(
    tracking_uri, client, run_id, planted, tmp_path
) -> None:
    many = {"training": {"num_epochs": 80}}  # long enough for steps to be sent within an epoch
    spec = planted.spec(tmp_path / "work", tracking_uri=tracking_uri, mlflow_run_id=run_id, **many)
    folder = WorkFolder(tmp_path / "work")

    def has_sent_more_than_it_saved() -> bool:
        sent = [metric.step for metric in client.get_metric_history(run_id, LOSS)]
        saved = [int(path.stem.split("-")[1]) for path in folder.checkpoints.glob("step-*.ckpt")]
        return bool(saved) and bool(sent) and max(sent) > max(saved)

    process = start_training(spec, tmp_path)
    signal_when(has_sent_more_than_it_saved, process, signal.SIGKILL)
    ended(process)
    result = train(spec)
    assert result.resumed_from_step > 0
    values = [v for v in read_metrics(Path(result.metrics_path)) if v.name == LOSS]
    for _ in range(2):
        replay(client, Path(result.metrics_path), run_id)
        history = client.get_metric_history(run_id, LOSS)
        assert [(m.step, m.value) for m in history] == [(v.step, v.value) for v in values]


@pytest.mark.services
def test_training_goes_on_without_a_server_and_is_sent_afterwards(
    tracking_uri, client, run_id, planted, tmp_path
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    some = {"training": {"num_epochs": 16}}  # long enough to be sent meanwhile
    result = train(planted.spec(tmp_path, tracking_uri=nowhere, mlflow_run_id=run_id, **some))
    assert result.num_steps > 0
    assert (tmp_path / "training.log").read_text().count("live metrics end") == 1
    metrics = Path(result.metrics_path)
    with pytest.raises(TrackingUnavailableError, match=nowhere):
        replay(MlflowClient(tracking_uri=nowhere), metrics, run_id)
    assert replay(client, metrics, run_id) == len(read_metrics(metrics))
    assert len(client.get_metric_history(run_id, "training/loss")) == result.num_steps


def test_a_metric_log_rewinds_to_the_step_it_resumes_from_or_keeps_all(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path, "", "")
    for step in range(1, 101):
        append(path, step, {"training/loss": float(step)})
    before = read_metrics(path)
    with path.open("a") as stream:
        stream.write('{"step": 101, "na')  # torn by a kill
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, unlimited[1]))  # as a full disk would
    try:
        with pytest.raises(OSError, match="File too large"):
            log.rewind(99)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert read_metrics(path) == before
    log.rewind(99)
    append(path, 100, {"training/loss": 3.5})
    assert read_metrics(path)[:-1] == before[:-1]
    assert (read_metrics(path)[-1].step, read_metrics(path)[-1].value) == (100, 3.5)
