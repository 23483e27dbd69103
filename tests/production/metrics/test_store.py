"""Metrics in a real store that takes OTLP and answers PromQL: they have the names of the rules.

The store is VictoriaMetrics, from Debian, whose Prometheus is built without its OTLP receiver.
"""

from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.metrics.instruments import INSTRUMENTS, Point
from pipelines.metrics.sending import send
from support.debian_tools import tool
from support.prometheus_names import label_name, metric_name
from support.serving import Process, free_port, wait_until

pytestmark = [pytest.mark.services, pytest.mark.slow]


def test_the_store_has_every_metric_under_the_name_that_the_rules_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, host = tool("victoria-metrics", "victoria-metrics"), f"127.0.0.1:{free_port()}"
    url = f"http://{host}"
    command = [program, f"-storageDataPath={tmp_path / 'data'}", f"-httpListenAddr={host}"]
    command += ["-opentelemetry.usePrometheusNaming", "-search.latencyOffset=0s"]

    def found(name: str) -> list[dict[str, Any]]:
        asked = {"query": f"last_over_time({name}[1h])", "nocache": "1"}
        return httpx.get(f"{url}/api/v1/query", params=asked).json()["data"]["result"]

    address = f"{url}/opentelemetry/v1/metrics"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", address)
    with Process(command, tmp_path / "store.log", f"{url}/health").running():
        send([Point(n.name, 7, dict.fromkeys(n.attributes, "x")) for n in INSTRUMENTS], "alert")
        for each in INSTRUMENTS:
            name = metric_name(each)
            wait_until(lambda name=name: found(name), what=lambda name=name: name)
            [series] = found(name)
            assert float(series["value"][1]) == 7
            assert {*map(label_name, each.attributes)} <= series["metric"].keys()
