"""Tables of every kind become the same log, and what is wrong with one is said by its name."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from pyiceberg.catalog.sql import SqlCatalog

from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.sources.event_log_writer import id_of
from pipelines.sources.mapping import tables
from pipelines.sources.mapping.load import import_log
from support.own_tables import record_of, rows_of_log

SHOWN = pd.DataFrame(
    {
        "request": ["7", "7", "8"],
        "user": ["007", "007", "b"],
        "item": ["01", "NA", "01"],
        "at": ["2026-03-29T00:30:00Z"] * 2 + ["2026-03-29T01:30:00.25Z"],
    }
)
DONE = pd.DataFrame(
    {"user": ["007", "b"], "item": ["NA", "01"], "what": ["view", "scroll"],
     "at": ["2026-03-29T00:30:40Z", "2026-03-29T01:30:40Z"], "request": ["7", None]}
)  # fmt: skip
ITEMS = pd.DataFrame({"item": ["01", "NA"], "title": ["red scarf", None], "price": [1.5, 2.0]})
MS = [1774744200000, 1774744200000, 1774747800250]


def mapping(**changes: dict[str, Any]) -> dict[str, Any]:
    """Return a mapping of CSV files; changes are merged into its tables."""
    ids = {"user_id": "user", "pin_id": "item"}
    parts: dict[str, Any] = {
        "impressions": {
            "files": "shown.csv",
            "columns": {"request_id": "request", **ids, "impressed_at": "at"},
        },
        "actions": {
            "files": "done.csv",
            "columns": {**ids, "action_type": "what", "acted_at": "at", "request_id": "request"},
            "action_types": {"view": "click"},
        },
        "pins": {"files": "items.csv", "columns": {"pin_id": "item", "price": "price"}},
    }
    for name, change in changes.items():
        parts[name] = {k: v for k, v in (parts[name] | change).items() if v is not None}
    made = {"embedding_version": "v", "vectors": {"texts": ["title"], "width": 8}}
    return {**made, "tables": parts}


def imported(folder: Path, value: dict[str, Any]) -> Path:
    for name, rows in {"shown": SHOWN, "done": DONE, "items": ITEMS}.items():
        if not (folder / f"{name}.csv").exists():
            rows.to_csv(folder / f"{name}.csv", index=False)
    (folder / "mapping.yaml").write_text(yaml.safe_dump(value))
    import_log(folder / "mapping.yaml", str(folder / "log"))
    return folder / "log"


def times(log: Path) -> list[int]:
    return sorted(row["impressed_at"] for row in rows_of_log(log, "impressions"))


def test_ids_stay_texts_and_types_are_named_and_items_without_words_are_zero(
    tmp_path: Path,
) -> None:
    log = imported(tmp_path, mapping())
    assert times(log) == MS
    shown = rows_of_log(log, "impressions")
    assert {row["user_id"] for row in shown} == {id_of("007"), id_of("b")}
    assert {row["pin_id"] for row in shown} == {id_of("01"), id_of("NA")}
    [done] = rows_of_log(log, "actions")
    assert done["action_type"] == "click" and done["request_id"] == "7"
    pins = {row["pin_id"]: row for row in rows_of_log(log, "pins")}
    assert np.linalg.norm(pins[id_of("01")]["embedding"]) == pytest.approx(1)
    assert not any(pins[id_of("NA")]["embedding"]) and pins[id_of("NA")]["price"] == 2.0
    assert record_of(log).candidates == ""


@pytest.mark.parametrize(
    ("how", "written"),
    [
        ({"unit": "s"}, lambda at: at.timestamp()),
        ({"unit": "us"}, lambda at: round(at.timestamp() * 1e6)),
        ({"format": "%d.%m.%Y %H:%M:%S.%f"}, lambda at: f"{at:%d.%m.%Y %H:%M:%S.%f}"),
        ({"zone": "Europe/Berlin"}, lambda at: f"{at.tz_convert('Europe/Berlin'):%F %T.%f}"),
        ({"zone": "Europe/Berlin"}, lambda at: f"{at:%FT%T.%fZ}"),
        (None, lambda at: round(at.timestamp() * 1000)),
    ],
)
def test_times_however_they_are_written(tmp_path: Path, how: Any, written: Any) -> None:
    rows = SHOWN.assign(at=[written(pd.Timestamp(at)) for at in SHOWN["at"]])
    rows.to_csv(tmp_path / "shown.csv", index=False)
    assert times(imported(tmp_path, mapping(impressions={"times": how}))) == MS


def write_iceberg(folder: Path) -> str:
    """Write an Iceberg table; return where its metadata lie."""
    (folder / "iceberg").mkdir()
    place = f"sqlite:///{folder}/iceberg/catalogue.db"
    catalogue = SqlCatalog("mine", uri=place, warehouse=(folder / "iceberg").as_uri())
    catalogue.create_namespace("shop")
    rows = pa.Table.from_pandas(SHOWN)
    table = catalogue.create_table("shop.shown", schema=rows.schema)
    table.append(rows)
    return table.metadata_location


def test_a_table_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts").mkdir()
    for number in range(2):
        rows = SHOWN.iloc[[0, 1] if number else [2]]
        rows.to_parquet(tmp_path / "parts" / f"{number}.parquet")
    SHOWN.to_json(tmp_path / "shown.jsonl", orient="records", lines=True)
    SHOWN.to_csv(tmp_path / "plain.csv", index=False)
    SHOWN.to_csv(tmp_path / "umlaut.csv", index=False, sep=";", encoding="latin-1")
    deltalake.write_deltalake(tmp_path / "delta", SHOWN)
    with sqlite3.connect(tmp_path / "shop.db") as database:
        SHOWN.to_sql("shown", database, index=False)
    places: list[dict[str, Any]] = [
        {"files": "../parts"},
        {"files": ["../parts/0.parquet", "../parts/1.parquet"]},
        {"files": (tmp_path / "parts").as_uri()},
        {"files": (tmp_path / "plain.csv").as_uri()},
        {"files": "../shown.jsonl"},
        {"files": "../umlaut.csv", "delimiter": ";", "encoding": "latin-1"},
        {"files": None, "delta": "../delta"},
        {"files": None, "iceberg": write_iceberg(tmp_path)},
    ]
    database = {"database": "sqlite:///$SHOP/shop.db", "query": "SELECT * FROM shown"}
    places += [{"files": None, **database}] * 2  # by ADBC, and by SQLAlchemy
    monkeypatch.setenv("SHOP", str(tmp_path))
    found = []
    for number, place in enumerate(places):
        folder = tmp_path / f"try-{number}"
        folder.mkdir()
        if number == len(places) - 1:
            monkeypatch.setattr(tables, "find_spec", lambda name: None)
        found.append(rows_of_log(imported(folder, mapping(impressions=place)), "impressions"))
    assert all(each == found[0] for each in found) and len(found[0]) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"impressions": {"files": "gone.csv"}},
            r"no files .*gone\.csv; expected a path",
        ),
        ({"impressions": {"columns": {"user_id": "user"}}}, "columns lacks impressed_at, pin_id"),
        ({"actions": {"delta": "x"}}, "found .'files', 'delta'.; expected one of files"),
        (
            {"actions": {"times": {"format": "%d.%m.%Y"}}},
            r"^actions: .*specifier.* tables\.actions",
        ),
        ({"actions": {"where": "colour = 1"}}, "^actions: .*colour.* of tables.actions"),
        ({"pins": {"encoding": "utf-8", "files": "latin.csv"}}, "^pins: .*give encoding, such as"),
        ({"pins": {"colums": {}}}, "colums: Extra inputs are not permitted"),
        ({"impressions": {"files": None, "database": "sqlite:///x.db"}}, "and query with database"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    (tmp_path / "latin.csv").write_bytes("item,title,price\n01,caf\xe9,1\n".encode("latin-1"))
    with pytest.raises((ConfigurationError, DataContractError), match=said):
        imported(tmp_path, mapping(**changes))
    assert not (tmp_path / "log").exists()


def test_drawn_candidates_are_written_down_and_stay_as_they_are(tmp_path: Path) -> None:
    rows = [(f"u{n % 7}", f"i{n % 11}", "view", 1_770_000_000 + 600 * n) for n in range(300)]
    done = pd.DataFrame(rows, columns=["user", "item", "what", "at"]).assign(request=None)
    done.to_csv(tmp_path / "done.csv", index=False)
    items = pd.DataFrame({"item": [f"i{n}" for n in range(11)], "title": "a b", "price": 1})
    items.to_csv(tmp_path / "items.csv", index=False)
    value = mapping(actions={"times": {"unit": "s"}})
    value |= {"candidates": {"action": "click", "num": 4}}
    del value["tables"]["impressions"], value["tables"]["actions"]["columns"]["request_id"]
    log = imported(tmp_path, value)
    record = record_of(log)
    assert record.candidates.startswith("4 others beside what was chosen in a visit")
    assert {row["request_id"] is None for row in rows_of_log(log, "actions")} == {False, True}
    value["candidates"]["num"] = 5
    with pytest.raises(DataContractError, match="candidates is 5 others .* draw as before"):
        imported(tmp_path, value)
    assert record_of(log) == record


def test_ids_that_are_numbers_in_one_table_and_texts_in_another_are_the_same_ids(
    tmp_path: Path,
) -> None:
    ITEMS.assign(item=[5, 6]).to_parquet(tmp_path / "items.parquet")
    for name, rows in (("shown", SHOWN), ("done", DONE)):
        changed = rows.assign(item=[5 + n % 2 for n in range(len(rows))])
        changed.to_csv(tmp_path / f"{name}.csv", index=False)
    parts = mapping(pins={"files": "items.parquet"})
    log = imported(tmp_path, parts | {"complete_to": "2026-12-01T00:00:00Z"})
    expected = {id_of("5"), id_of("6")}
    for table in ("pins", "impressions"):
        assert {row["pin_id"] for row in rows_of_log(log, table)} == expected
    assert record_of(log).complete_to == datetime(2026, 12, 1, tzinfo=UTC)
