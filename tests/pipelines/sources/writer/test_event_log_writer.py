"""A log from somebody's tables: the rows that were given, in any form and order, and defaults."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.errors import ConfigurationError, DataContractError, RunInProgressError
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS
from pipelines.event_log.record import list_below
from pipelines.sources import EventLogWriter
from pipelines.sources.writer import kept_rows
from pipelines.sources.writer.batches import id_of
from pipelines.storage import to_uri
from support.own_tables import (
    VERSION,
    acted_on,
    give,
    give_log,
    pins,
    record_of,
    rows_of_log,
    shown_on,
    users,
    write_own_log,
)
from support.tiny_log import (
    build_tiny,
    january,
    pins_of,
    tiny_actions,
    tiny_impressions,
    users_of,
    write_tiny_log,
)


class Streamed:
    """What polars and others give: nothing but Arrow's stream."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


FORMS: dict[str, Callable[[pa.Table], Any]] = {
    "table": lambda table: table,
    "pandas": lambda table: table.to_pandas(),
    "stream": Streamed,
    "reader": lambda table: pa.RecordBatchReader.from_batches(
        table.schema, table.to_batches(max_chunksize=2)
    ),
    "dictionary": lambda table: {name: table[name] for name in table.column_names},
}


def tiny_tables() -> dict[str, pa.Table]:
    return {
        "impressions": pa.Table.from_pylist(tiny_impressions(), schema=IMPRESSIONS),
        "actions": pa.Table.from_pylist(tiny_actions(), schema=ACTIONS),
        "pins": pins_of([10, 20, 30, 40, 50]),
        "users": users_of([(1, january(day)) for day in ("10 00:00", "15 00:00", "19 00:00")]),
    }


@pytest.mark.parametrize("form", FORMS)
def test_rows_in_any_form_and_order_make_the_same_snapshot(tmp_path: Path, form: str) -> None:
    write_tiny_log(tmp_path / "by_hand" / "event_log")
    expected = build_tiny(tmp_path / "by_hand").digest
    draw = random.Random(form)
    parts = [(t, row) for t, rows in tiny_tables().items() for row in range(len(rows))]
    draw.shuffle(parts)
    with EventLogWriter(tmp_path / "event_log", "planted-1") as writer:
        for table, row in parts:
            getattr(writer, table)(FORMS[form](tiny_tables()[table].slice(row, 1)))
    assert build_tiny(tmp_path).digest == expected


def test_the_same_rows_make_the_same_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kept_rows, "MAX_FILE_ROWS", 2)
    contents = []
    for name, step in (("a", 1), ("b", 4)):
        with EventLogWriter(tmp_path / name, "planted-1") as writer:
            for table, rows in tiny_tables().items():
                for start in reversed(range(0, len(rows), step)):
                    getattr(writer, table)(rows.slice(start, step))
        found = sorted((tmp_path / name).rglob("*.*"))
        contents.append({p.relative_to(tmp_path / name): p.read_bytes() for p in found})
    assert contents[0] == contents[1]
    assert record_of(tmp_path / "a").num_rows["impressions"] == len(tiny_impressions())
    shown = (tmp_path / "a" / "impressions").rglob("*.parquet")
    assert max(pq.read_metadata(path).num_rows for path in shown) == 2


def test_what_is_not_given_has_its_default(tmp_path: Path) -> None:
    at = pd.Timestamp(2024, 1, 2, 8)
    shown = pd.DataFrame({"request_id": [7, 7, 8, 7], "user_id": 1, "pin_id": [3, 1, 5, 2]})
    give(
        tmp_path / "log",
        impressions=shown.assign(impressed_at=at, brand=["x", None, "y", "x"]),
        actions={"user_id": [1], "pin_id": [3], "action_type": ["repin"], "acted_at": [at]},
        pins={"pin_id": [1, 2, 3, 5], "embedding": np.eye(4)},
        users={"user_id": [1], "as_of": [at.date()], "embedding": [[0.0] * 4]},
    )
    rows = rows_of_log(tmp_path / "log", "impressions")
    found = [(row["request_id"], row["position"], row["pin_id"]) for row in rows]
    assert found == [("7", 0, 3), ("7", 1, 1), ("7", 2, 2), ("8", 0, 5)]
    assert {row["known_at"] for row in rows} == {rows[0]["impressed_at"]}
    assert rows[0]["impressed_at"] == at.value // 10**6
    assert [rows[0][n] for n in ("surface", "is_exploration", "propensity", "brand")] == [
        "homefeed",
        False,
        None,
        "x",
    ]
    [action] = rows_of_log(tmp_path / "log", "actions")
    assert (action["known_at"], action["request_id"]) == (action["acted_at"], None)
    [user] = rows_of_log(tmp_path / "log", "users")
    assert (user["state"], user["location"]) == ("unknown", None)
    assert user["as_of"] == pd.Timestamp(2024, 1, 2).value // 10**6
    assert rows_of_log(tmp_path / "log", "pins")[2]["embedding_version"] == VERSION


@pytest.mark.parametrize(
    "given",
    [
        pa.array([1704189600123456], pa.timestamp("us")),
        pa.array([1704189600123456789], pa.timestamp("ns", "America/New_York")),
        pa.array([1704189600123], pa.int64()),
        pd.DatetimeIndex(["2024-01-02 11:00:00.123456"], tz="Europe/Berlin"),
    ],
)
def test_times_become_milliseconds_in_utc(tmp_path: Path, given: Any) -> None:
    write_own_log(tmp_path / "log", 1)
    row = {"user_id": ["u0"], "pin_id": ["p0"], "action_type": ["repin"], "acted_at": given}
    is_index = isinstance(given, pd.DatetimeIndex)
    give(tmp_path / "log", actions=pd.DataFrame(row) if is_index else row)
    found = rows_of_log(tmp_path / "log", "actions")[-1]
    assert (found["acted_at"], found["known_at"]) == (1704189600123, 1704189600123)


def test_an_exception_publishes_nothing(tmp_path: Path) -> None:
    for days in ((), (2,)):
        if days:
            write_own_log(tmp_path / "log", *days)
        before = record_of(tmp_path / "log") if days else None
        with pytest.raises(ZeroDivisionError), EventLogWriter(tmp_path / "log", VERSION) as writer:
            writer.impressions(shown_on(3))
            writer.impressions(1 / 0)
        assert before == (record_of(tmp_path / "log") if days else None)
        assert (tmp_path / "log").exists() == bool(days)


def test_days_pins_and_users_are_added(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    shown = shown_on(5).assign(tone="blue")
    give(tmp_path / "log", impressions=shown, pins=pins(3, 5), users=users(day=8))
    record = record_of(tmp_path / "log")
    assert record.num_rows == {"impressions": 18, "actions": 2, "pins": 5, "users": 4}
    assert (record.generation, list(record.days["impressions"])) == (
        2,
        ["2024-01-02", "2024-01-05"],
    )
    assert record.extra_columns["impressions"] == {"tone": "string"}
    assert len(rows_of_log(tmp_path / "log", "impressions")) == 18
    assert record.id_kinds == {"user_id": "string", "pin_id": "string"}
    assert list_below(to_uri(tmp_path / "log"), ".parquet") == list(record.files)
    assert len([name for name in record.files if name.startswith("pins/")]) == 2


def test_a_day_that_is_there_is_refused_or_replaced_whole(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2, 3)
    with (
        pytest.raises(
            DataContractError,
            match=r"'impressed_at' is 1704268800000 \(2024-01-03 08:00:00 UTC\) in row 0 \(9 such "
            r"rows\); .* has 2024-01-03",
        ),
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        writer.impressions(shown_on(3))
    assert len(rows_of_log(tmp_path / "log", "impressions")) == 18
    with EventLogWriter(tmp_path / "log", VERSION, replace_days=True) as writer:
        writer.impressions(shown_on(3, num_requests=1))
        writer.impressions(shown_on(4, num_requests=1))
    record = record_of(tmp_path / "log")
    assert record.days["impressions"] == {"2024-01-02": 9, "2024-01-03": 3, "2024-01-04": 3}
    assert record.num_rows["impressions"] == len(rows_of_log(tmp_path / "log", "impressions")) == 15
    assert record.days["actions"] == {"2024-01-02": 2, "2024-01-03": 2}
    assert len(list((tmp_path / "log" / "impressions").rglob("*.parquet"))) == 3


def test_a_writer_can_be_used_for_a_second_block(tmp_path: Path) -> None:
    writer = EventLogWriter(tmp_path / "log", VERSION)
    with writer:
        writer.pins(pins())
        writer.impressions(shown_on(2).assign(tone="blue"))
        writer.actions(acted_on(2))
    with writer:
        writer.impressions(shown_on(3).assign(tone="red", more=1))
        with pytest.raises(DataContractError, match="impressions, batch 2: column 'user_id' is"):
            writer.impressions(shown_on(4).assign(tone="red", more=1, user_id=1.5))
    record = record_of(tmp_path / "log")
    assert record.num_rows["impressions"] == 18
    assert record.extra_columns["impressions"] == {"tone": "string", "more": "int64"}


@pytest.mark.parametrize("kind", ["float64", object])
def test_a_column_without_a_value_is_null_whatever_its_type(tmp_path: Path, kind: Any) -> None:
    nothing = pd.Series([None] * 2, dtype=kind)
    toneless = shown_on(3).assign(tone=pd.Series([None] * 9, dtype=kind))
    give_log(
        tmp_path / "log",
        users={**users(), "location": np.full(2, np.nan) if kind == "float64" else nothing},
        impressions=[shown_on(2).assign(tone="blue"), toneless],
        actions=acted_on(2).assign(request_id=nothing),
    )
    assert {row["request_id"] for row in rows_of_log(tmp_path / "log", "actions")} == {None}
    assert {row["location"] for row in rows_of_log(tmp_path / "log", "users")} == {None}
    tones = [row["tone"] for row in rows_of_log(tmp_path / "log", "impressions")]
    assert sorted(map(str, tones)) == ["None"] * 9 + ["blue"] * 9


def test_a_log_without_users_has_an_empty_table(tmp_path: Path) -> None:
    give_log(tmp_path / "log")
    assert rows_of_log(tmp_path / "log", "users") == []
    assert record_of(tmp_path / "log").user_embeddings is None


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    write_tiny_log(tmp_path / "by_hand")
    with (
        pytest.raises(ConfigurationError, match="no event_log.json: .* would be overwritten"),
        EventLogWriter(tmp_path / "by_hand", VERSION),
    ):
        pass
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        with (
            pytest.raises(RunInProgressError, match="writing to file://.*log is already running"),
            EventLogWriter(tmp_path / "log", VERSION),
        ):
            pass
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
        writer.pins(pins())
    with pytest.raises(ConfigurationError, match="takes pins outside of its block"):
        writer.pins(pins())


def test_names_are_kept_with_their_ids(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    give(tmp_path / "log", pins=pins(3, 4), actions=acted_on(3))
    names = pq.read_table(tmp_path / "log" / "names" / "pins").sort_by("name").to_pylist()
    assert names == [{"id": id_of(name), "name": name} for name in ("p0", "p1", "p2", "p3")]
    [*files] = (tmp_path / "log" / "names" / "users").iterdir()
    assert len(files) == 1  # the second increment brought no new user
    assert {row["user_id"] for row in rows_of_log(tmp_path / "log", "users")} == {
        id_of("u0"),
        id_of("u1"),
    }
