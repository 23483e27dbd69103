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


def test_victoria_metrics_takes_the_rules_and_fires_them() -> None:
    run(tool("vmalert", "victoria-metrics"), "-dryRun", *(f"-rule={path}" for path in RULES))
    files = (f"--files={path}" for path in UNIT_TESTS)
    run(tool("vmalert-tool", "victoria-metrics"), "unittest", "-disableAlertgroupLabel", *files)
