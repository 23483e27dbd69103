"""Where metrics are sent: what OpenTelemetry's own environment variables say, and nothing else.

Unless one of them asks for it, nothing is sent, and nothing of OpenTelemetry is imported:

    OTEL_METRICS_EXPORTER                 `otlp`, `console`, or both with a comma; `none`: off
    OTEL_EXPORTER_OTLP_ENDPOINT           http://collector:4318; `otlp` is meant
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT   the same for metrics alone, with its path
    OTEL_EXPORTER_OTLP_PROTOCOL           `http/protobuf`, as where it is not set, or `grpc`
    OTEL_SDK_DISABLED                     `true`: off

Certificates, headers and compression the exporter reads itself. How long it may take is not for
variables to say: a stage waits `pipelines.metrics.sending.WAIT_S` at most.

Tested in tests/pipelines/metrics/test_destinations.py.
"""

from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipelines.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

_GROUP = "opentelemetry_metrics_exporter"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS = ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_SHORTEST_SECRET = 4
"""Shorter words are in any text by chance, and are no secret."""


def wanted_exporters(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the exporters that the environment asks for, () where for none."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    named = environment.get("OTEL_METRICS_EXPORTER", "").split(",")
    names = tuple(name.strip() for name in named if name.strip())
    if not names and first_set(environment, _ENDPOINTS):
        names = ("otlp",)
    return tuple(name for name in names if name != "none")


def first_set(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    """Return the first variable's value that is not empty, or ''."""
    return next((found for name in names if (found := environment.get(name, "").strip())), "")


def exporter_of(name: str, environment: Mapping[str, str]) -> type["MetricExporter"]:
    """Import an exporter by the name that `wanted_exporters` gives.

    Raises:
        ConfigurationError: no such exporter is installed, or the protocol is not known.
    """
    entry = name
    if name == "otlp":
        protocol = first_set(environment, _PROTOCOLS) or "http/protobuf"
        if protocol not in _OTLP:
            raise ConfigurationError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; expected one of "
                f"{', '.join(sorted(_OTLP))}; correct the environment"
            )
        entry = _OTLP[protocol]
    known = {point.name: point for point in metadata.entry_points(group=_GROUP)}
    if entry not in known:
        raise ConfigurationError(
            f"OTEL_METRICS_EXPORTER names {name!r}; expected `none` or one of those that are "
            f"installed: {', '.join(sorted(known))}; correct the environment, or install the "
            f"package that brings {entry}"
        )
    exporter: type[MetricExporter] = known[entry].load()
    return exporter


def shown_endpoint(environment: Mapping[str, str]) -> str:
    """Return where OTLP goes, without user, password and query: what may stand in a log."""
    endpoint = first_set(environment, _ENDPOINTS)
    if not endpoint:
        return "the exporter's default address"
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".removeprefix("://")


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """Return a text without what the headers and the endpoint's address keep secret.

    Exporters quote a header which they cannot send or read.
    """
    secrets = set()
    for variable in _HEADERS:
        value = environment.get(variable, "")
        secrets.add(value)
        for pair in value.split(","):
            secret = pair.partition("=")[2].strip()
            secrets |= {pair, secret, *secret.split(), unquote(secret), *unquote(secret).split()}
    for variable in _ENDPOINTS:
        parts = urlsplit(environment.get(variable, ""))
        secrets |= {parts.username or "", parts.password or "", parts.query}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***").replace(repr(secret)[1:-1], "***")
    return text
