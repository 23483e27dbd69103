"""Sends points before a stage's process ends, and never at the stage's cost.

OpenTelemetry's own environment variables say where to, and nothing else does. Unless one of them
asks for it, nothing is sent, and nothing of OpenTelemetry is imported:

    OTEL_METRICS_EXPORTER                 `none`: off; anything else: `otlp` is meant
    OTEL_EXPORTER_OTLP_ENDPOINT           http://collector:4318; `otlp` is meant
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT   the same for metrics alone, with its path
    OTEL_SDK_DISABLED                     `true`: off

The protocol is always `http/protobuf`, which every collector takes. Certificates, headers and
compression the exporter reads itself. A collector that is away, slow or refuses costs a stage
`WAIT_S` at most and one line in its log. A thread sends, and nobody waits for it longer. What was
not sent is not kept: a stage that is killed before it has sent its points loses these alone,
because no other process counts on them. Nothing here touches OpenTelemetry's global state, which in
a task of Airflow belongs to Airflow.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.contracts.code_identity import environment as what_runs
from pipelines.metrics.instruments import INSTRUMENTS, Point

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

log = logging.getLogger(__name__)

WAIT_S = 5.0
"""How long a stage waits for the collector, in seconds."""
SERVICE, _THREAD = "homefeed_retrain", "homefeed-metrics"
_LIBRARIES = ("opentelemetry", "urllib3", "requests")
_ASKING = (
    "OTEL_METRICS_EXPORTER",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Return whether the environment asks for metrics."""
    disabled, *asked = (environment.get(n, "").strip() for n in ("OTEL_SDK_DISABLED", *_ASKING))
    return disabled.lower() != "true" and asked[0] != "none" and any(asked)


def send(points: Sequence[Point], about: str) -> None:
    """Send points to where the environment says, or warn in one line that they did not arrive.

    No words of a library stand in that line, which may quote a header with a secret.

    Args:
        points: What to send.
        about: Whose points they are, for the warning.
    """
    # Here and not in the thread: an import is work and no waiting, and takes its time.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import MetricExportResult

    data, problems = _collect(points), [f"no answer within {WAIT_S:g} s"]

    def export() -> None:
        try:
            exporter = OTLPMetricExporter(timeout=WAIT_S)
            result = exporter.export(data)
            exporter.shutdown()
            is_taken = result is MetricExportResult.SUCCESS
            problems.append("" if is_taken else "it was refused or had no answer")
        # A library's fault must not redden a stage whose work is done. It is told to people.
        except Exception as error:
            problems.append(f"sending failed ({type(error).__name__})")

    # What libraries say of our sending is kept out of the log: it may quote a secret header. The
    # filter is on each of their loggers, because a logger's children do not inherit it.
    for name in tuple(logging.root.manager.loggerDict):
        if name.partition(".")[0] in _LIBRARIES:
            logging.getLogger(name).addFilter(lambda record: record.threadName != _THREAD)
    thread = threading.Thread(target=export, name=_THREAD, daemon=True)
    thread.start()
    thread.join(WAIT_S)
    if problem := problems[-1]:
        log.warning(
            "the metrics of %s did not arrive: %s; nothing else of it is affected; expected a "
            "collector that takes OTLP by HTTP; look at it and at the variables OTEL_...",
            *(about, problem),
        )


def _collect(points: Sequence[Point]) -> "MetricsData":
    """Put points into OpenTelemetry's form."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    # No `service.instance.id`, which `Resource.create` would draw by lot: each process would begin
    # new series. OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME go before what is said here.
    own = {"service.name": SERVICE, "service.version": what_runs().code_version}
    resource = Resource(own).merge(OTELResourceDetector().detect())
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    meter, known = provider.get_meter("pipelines.metrics"), {i.name: i for i in INSTRUMENTS}
    for name, value, attributes in points:
        instrument = known[name]
        gauge = meter.create_gauge(name, instrument.unit, instrument.description)
        gauge.set(value, attributes)
    collected = reader.get_metrics_data()
    assert collected is not None, "there is a point at least"
    return collected
