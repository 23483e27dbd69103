"""Where metrics go: only where OpenTelemetry's variables say, and no secret of theirs is shown."""

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as ByGrpc
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as ByHttp
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

from pipelines.contracts.errors import ConfigurationError
from pipelines.metrics.destinations import (
    exporter_of,
    shown_endpoint,
    wanted_exporters,
    without_secrets,
)

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ()),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_METRICS_EXPORTER": " "}, ()),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, ()),
        (ENDPOINT, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector/v1/metrics"}, ("otlp",)),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, ("otlp",)),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": "none"}, ()),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": "console, otlp"}, ("console", "otlp")),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, ()),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "false"}, ("otlp",)),
    ],
)
def test_the_variables_say_whether_and_how(
    environment: dict[str, str], expected: tuple[str, ...]
) -> None:
    assert wanted_exporters(environment) == expected


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        ("otlp", {}, ByHttp),
        ("otlp", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ByGrpc),
        (
            "otlp",
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
            },
            ByHttp,
        ),
        ("console", {}, ConsoleMetricExporter),
    ],
)
def test_an_exporter_is_found_by_its_name_and_the_protocol(
    name: str, environment: dict[str, str], expected: type
) -> None:
    assert exporter_of(name, environment) is expected


@pytest.mark.parametrize(
    ("name", "environment", "found", "asked"),
    [
        ("otlp", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "'http/json'", "http/protobuf"),
        ("jaeger", {}, "'jaeger'", "console"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(
    name: str, environment: dict[str, str], found: str, asked: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        exporter_of(name, environment)
    assert found in str(raised.value)
    assert asked in str(raised.value)


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("http://collector:4318", "http://collector:4318"),
        ("https://me:s3cret@collector:4318/in?token=t0ken", "https://collector:4318"),
        ("collector:4317", "collector:4317"),
        ("", "the exporter's default address"),
    ],
)
def test_an_address_is_shown_without_what_lets_in(endpoint: str, shown: str) -> None:
    assert shown_endpoint({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}) == shown


def test_headers_and_passwords_are_taken_out_of_a_text() -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abcd%2F1234,x-key=k3y-value\n",
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "api-key=other-secret",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:pa55word@collector/?token=t0ken",
    }
    said = (
        "Bearer%20abcd%2F1234 Bearer abcd/1234 abcd/1234 'k3y-value\\n' k3y-value other-secret "
        "https://user:pa55word@collector/?token=t0ken, status 401"
    )
    shown = without_secrets(said, environment)
    for secret in ("abcd", "1234", "k3y-value", "other-secret", "pa55word", "t0ken"):
        assert secret not in shown
    assert "status 401" in shown
    assert without_secrets(said, {}) == said
