"""A receiver of OTLP metrics, by HTTP, that keeps what arrives, or misbehaves."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from support.serving import Handler, http_server

Attributes = dict[str, Any]


@dataclass(frozen=True)
class Arrived:
    """One value as it came over the wire."""

    name: str
    unit: str
    kind: str  # 'gauge' or 'sum'
    value: float
    attributes: Attributes
    resource: Attributes


@dataclass
class Receiver:
    """What arrived, and how the server answers: 200 and at once unless told otherwise."""

    url: str = ""
    requests: list[ExportMetricsServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    delay_s: float = 0.0
    drips: bool = False  # the answer comes byte by byte and does not end
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def values(self) -> list[Arrived]:
        return [value for request in self.requests for value in _values(request)]

    def of(self, name: str) -> list[float]:
        """Return the values of one metric."""
        return [each.value for each in self.values if each.name == name]


@contextlib.contextmanager
def http_receiver() -> Iterator[Receiver]:
    """Listen on a free port of this machine."""
    receiver = Receiver()

    def take(handler: Handler) -> None:
        body, status = handler.body(), receiver.status
        receiver.headers.append({key.lower(): value for key, value in handler.headers.items()})
        receiver.is_over.wait(receiver.delay_s)
        if status == 200:
            receiver.requests.append(ExportMetricsServiceRequest.FromString(body))
        with contextlib.suppress(OSError):  # Whoever asked has gone.
            if not receiver.drips:
                return handler.answer(status)
            handler.send_response(status)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            while not receiver.is_over.wait(0.2):
                handler.wfile.write(b"x")
                handler.wfile.flush()

    with http_server(Handler, do_POST=take) as receiver.url:
        try:
            yield receiver
        finally:
            receiver.is_over.set()


def _values(request: ExportMetricsServiceRequest) -> Iterator[Arrived]:
    for resource in request.resource_metrics:
        about = _attributes(resource.resource.attributes)
        for metric in (each for scope in resource.scope_metrics for each in scope.metrics):
            kind = metric.WhichOneof("data")
            for point in getattr(metric, kind).data_points if kind in ("sum", "gauge") else ():
                number = getattr(point, point.WhichOneof("value"))
                attributes = _attributes(point.attributes)
                yield Arrived(metric.name, metric.unit, kind, number, attributes, about)


def _attributes(pairs: Any) -> Attributes:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
