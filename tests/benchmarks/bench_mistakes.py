"""How many planted mistakes of a log get one message that names it, before anything is built.

The mistakes are those of tests/pipelines/log_check/test_mistakes.py, each planted alone.
"""

from pathlib import Path

import pytest
from record import Row, row

PLACE = Path(__file__).parents[1] / "pipelines" / "log_check" / "test_mistakes.py"
PLANTED = ("test_a_mistake_has_one_message_which_names_it", "test_a_broken_rule_has_one_message")


class Counted:
    """Counts the planted mistakes, and which of them were told clearly."""

    def __init__(self) -> None:
        self.told: dict[str, bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a mistake's outcome; one whose log could not be made counts as not told."""
        name = report.nodeid.partition("::")[2]
        if name.startswith(PLANTED) and report.when in ("setup", "call"):
            self.told[name] = report.passed and self.told.get(name, True)


def measure() -> list[Row]:
    """Return the share of the mistakes that are told."""
    counted = Counted()
    pytest.main(["-q", "-p", "no:cacheprovider", str(PLACE)], plugins=[counted])
    num, clear = len(counted.told), sum(counted.told.values())
    return [
        row(
            "mistakes_clear",
            100 * clear / num,
            "%",
            ratio=clear / num,
            peer="all of them",
            spread=f"{clear} of {num} mistakes",
            rows=num,
            note="one message that names table, column, found, expected and what to change",
        )
    ]
