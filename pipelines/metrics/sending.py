"""Sends points before a stage's process ends, and never at the stage's cost.

A collector that is away, slow or refuses costs a stage `WAIT_S` at most and one line in its log. A
thread sends, and nobody waits for it longer. What was not sent is not kept: a stage that is killed
before it has sent its points loses these alone, because no other process counts on them.

Nothing here touches OpenTelemetry's global state, which in a task of Airflow belongs to Airflow.

Tested in tests/pipelines/metrics/test_sending.py, and against a real store of metrics in
tests/production/metrics/test_store.py.
"""

import logging
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.contracts.code_identity import environment as what_runs
from pipelines.metrics.destinations import (
    exporter_of,
    shown_endpoint,
    wanted_exporters,
    without_secrets,
)
from pipelines.metrics.instruments import Point

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData

log = logging.getLogger(__name__)

WAIT_S = 5.0
"""How long a stage waits for all destinations together, in seconds."""
SERVICE = "homefeed_retrain"
_LIBRARIES = ("opentelemetry", "urllib3", "requests", "grpc")


def send(points: Sequence[Point], about: str) -> None:
    """Send points to where the environment says, or warn in one line that they did not arrive.

    Args:
        points: What to send.
        about: Whose points they are, for the warning.
    """
    if problem := _try_to_send(points):
        log.warning(
            "the metrics of %s did not reach %s: %s; nothing else of it is affected; look at the "
            "collector and at the variables OTEL_METRICS_EXPORTER and OTEL_EXPORTER_OTLP_...",
            *(about, shown_endpoint(os.environ), without_secrets(problem, os.environ)),
        )


def _try_to_send(points: Sequence[Point]) -> str:
    """Send points and return what went wrong, or ''."""
    try:
        import opentelemetry.sdk.metrics.export  # noqa: F401

        # Here and not in the thread: an import is work and no waiting, and takes its time.
        exporters = [exporter_of(name, os.environ) for name in wanted_exporters(os.environ)]
    # A library's fault must not redden a stage whose work is done. It is told to people.
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    _keep_back_words_of_libraries()
    sender = _Sender(exporters, points)
    sender.start()
    sender.join(WAIT_S)
    return f"no answer within {WAIT_S:g} s" if sender.is_alive() else sender.problem


class _Sender(threading.Thread):
    """Makes the exporters and sends. What libraries say meanwhile is kept in `said`."""

    def __init__(
        self, exporters: "Sequence[type[MetricExporter]]", points: Sequence[Point]
    ) -> None:
        super().__init__(name="metrics", daemon=True)
        self._exporters, self._points = exporters, points
        self.said: list[str] = []
        self.problem = ""

    def run(self) -> None:
        """Send to one destination after another, and note what went wrong."""
        problems = []
        for kind in self._exporters:
            self.said.clear()
            try:
                is_sent = self._send_by(kind)
            except Exception as error:  # As above: it is told, and nobody's work is lost for it.
                is_sent = False
                self.said.append(f"{type(error).__name__}: {error}")
            if not is_sent:
                problems.append("; ".join(dict.fromkeys(self.said)) or f"{kind.__name__} failed")
        self.problem = "; ".join(problems)

    def _send_by(self, kind: "type[MetricExporter]") -> bool:
        from opentelemetry.sdk.metrics.export import MetricExportResult

        is_otlp = "opentelemetry.exporter.otlp" in kind.__module__
        exporter = kind(timeout=WAIT_S) if is_otlp else kind()  # type: ignore[call-arg]
        # Collected anew for each, because counters tell what was added since they were read last.
        result = exporter.export(_collect(self._points))
        exporter.shutdown()
        return result is MetricExportResult.SUCCESS


class _Words(logging.Filter):
    """Keeps out of the log what a library says of our sending: it may quote a secret header."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is about something else."""
        sender = threading.current_thread()
        if isinstance(sender, _Sender):
            sender.said.append(record.getMessage())
        return not isinstance(sender, _Sender)


_WORDS = _Words()


def _keep_back_words_of_libraries() -> None:
    """Put the filter on every logger of the libraries, which a logger's children do not inherit."""
    for name in tuple(logging.root.manager.loggerDict):
        if name.partition(".")[0] in _LIBRARIES:
            logging.getLogger(name).addFilter(_WORDS)


def _collect(points: Sequence[Point]) -> "MetricsData":
    """Put points into OpenTelemetry's form."""
    from opentelemetry.sdk.metrics import Counter, MeterProvider
    from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    # No `service.instance.id`, which `Resource.create` would draw by lot: each process would begin
    # new series. OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME go before what is said here.
    own = {"service.name": SERVICE, "service.version": what_runs().code_version}
    resource = Resource(own).merge(OTELResourceDetector().detect())
    reader = InMemoryMetricReader({Counter: AggregationTemporality.DELTA})  # See `instruments`.
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    meter = provider.get_meter("pipelines.metrics")
    for point in points:
        what = (point.instrument.name, point.instrument.unit, point.instrument.description)
        if point.instrument.kind == "gauge":
            meter.create_gauge(*what).set(point.value, point.attributes)
        else:
            meter.create_counter(*what).add(point.value, point.attributes)
    collected = reader.get_metrics_data()
    assert collected is not None, "there is a point at least"
    return collected
