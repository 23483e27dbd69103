"""A real store of metrics that takes OTLP and answers PromQL: VictoriaMetrics, from Debian.

Debian's Prometheus is built without its OTLP receiver, so it cannot be the store here.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from support.serving import Process, free_port, wait_until

Labels = dict[str, str]


@dataclass(frozen=True)
class Store:
    """Where it listens, and how it is asked."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send a stage's metrics here."""
        return {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{self.url}/opentelemetry/v1/metrics"}

    def query(self, expression: str) -> list[tuple[Labels, float]]:
        """Return what an expression gives now; a fault in it is an error of the test."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression, "nocache": "1"})
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def value(self, selector: str) -> float:
        """Return the newest value of the only series that is selected; it is waited for."""
        query = f"last_over_time({selector}[1h])"
        wait_until(lambda: self.query(query), what=lambda: f"something of {selector} arrives")
        [(_, value)] = self.query(query)
        return value


@contextlib.contextmanager
def metrics_store(program: str, folder: Path) -> Iterator[Store]:
    """Start a store that keeps its files in a folder, and end it by its process id."""
    store = Store(f"http://127.0.0.1:{free_port()}")
    command = [program, f"-storageDataPath={folder / 'data'}", "-opentelemetry.usePrometheusNaming"]
    command += [f"-httpListenAddr={store.url.removeprefix('http://')}", "-retentionPeriod=200d"]
    command += ["-search.latencyOffset=0s", "-memory.allowedBytes=100MB"]
    server = Process(command, folder / "store.log", f"{store.url}/health")
    with server.running():
        yield store
