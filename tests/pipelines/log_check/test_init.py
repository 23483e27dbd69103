"""`homefeed log init`: three files into an empty folder, and never over anything."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.contracts.errors import ConfigurationError
from pipelines.log_check.init import FILES, write_example
from pipelines.sources.event_log_writer import id_of
from support.own_tables import rows_of_log

LONGEST_ADAPTER = 80


@pytest.fixture
def example(tmp_path: Path) -> dict[str, Any]:
    """The names of the example adapter, beside small tables."""
    write_example(tmp_path / "mine")
    path = tmp_path / "mine" / "make_log.py"
    names = {"__file__": str(path), "__name__": "make_log"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    return names


def give(folder: Path, **tables: str) -> None:
    """Write tables, whose rows are separated by blanks."""
    for name, rows in tables.items():
        (folder / "mine/tables" / f"{name}.csv").write_text(rows.replace(" ", "\n") + "\n")


def test_the_files_are_written_and_named_and_nothing_is_written_over(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["log", "init", str(tmp_path / "mine")])
    assert done.output.splitlines() == [f"wrote {tmp_path / 'mine' / name}" for name in FILES]
    adapter = (tmp_path / "mine" / "make_log.py").read_text()
    assert adapter.count("\n") <= LONGEST_ADAPTER
    assert ast.get_docstring(ast.parse(adapter))
    with pytest.raises(ConfigurationError, match=r"holds \['README.md'.*expected an empty"):
        write_example(tmp_path / "mine")
    with pytest.raises(ConfigurationError, match="is a file; expected an empty folder"):
        write_example(tmp_path / "mine" / "make_log.py")
    assert (tmp_path / "mine" / "make_log.py").read_text() == adapter


def test_a_table_that_is_missing_is_named(example: dict[str, Any], tmp_path: Path) -> None:
    give(tmp_path, items="item,text a,red")
    with pytest.raises(FileNotFoundError, match=r"mine/tables/done\.csv"):
        example["main"]()
    assert not (tmp_path / "mine" / "event_log").exists()


@pytest.mark.parametrize("requests", [["", "", ""], ["7", "", "8"], ["7", "8", "9"]])
def test_ids_are_texts_with_gaps_and_times_have_parts_of_seconds(
    example: dict[str, Any], tmp_path: Path, requests: list[str]
) -> None:
    days = [f"2026-01-01T1{hour}:00:40{part}Z" for hour, part in enumerate(("", ".5", ".25"))]
    shown = [f"{7 + row},007,{item},{days[row]}" for row, item in enumerate(("001", "1", "NA"))]
    done = [f"007,{item},click,{days[2]},{requests[row]}" for row, item in enumerate(("001", "NA"))]
    give(
        tmp_path,
        items="item,text 001,red 1, NA,red",
        shown=" ".join(["request,user,item,time", *shown]),
        done=" ".join(["user,item,kind,time,request", *done]),
        users="user,time,age_group 007,2026-01-01T00:00:00Z,35-39",
    )
    example["main"]()
    log = tmp_path / "mine" / "event_log"
    found = [(row["request_id"], row["acted_at"] % 60_000) for row in rows_of_log(log, "actions")]
    assert sorted(found, key=str) == sorted([(r or None, 40_250) for r in requests[:2]], key=str)
    times = [row["impressed_at"] % 60_000 for row in rows_of_log(log, "impressions")]
    assert times == [40_000, 40_500, 40_250]
    assert {row["user_id"] for row in rows_of_log(log, "impressions")} == {id_of("007")}
    assert [row["age_group"] for row in rows_of_log(log, "users")] == ["35-39"]
    pins = {row["pin_id"]: np.array(row["embedding"]) for row in rows_of_log(log, "pins")}
    one, none, other = (pins[id_of(name)] for name in ("001", "1", "NA"))
    # Items with a word in common are nearer than others; one without words is zero.
    assert one @ other > 0.2 and not none.any()


def test_candidates_are_drawn_where_none_were_logged(example: dict[str, Any]) -> None:
    """As often as they were chosen, not what the user chose that day, and each day by itself."""
    weights = np.arange(1, 301)
    items = np.random.default_rng(3).choice(300, 3000, p=weights / weights.sum())
    done = pd.DataFrame({"item": items.astype(str), "kind": "buy"})
    done["user"] = [f"u{row % 40}" for row in range(3000)]
    done["time"] = days = [pd.Timestamp(f"2026-01-0{1 + row % 2}T12:00:00Z") for row in range(3000)]
    shown, answered = example["draw"](done)
    pairs, asked = (rows.set_index(["request", "item"]).index for rows in (shown, answered))
    assert pairs.is_unique and asked.isin(pairs).all()
    drawn = shown[~pairs.isin(asked)]
    chosen = done.set_index(["user", "item"]).index
    assert not drawn.set_index(["user", "item"]).index.isin(chosen).any()
    assert (drawn.groupby("request").size() == example["NUM_DRAWN"]).all()
    counts = np.bincount(drawn["item"].astype(int), minlength=300)
    assert counts[200:].sum() > 3 * counts[:100].sum()
    alone, own = example["draw"](done[done["time"] == days[1]].reset_index(drop=True))
    assert shown[shown["time"] == days[1]].to_numpy().tolist() == alone.to_numpy().tolist()
    assert answered[answered["time"] == days[1]]["request"].tolist() == own["request"].tolist()
