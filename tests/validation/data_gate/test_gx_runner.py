"""Great Expectations runs the checks; a check that breaks is told from bad data."""

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import Severity, Snapshot
from pipelines.contracts.errors import HomefeedError
from support.data_gate import judge
from validation.data_gate import checks, gate, gx_runner
from validation.data_gate.gx_runner import RunName, evaluate, importing_meanwhile

AS_OF = datetime(2024, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize("table", ["days", "shards", "files", "pins"])
def test_a_broken_check_is_not_bad_data(
    planted_snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    broken = checks.Check(
        "broken", Severity.WARNING, "Looks at nothing.", table, "no_such_column", maximum=0
    )
    genuine = checks.make_checks
    monkeypatch.setattr(gate, "make_checks", lambda *a: (*genuine(*a), broken))

    with pytest.raises(HomefeedError, match="check 'broken' itself broke") as caught:
        judge(planted_snapshot, storage.local_path(planted_snapshot.uri), tmp_path)
    assert "no_such_column" in str(caught.value)
    assert caught.value.exit_code == 70


def test_no_name_of_the_data_is_markup_in_the_pages(tmp_path: Path) -> None:
    name = '<img src=x onerror=alert(1)> &amp; "it\'s"'
    check = checks.Check("shares", Severity.WARNING, name, "days", "share", "share", maximum=0)
    table = pd.DataFrame({"partition": [name, "plain"], "share": [1.0, 0.0]})
    (outcome,) = evaluate((check,), {"days": table}, {}, RunName("run", AS_OF), tmp_path)
    assert outcome.partitions == (name,), "the outcome has the name as it is"
    assert outcome.observed == f"100 % ({name})"
    pages = [page.read_text() for page in tmp_path.rglob("*.html")]
    assert any("&lt;img src=x" in page for page in pages)
    assert not any("<img src=x" in page for page in pages)


def test_pyspark_is_not_imported_with_great_expectations(tmp_path: Path) -> None:
    package = tmp_path / "pyspark"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit(0)  # as PySpark does, deeper inside")
    code = (
        "from validation.data_gate.gx_runner import import_great_expectations\n"
        "print(import_great_expectations().__version__)"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path, "GX_ANALYTICS_ENABLED": "false"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("1."), done.stderr


def test_what_is_judged_is_measured_while_the_library_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def slow_import() -> None:
        has_begun.set()
        assert may_end.wait(60)
        raise ImportError("a file of it is missing")

    monkeypatch.setattr(gx_runner, "import_great_expectations", slow_import)
    with importing_meanwhile():
        assert has_begun.wait(60), "the body runs beside the import"
        may_end.set()
    left = [each for each in threading.enumerate() if "great-expectations" in each.name]
    assert left == [], "and waits for its end, which raises nothing here"
