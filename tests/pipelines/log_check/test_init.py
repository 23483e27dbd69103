"""`homefeed log init`: three files into an empty folder, and never over anything."""

import ast
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipelines import sources
from pipelines.cli.main import app
from pipelines.contracts.errors import ConfigurationError
from pipelines.log_check.init import FILES, write_example
from pipelines.sources.writer.batches import id_of
from support.own_tables import rows_of_log

LONGEST_ADAPTER = 80


class Written:
    """Takes the batches that the example hands over, in the place of the writer."""

    def __init__(self, location: Path, embedding_version: str) -> None:
        self.location, self.version = location, embedding_version
        self.tables: dict[str, pd.DataFrame] = {}

    def __enter__(self) -> "Written":
        Written.last = self
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __getattr__(self, table: str) -> Any:
        return lambda batch: self.tables.update({table: batch})

    last: "Written"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The example adapter as a module, with two small tables."""
    write_example(tmp_path / "mine")
    tables = tmp_path / "mine" / "tables"
    items = {"item": ["a", "b", "c"], "text": ["red shoe", "red hat", None]}
    pd.DataFrame(items).to_csv(tables / "items.csv", index=False)
    done = {
        "user": ["u", "u", "v"],
        "item": ["a", "b", "a"],
        "kind": ["click", "like", "click"],
        "time": ["2026-01-01T10:00:00Z", "2026-01-01T11:00:00+01:00", "2026-01-02T09:00:00Z"],
        "request": ["r1", None, None],
    }
    pd.DataFrame(done).to_csv(tables / "done.csv", index=False)
    monkeypatch.setattr(sources, "EventLogWriter", Written, raising=False)
    path = tmp_path / "mine" / "make_log.py"
    module = types.ModuleType("make_log")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "make_log", module)
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module


def test_the_files_are_written_and_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["log", "init", str(tmp_path / "mine")])
    assert done.output.splitlines() == [f"wrote {tmp_path / 'mine' / name}" for name in FILES]
    adapter = (tmp_path / "mine" / "make_log.py").read_text()
    assert adapter.count("\n") <= LONGEST_ADAPTER
    assert ast.get_docstring(ast.parse(adapter))


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"holds \['notes.txt'\]; expected an empty"):
        write_example(tmp_path)
    with pytest.raises(ConfigurationError, match="is a file; expected an empty folder"):
        write_example(tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_logged_impressions_are_handed_over_as_they_are(
    example: types.ModuleType, tmp_path: Path
) -> None:
    shown = "request,user,item,time,position\nr1,u,a,2026-01-01T09:59:00Z,0\n"
    (tmp_path / "mine/tables/shown.csv").write_text(shown)
    example.main()
    tables = Written.last.tables
    assert Written.last.version == "mine-1"
    assert list(tables["impressions"]) == [
        "request_id",
        "user_id",
        "pin_id",
        "impressed_at",
        "position",
    ]
    assert list(tables["actions"]) == ["user_id", "pin_id", "action_type", "acted_at", "request_id"]
    assert tables["actions"]["acted_at"][1] == pd.Timestamp("2026-01-01T10:00:00Z")
    embeddings = np.stack(list(tables["pins"]["embedding"]))
    assert embeddings.shape == (3, 32)
    # Items with a word in common are nearer than others; one without words is zero.
    assert embeddings[0] @ embeddings[1] > 0.2
    assert not embeddings[2].any()


@pytest.mark.parametrize("name", ["done", "items"])
def test_a_table_that_is_missing_is_named(
    example: types.ModuleType, tmp_path: Path, name: str
) -> None:
    (tmp_path / "mine/tables" / f"{name}.csv").unlink()
    with pytest.raises(FileNotFoundError, match=rf"mine/tables/{name}\.csv"):
        example.main()
    assert not (tmp_path / "mine" / "event_log").exists()


@pytest.mark.parametrize("requests", [["", "", ""], ["7", "", "8"], ["7", "8", "9"]])
def test_a_csv_s_ids_are_texts_with_gaps_and_its_times_have_parts_of_seconds(
    tmp_path: Path, requests: list[str]
) -> None:
    write_example(tmp_path / "mine")
    tables = tmp_path / "mine" / "tables"
    days = [f"2026-01-01T1{hour}:00:40{part}Z" for hour, part in enumerate(("", ".5", ".25"))]
    (tables / "items.csv").write_text("item,text\n001,red\n1,\nNA,blue\n")
    shown = [f"{7 + row},007,{item},{days[row]}" for row, item in enumerate(("001", "1", "NA"))]
    done = [f"007,{item},click,{days[2]},{requests[row]}" for row, item in enumerate(("001", "NA"))]
    (tables / "shown.csv").write_text("request,user,item,time\n" + "\n".join(shown))
    (tables / "done.csv").write_text("user,item,kind,time,request\n" + "\n".join(done))
    adapter = {"__file__": str(tmp_path / "mine" / "make_log.py"), "__name__": "make_log"}
    exec((tmp_path / "mine" / "make_log.py").read_text(), adapter)
    adapter["main"]()
    log = tmp_path / "mine" / "event_log"
    found = [(row["request_id"], row["acted_at"] % 60_000) for row in rows_of_log(log, "actions")]
    assert sorted(found, key=str) == sorted([(r or None, 40_250) for r in requests[:2]], key=str)
    times = [row["impressed_at"] % 60_000 for row in rows_of_log(log, "impressions")]
    assert times == [40_000, 40_500, 40_250]
    assert {row["user_id"] for row in rows_of_log(log, "impressions")} == {id_of("007")}
    assert {row["pin_id"] for row in rows_of_log(log, "pins")} == {
        id_of(i) for i in ("001", "1", "NA")
    }


def test_candidates_are_drawn_where_none_were_logged(
    example: types.ModuleType, tmp_path: Path
) -> None:
    num_items, num_rows = 300, 3000
    weights = np.arange(1, num_items + 1)
    rng = np.random.default_rng(3)
    chosen = rng.choice(num_items, num_rows, p=weights / weights.sum())
    rows = [
        f"u{row % 40},{item:03d},buy,2026-01-0{1 + row % 2}T10:00:00Z,"
        for row, item in enumerate(chosen)
    ]
    table = "\n".join(["user,item,kind,time,request", *rows])
    (tmp_path / "mine" / "tables" / "done.csv").write_text(table)
    example.main()
    shown, done = (Written.last.tables[name] for name in ("impressions", "actions"))
    pairs = shown.set_index(["request_id", "pin_id"]).index
    asked = done.set_index(["request_id", "pin_id"]).index
    assert pairs.is_unique and asked.isin(pairs).all()
    drawn = shown[~pairs.isin(asked)]
    # A user has all actions of a row number modulo 40, so a user's are all on one day.
    of_user = drawn.set_index(["user_id", "pin_id"]).index
    assert not of_user.isin(done.set_index(["user_id", "pin_id"]).index).any()
    assert (drawn.groupby("request_id").size() == example.NUM_DRAWN).all()
    counts = np.bincount(drawn["pin_id"].astype(int), minlength=num_items)
    assert counts[200:].sum() > 3 * counts[:100].sum(), "as often as they were chosen"


def test_a_day_is_drawn_alike_alone_and_among_others(
    example: types.ModuleType,
) -> None:
    """Whoever adds a day draws it alone: its requests must not be those of another day."""
    rng = np.random.default_rng(5)
    days = [pd.Timestamp(f"2026-01-0{day}T12:00:00Z") for day in (1, 2)]
    done = pd.DataFrame(
        {
            "user": [f"u{row % 20}" for row in range(200)],
            "item": [f"{item}" for item in rng.choice(60, 200)],
            "kind": "buy",
            "time": [days[row // 100] for row in range(200)],
        }
    )
    shown, answered = example.draw(done)
    later = done["time"] == days[1]
    alone, own = example.draw(done[later].reset_index(drop=True))
    columns = ["request", "user", "item", "time"]
    of_day = shown[shown["time"] == days[1]]
    assert of_day[columns].to_numpy().tolist() == alone[columns].to_numpy().tolist()
    assert answered[answered["time"] == days[1]]["request"].tolist() == own["request"].tolist()
    assert not set(alone["request"]) & set(shown[shown["time"] == days[0]]["request"])


def test_users_of_a_table_are_handed_over(example: types.ModuleType, tmp_path: Path) -> None:
    users = "user,time,age_group\nu,2026-01-01T00:00:00Z,35-39\n"
    (tmp_path / "mine" / "tables" / "users.csv").write_text(users)
    example.main()
    assert list(Written.last.tables["users"]) == ["user_id", "as_of", "age_group"]
