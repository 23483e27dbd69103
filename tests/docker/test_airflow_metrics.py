"""Airflow's own metrics: the documented settings are Airflow's, and send what the rules ask for.

Airflow runs in a process of its own, with a home of its own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from airflow.configuration import conf

from support.otlp import http_receiver

ROOT = Path(__file__).resolve().parents[2]
SETTING = re.compile(r"^\| `AIRFLOW__(\w+?)__(\w+)` \| `([^`]+)` \|", re.MULTILINE)
SEND = """
from airflow.observability import stats
from airflow.observability.metrics import stats_utils
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
stats.incr("scheduler_heartbeat", 1, 1)
stats.gauge("dag_processing.import_errors", 2)
stats.incr("triggerer_heartbeat", 1, 1)
"""


def documented() -> list[tuple[str, str, str]]:
    text = (ROOT / "docs" / "observability.md").read_text()
    return [
        (section.lower(), name.lower(), value) for section, name, value in SETTING.findall(text)
    ]


def run_in_airflow(code: str, home: Path, **variables: str) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "AIRFLOW__"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "AIRFLOW_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_settings_are_airflows_and_not_deprecated() -> None:
    names = [[section, name] for section, name, _ in documented()]
    assert len(names) == 4
    known = conf.configuration_description
    told = {name: known[section]["options"][name] for section, name in names}
    assert [name for name, option in told.items() if option.get("version_deprecated")] == []
    assert known["metrics"]["options"]["otel_port"]["version_deprecated"] == "3.2.0", (
        "would be seen"
    )


def test_the_stack_has_the_documented_settings_and_is_silent_until_it_is_told() -> None:
    stack = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    environment = stack["services"]["scheduler"]["environment"]
    for section, name, value in documented():
        variable = f"AIRFLOW__{section.upper()}__{name.upper()}"
        if name == "otel_on":
            # Airflow's own default is off; set here, it would outdo what settings.env says.
            assert variable not in environment
        elif name != "otel_prefix":  # Airflow's own default.
            assert environment[variable] == value
    assert [name for name in environment if name.startswith("OTEL_")] == []
    worker = stack["services"]["worker"]
    assert environment.items() <= worker["environment"].items(), "the stages run in the worker"
    for service in ("scheduler", "dag-processor", "triggerer", "worker"):
        told = stack["services"][service]["env_file"]
        assert told == [{"path": "./settings.env", "required": False}]


def test_airflow_sends_what_the_rules_ask_for(tmp_path: Path) -> None:
    variables = {
        f"AIRFLOW__{section.upper()}__{name.upper()}": value
        for section, name, value in documented()
    }
    with http_receiver() as receiver:
        run_in_airflow(SEND, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **variables)
    sent = {
        each.name.replace(".", "_") + ("_total" if each.kind == "sum" else ""): each.value
        for each in receiver.values
    }
    assert sent == {
        "airflow_scheduler_heartbeat_total": 1,
        "airflow_dag_processing_import_errors": 2,
    }
    rules = yaml.safe_load((ROOT / "docker" / "alerts" / "airflow.yaml").read_text())
    asked = {
        name
        for group in rules["groups"]
        for rule in group["rules"]
        for name in re.findall(r"\bairflow_\w+", rule["expr"])
    }
    assert asked == set(sent)


def test_where_it_is_off_airflow_sends_nothing(tmp_path: Path) -> None:
    with http_receiver() as receiver:
        run_in_airflow(SEND, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        assert receiver.requests == []
