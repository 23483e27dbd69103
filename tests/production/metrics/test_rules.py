"""The alert rules before the programs that will read them: Prometheus' and VictoriaMetrics' own."""

import subprocess
from pathlib import Path

from support.debian_tools import tool

ROOT = Path(__file__).resolve().parents[3]
RULES = sorted(str(path) for path in (ROOT / "docker" / "alerts").iterdir())
UNIT_TESTS = sorted(str(path) for path in (ROOT / "tests" / "docker" / "alerts").iterdir())


def complaint_of(*command: str) -> str:
    """Run a command, and return what it said where it found a fault, or ''."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{done.returncode}: {done.stdout}{done.stderr}" if done.returncode else ""


def test_prometheus_takes_the_rules_and_fires_them() -> None:
    promtool = tool("promtool", "promtool")
    assert complaint_of(promtool, "check", "rules", *RULES) == ""
    assert complaint_of(promtool, "test", "rules", *UNIT_TESTS) == ""


def test_victoria_metrics_takes_the_rules_and_fires_them() -> None:
    vmalert, unittest = (tool(name, "victoria-metrics") for name in ("vmalert", "vmalert-tool"))
    assert complaint_of(vmalert, "-dryRun", *(f"-rule={path}" for path in RULES)) == ""
    files = (f"--files={path}" for path in UNIT_TESTS)
    assert complaint_of(unittest, "unittest", "-disableAlertgroupLabel", *files) == ""
