"""docs/event_log.md is true: its table is the contract's, and its commands run on such a CSV."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.contracts.schemas import EVENT_LOG_TABLES, PIN_TIME, contract_of
from pipelines.log_check.init import write_example

ROW = re.compile(r"^\| (\w+) \| (\w+) \| ([\w ]+) \| (yes|no) \|", re.MULTILINE)
BLOCKS = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CSV = re.compile(r"^```csv (\w+\.csv)\n(.*?)^```", re.DOTALL | re.MULTILINE)
NUM_DAYS, REQUESTS_A_DAY = 12, 60


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "event_log.md").read_text()


def commands(page: str) -> list[str]:
    lines = "".join(text for kind, text in BLOCKS.findall(page) if not kind).splitlines()
    return [line for line in lines if "homefeed " in line or "python " in line]


def columns_of(text: str) -> list[str]:
    return text.splitlines()[0].split(",")


def write_tables(folder: Path, examples: dict[str, str]) -> None:
    """Write tables with the columns of the page's own, and some days of rows; r0 is the page's."""
    rng, shown, done = np.random.default_rng(1), [], []
    for request in range(NUM_DAYS * REQUESTS_A_DAY):
        user, day = f"user-{request % 20}", 1 + request // REQUESTS_A_DAY
        time = f"2026-01-{day:02d}T{9 + request % 10:02d}:00:00Z"
        for position, item in enumerate(rng.choice(12, 5, replace=False)):
            shown.append((f"r{request}", user, f"item-{item}", time, position))
            if rng.random() < 0.3:
                done.append((user, f"item-{item}", "click", time, f"r{request}"))
    rows = {
        "shown.csv": shown,
        "done.csv": done,
        "items.csv": [(f"item-{n}", f"word{n % 3} thing") for n in range(12)],
    }
    for name, text in examples.items():
        frame = pd.DataFrame(rows[name], columns=columns_of(text))
        frame.to_csv(folder / name, index=False)


def test_the_table_of_columns_is_the_contracts(page: str) -> None:
    said = [
        (table, column, kind, nulls == "yes") for table, column, kind, nulls in ROW.findall(page)
    ]
    expected = [
        (table, field.name, shown(field.type), field.nullable)
        for table in EVENT_LOG_TABLES
        for field in contract_of(table, [PIN_TIME.name])
    ]
    assert said == expected


def shown(kind: pa.DataType) -> str:
    return "list of float" if pa.types.is_fixed_size_list(kind) else str(kind)


def test_the_example_of_the_page_has_the_mappings_tables(page: str, tmp_path: Path) -> None:
    write_example(tmp_path / "mine")
    mapping = (tmp_path / "mine" / "mapping.yaml").read_text()
    found = dict(CSV.findall(page))
    assert list(found) == ["shown.csv", "done.csv", "items.csv"]
    for name, text in found.items():
        assert f"files: tables/{name}" in mapping
        assert {len(line.split(",")) for line in text.splitlines()} == {len(columns_of(text))}


@pytest.mark.parametrize("place", ["docs/event_log.md", "README.md"])
def test_from_a_csv_to_a_judged_log(
    place: str, page: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's own commands, up to the cycle, which the tests of whole cycles run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    text = (repository / place).read_text()
    section = text.partition("\n## Your own data\n")[2].partition("\n## ")[0]
    said = []
    for line in commands(section or text):
        words = shlex.split(line)
        if "retrain" in words or words[1:3] == ["recipe", "check"]:  # they need an MLflow server
            continue
        written = words.pop() if ">" in words else ""
        done = CliRunner().invoke(
            app, [word for word in words[1:] if word != ">"], catch_exceptions=False
        )
        if written:
            (tmp_path / written).write_text(done.stdout)
            continue
        said.append(done.output)
        if "init" in words:
            write_tables(tmp_path / "mine" / "tables", dict(CSV.findall(page)))
    wrote, imported, judged, *as_recipe = said
    assert "mapping.yaml" in wrote and "mine/event_log" in imported and "0 errors" in judged
    assert (tmp_path / "mine" / "log.html").exists()
    assert all("0 errors" in each for each in as_recipe)
    assert len(as_recipe) == (place == "docs/event_log.md")
