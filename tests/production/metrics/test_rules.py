"""The alert rules before the programs that will read them: Prometheus' and VictoriaMetrics' own."""

import subprocess
from pathlib import Path

from support.debian_tools import tool

ROOT = Path(__file__).resolve().parents[3]
RULES = sorted(str(path) for path in (ROOT / "docker" / "alerts").iterdir())
UNIT_TESTS = sorted(str(path) for path in (ROOT / "tests" / "docker" / "alerts").iterdir())


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_fires_them() -> None:
    promtool = tool("promtool", "promtool")
    run(promtool, "check", "rules", *RULES)
    run(promtool, "test", "rules", *UNIT_TESTS)


def test_vmalert_takes_the_rules() -> None:
    run(tool("vmalert", "victoria-metrics"), "-dryRun", *(f"-rule={path}" for path in RULES))
