"""Great Expectations runs the checks; a check that breaks is told from bad data."""

import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.contracts.artifacts import ExpectationOutcome, Severity
from pipelines.contracts.errors import HomefeedError
from support.plain_gate import plain_suite
from validation.data_gate.gx_runner import NAN, Check, evaluate
from validation.report.data_docs import Subject

AS_OF = datetime(2024, 5, 6, tzinfo=UTC)
SUBJECT = Subject("a test", "nothing follows", {})


def run(tmp_path: Path, *checks: Check, **accepted: str) -> tuple[ExpectationOutcome, ...]:
    return evaluate(checks, "run", AS_OF, SUBJECT, tmp_path / "docs", accepted)


def test_a_broken_check_is_not_bad_data(tmp_path: Path) -> None:
    broken = Check("broken", Severity.WARNING, "Numbers are no times.", "days", {"a": 1.0},
                   maximum=AS_OF)  # type: ignore[arg-type]  # fmt: skip
    with pytest.raises(HomefeedError, match="check 'broken' itself broke") as caught:
        run(tmp_path, broken)
    assert "the data are not to blame" in str(caught.value)
    assert caught.value.exit_code == 70


def test_no_name_of_the_data_is_markup_in_the_pages(tmp_path: Path) -> None:
    name = '<img src=x onerror=alert(1)> &amp; "it\'s"'
    values = {name: 1.0, "plain": 0.0}
    check = Check("shares", Severity.WARNING, name, "days", values, "share", maximum=0)
    (outcome,) = run(tmp_path, check, shares="Ada: a new country")
    assert outcome.partitions == (name,), "the outcome has the name as it is"
    assert outcome.observed == f"100 % ({name})"
    assert outcome.accepted_by == "Ada: a new country"
    pages = [page.read_text() for page in tmp_path.rglob("*.html")]
    assert any("&lt;img src=x" in page for page in pages)
    assert not any("<img src=x" in page for page in pages)


def test_the_plain_gate_of_the_tests_judges_as_great_expectations_does(tmp_path: Path) -> None:
    draw, checks = random.Random(3), []
    bounds = ((None, 0.0), (None, 1.0), (0.0, None), (0.0, 1.0), (0.5, 0.5), (-1.0, 2.0))
    for number, (low, high) in enumerate(bounds):
        values = {name: draw.choice((NAN, -1.0, 0.0, 0.5, 1.0, 2.0)) for name in "abcdef"}
        name = f"check_{number}"
        checks.append(Check(name, Severity.WARNING, "", "days", values, "number", low, high))
    found = plain_suite(None, "days", checks, None)
    plain = tuple(check.outcome(*found[check.name]) for check in checks)
    assert plain == run(tmp_path, *checks)
    assert any(outcome.partitions for outcome in plain)
    told = [outcome.expected for outcome in plain]
    assert told[1:4] == ["at most 1", "at least 0", "0 to 1"]


def test_what_is_not_measured_and_what_is_empty_are_not_met(tmp_path: Path) -> None:
    tables = {"part": ("days", {"a": 1.0, "b": NAN}), "nothing": ("heads", {}),
              "both": ("days", {"a": 7.0, "b": NAN})}  # fmt: skip
    checks = (Check(name, Severity.WARNING, "Few.", *table, "count", maximum=2)
              for name, table in tables.items())  # fmt: skip
    part, nothing, both = run(tmp_path, *checks)
    assert not part.is_met and part.is_unmeasured and part.partitions == ("b",)
    assert part.observed == "1 (a); not measured in b; see the checks that failed first"
    assert part.expected == "at most 2"
    assert not nothing.is_met and nothing.observed == "nothing to look at"
    assert not both.is_unmeasured and both.partitions == ("a", "b")


def test_pyspark_is_not_imported_with_great_expectations(tmp_path: Path) -> None:
    package = tmp_path / "pyspark"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit(0)  # as PySpark does, deeper inside")
    code = (
        "from validation.data_gate.gx_runner import import_great_expectations as made\n"
        "import os; print(made().__version__, os.environ['GX_ANALYTICS_ENABLED'])"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "GX_ANALYTICS_ENABLED": "true"
    }  # fmt: skip
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1.") and done.stdout.endswith(" false\n"), done.stderr
