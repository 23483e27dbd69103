"""Points arrive by HTTP; a collector that does not take them costs little and is told.

The receivers are real servers (support/otlp.py).
"""

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.contracts.code_identity import environment
from pipelines.metrics.instruments import STAGE, VERDICT, Point
from pipelines.metrics.sending import WAIT_S, is_wanted, send
from support.otlp import Receiver, http_receiver

SECRET = "tok3n-of-the-collector"
POINTS = [
    Point("homefeed.stage.duration", 12.5, {STAGE: "alert"}),
    Point("homefeed.verdict.state", 1, {VERDICT: "REJECT"}),
]
SPARE_S = 5.0
"""What a loaded machine needs besides the wait that is bounded."""
OTLP = "OTEL_EXPORTER_OTLP"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with http_receiver() as receiver:
        monkeypatch.setenv(f"{OTLP}_ENDPOINT", receiver.url)
        monkeypatch.setenv(f"{OTLP}_HEADERS", f"authorization=Bearer%20{SECRET}")
        yield receiver


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert SECRET not in caplog.text
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def test_points_arrive_by_http(receiver: Receiver, caplog, monkeypatch) -> None:
    send(POINTS, "alert")
    told = [(each.name, each.unit, each.kind, each.value) for each in receiver.values]
    assert told == [
        ("homefeed.stage.duration", "s", "gauge", 12.5),
        ("homefeed.verdict.state", "{verdict}", "gauge", 1),
    ]
    duration, version = receiver.values[0], environment().code_version
    assert duration.attributes == {"homefeed.stage": "alert"}
    expected = {"service.name": "homefeed_retrain", "service.version": version}
    assert duration.resource == expected, "an id drawn by lot would begin new series each time"
    assert receiver.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert warnings(caplog) == []
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ranker")  # who sends can be named otherwise
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    send(POINTS, "alert")
    named = {"service.name": "ranker", "deployment.environment.name": "staging"}
    assert receiver.values[-1].resource.items() >= named.items()
    name = "opentelemetry.exporter.otlp.proto.http.metric_exporter"
    logging.getLogger(name).warning("of Airflow's own exporter")
    assert warnings(caplog) == ["of Airflow's own exporter"], "it passes"


@pytest.mark.parametrize("manner", ["401", "404", "503", "late", "dripping", "silent"])
def test_a_collector_that_refuses_or_is_slow_is_told_in_one_line_and_not_waited_for(
    receiver: Receiver, monkeypatch, caplog, manner: str
) -> None:
    receiver.status = int(manner) if manner.isdigit() else 200
    receiver.delay_s = 60.0 if manner == "late" else 0.0
    receiver.drips = manner == "dripping"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        url = f"http://127.0.0.1:{port}" if manner == "silent" else receiver.url
        monkeypatch.setenv(f"{OTLP}_ENDPOINT", url)
        monkeypatch.setattr("pipelines.metrics.sending.WAIT_S", 1.0)
        started = time.monotonic()
        send(POINTS, "alert (done)")
        assert time.monotonic() - started < 1.0 + SPARE_S and WAIT_S == 5.0
    [warning] = warnings(caplog)
    assert "the metrics of alert (done)" in warning


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (f"{OTLP}_ENDPOINT", "no address", "did not arrive"),
        (f"{OTLP}_CERTIFICATE", "/nowhere.pem", ""),
        (f"{OTLP}_HEADERS", f"authorization=x%0A{SECRET}", "was refused"),
    ],
)
def test_a_bad_setting_is_told_and_raises_nothing(
    receiver, monkeypatch, caplog, variable, value, said
) -> None:
    monkeypatch.setenv(variable, value)
    if "CERTIFICATE" in variable:
        monkeypatch.setenv(f"{OTLP}_ENDPOINT", receiver.url.replace("http:", "https:"))
    send(POINTS, "alert")
    assert receiver.values == []
    [warning] = warnings(caplog)
    assert said in warning


def test_what_a_library_says_late_stays_out_of_the_log(receiver, caplog, monkeypatch) -> None:
    """A sender that was left alone may still fail, and quote a header then."""
    monkeypatch.setattr("pipelines.metrics.sending.WAIT_S", 1.0)
    receiver.delay_s, receiver.status = 60.0, 400
    send(POINTS, "alert")
    late = [each for each in threading.enumerate() if each.name == "homefeed-metrics"]
    receiver.is_over.set()  # Now the answer comes.
    for thread in late:
        thread.join(60)
    assert len(warnings(caplog)) == 1


def test_a_process_ends_though_a_collector_does_not_answer(receiver: Receiver) -> None:
    code = (
        "from pipelines.metrics import instruments, sending\n"
        "sending.WAIT_S = 1.0\n"
        "sending.send([instruments.Point('homefeed.stage.duration', 1, {})], 'alert')\n"
    )
    receiver.delay_s = 60.0
    told = {f"{OTLP}_ENDPOINT": receiver.url, "PYTHONPATH": ":".join(sys.path)}
    more = {"env": told, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run([sys.executable, "-c", code], check=False, **more)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("\n") == 1, done.stderr


ENDPOINT = {f"{OTLP}_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x", f"{OTLP}_HEADERS": "a=b"}, False),
        ({f"{OTLP}_ENDPOINT": "", "OTEL_METRICS_EXPORTER": " "}, False),
        ({f"{OTLP}_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, False),
        (ENDPOINT, True),
        ({f"{OTLP}_METRICS_ENDPOINT": "http://collector/v1/metrics"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "false"}, True),
    ],
)
def test_the_variables_say_whether(environment: dict[str, str], expected: bool) -> None:
    assert is_wanted(environment) is expected
