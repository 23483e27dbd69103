"""Airflow's own metrics: the documented settings are Airflow's, and send what the rules ask for.

Airflow runs in a process of its own, with a home of its own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from airflow.configuration import conf

from support.otlp import http_receiver

ROOT = Path(__file__).resolve().parents[2]
SETTING = re.compile(r"^\| `AIRFLOW__(\w+?)__(\w+)` \| `([^`]+)` \|", re.MULTILINE)
DOCUMENTED = SETTING.findall((ROOT / "docs" / "observability.md").read_text())
"""Section, name and value of each setting."""
SEND = """
from airflow.observability import stats
from airflow.observability.metrics import stats_utils
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
stats.incr("scheduler_heartbeat", 1, 1)
stats.gauge("dag_processing.import_errors", 2)
stats.incr("triggerer_heartbeat", 1, 1)
"""
SENT = {"airflow_scheduler_heartbeat_total": 1, "airflow_dag_processing_import_errors": 2}


def test_the_settings_are_airflows_and_not_deprecated() -> None:
    assert len(DOCUMENTED) == 4
    known = conf.configuration_description
    for section, name, _ in DOCUMENTED:
        option = known[section.lower()]["options"][name.lower()]
        assert not option.get("version_deprecated"), name
    assert known["metrics"]["options"]["otel_port"]["version_deprecated"], "it would be seen"


def test_the_stack_has_the_documented_settings_and_is_silent_until_it_is_told() -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    environment = services["scheduler"]["environment"]
    for section, name, value in DOCUMENTED:
        variable = f"AIRFLOW__{section}__{name}"
        if name == "OTEL_ON":
            # Airflow's own default is off; set here, it would outdo what settings.env says.
            assert variable not in environment
        elif name != "OTEL_PREFIX":  # Airflow's own default.
            assert environment[variable] == value
    assert [name for name in environment if name.startswith("OTEL_")] == []
    told = {name: value for name, value in environment.items() if not name.endswith("_CMD")}
    assert told.items() <= services["worker"]["environment"].items(), "stages run there"
    for service in ("scheduler", "dag-processor", "triggerer", "worker"):
        assert services[service]["env_file"] == [{"path": "./settings.env", "required": False}]


@pytest.mark.parametrize("is_on", [True, False])
def test_airflow_sends_what_the_rules_ask_for_and_nothing_where_it_is_off(tmp_path, is_on) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "AIRFLOW__"))}
    told = {f"AIRFLOW__{section}__{name}": value for section, name, value in DOCUMENTED}
    with http_receiver() as receiver:
        own = {"AIRFLOW_HOME": str(tmp_path), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        environment = kept | own | (told if is_on else {})
        command = [sys.executable, "-c", SEND]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    sent = {
        each.name.replace(".", "_") + ("_total" if each.kind == "sum" else ""): each.value
        for each in receiver.values
    }
    assert sent == (SENT if is_on else {}) and bool(receiver.requests) == is_on
    rules = (ROOT / "docker" / "alerts" / "airflow.yaml").read_text()
    groups = yaml.safe_load(rules)["groups"]
    asked = re.findall(r"\bairflow_\w+", str([r["expr"] for g in groups for r in g["rules"]]))
    assert set(asked) == SENT.keys()
