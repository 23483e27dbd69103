"""Pins and users that are handed over again: same rows are passed over, changed ones refused."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.sources import EventLogWriter
from pipelines.sources.writer import assemble, repeats
from support.own_tables import (
    VERSION,
    acted_on,
    pins,
    record_of,
    rows_of_log,
    shown_on,
    users,
    write_own_log,
)

AT = pd.Timestamp(2024, 1, 1)


def files_of(log: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in log.rglob("*.*")}


def write(log: Path, tables: dict[str, list[Any]], version: str = VERSION) -> None:
    with EventLogWriter(log, version) as writer:
        for table, batches in tables.items():
            for batch in batches:
                getattr(writer, table)(batch)


@pytest.mark.parametrize("max_rows", [2, 1 << 20])
def test_days_are_added_with_all_pins_and_users_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, max_rows: int
) -> None:
    monkeypatch.setattr(assemble, "MAX_FILE_ROWS", max_rows)
    write_own_log(tmp_path / "log", 2)
    caplog.set_level(logging.INFO)
    for day in (3, 4):
        write(
            tmp_path / "log",
            {
                "pins": [pins(0, 3 + day)],
                "users": [users()],
                "impressions": [shown_on(day)],
                "actions": [acted_on(day)],
            },
        )
    record = record_of(tmp_path / "log")
    assert record.num_rows == {"impressions": 27, "actions": 6, "pins": 7, "users": 2}
    assert len(rows_of_log(tmp_path / "log", "pins")) == 7
    assert len(rows_of_log(tmp_path / "log", "users")) == 2
    assert [text for text in caplog.messages if text.startswith("passed over")] == [
        f"passed over rows that are there already, the same in every column: {num} pins, 2 users"
        for num in (3, 6)
    ]
    assert "wrote" in caplog.messages[-1] and "1 pins, 0 users" in caplog.messages[-1]


def test_nothing_but_what_is_there_changes_nothing(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    before = files_of(tmp_path / "log")
    write(tmp_path / "log", {"pins": [pins()], "users": [users()]})
    assert files_of(tmp_path / "log") == before


def test_the_same_row_twice_in_one_block_is_one_row(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    write(
        tmp_path / "log",
        {"pins": [pins(2, 9), pins(8, 12)], "users": [users(5), users(5), users(6)]},
    )
    assert record_of(tmp_path / "log").num_rows["pins"] == 12
    assert record_of(tmp_path / "log").num_rows["users"] == 6


def test_rows_of_every_kind_of_column_are_told_to_be_the_same(tmp_path: Path) -> None:
    """Floats are compared by their bits, so that NaN is itself."""
    more: dict[str, Any] = {
        "known_at": [AT, AT, AT],
        "price": [1.5, float("nan"), None],
        "brand": pd.Categorical(["x", None, "y"]),
        "is_new": pa.array([True, None, False]),
        "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
        "point": pa.array([[0.5, float("nan")]] * 3, pa.list_(pa.float64(), 2)),
    }
    given = pins(type_=np.float16) | more
    tables = {"pins": [given, given], "impressions": [shown_on(2)], "actions": [acted_on(2)]}
    write(tmp_path / "log", tables)
    before = files_of(tmp_path / "log")
    write(tmp_path / "log", {"pins": [given]})
    assert files_of(tmp_path / "log") == before


CHANGED: dict[str, Any] = {
    "embedding": np.array([[1.0] * 6, [2.0] * 5 + [2.5], [3.0] * 6], np.float32),
    "known_at": [AT, AT + pd.Timedelta("1ms"), AT],
    "price": [1.5, -0.0, 3.0],
    "brand": ["x", None, None],
    "tags": pa.array([["a"], ["b"], ["c", "d"]]),
}


@pytest.mark.parametrize("column", CHANGED)
@pytest.mark.parametrize("is_in_log", [True, False])
def test_a_changed_row_is_refused_by_its_column(
    tmp_path: Path, column: str, is_in_log: bool
) -> None:
    first = pins() | {
        "known_at": [AT] * 3,
        "price": [1.5, 0.0, 3.0],
        "brand": ["x", "y", None],
        "tags": pa.array([["a"], ["b"], ["c"]]),
    }
    write_own_log_with(tmp_path / "log", first)
    before = files_of(tmp_path / "log")
    version, batches = VERSION, [first | {column: CHANGED[column]}]
    if not is_in_log:
        version, batches = "mine-2", [first, *batches]
    with pytest.raises(DataContractError) as caught:
        write(tmp_path / "log", {"pins": batches, "impressions": [shown_on(3)]}, version)
    message = str(caught.value)
    assert f"of version '{version}' has another row in " in message
    assert f"with another value in column '{column}' (1 such rows)" in message
    assert "write changed pins as a new version" in message
    assert ("in these batches" in message) is not is_in_log
    assert files_of(tmp_path / "log") == before


def write_own_log_with(log: Path, given: dict[str, Any]) -> None:
    write(log, {"pins": [given], "impressions": [shown_on(2)], "actions": [acted_on(2)]})


def test_a_column_that_came_later_counts_where_it_has_a_value(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    write(tmp_path / "log", {"pins": [pins(0, 4) | {"brand": [None, None, None, "x"]}]})
    assert [row.get("brand") for row in rows_of_log(tmp_path / "log", "pins")] == [*[None] * 3, "x"]
    with pytest.raises(DataContractError, match="another value in column 'brand'"):
        write(tmp_path / "log", {"pins": [pins() | {"brand": ["a", "b", "c"]}]})


def test_a_changed_user_is_named_with_the_time_in_utc(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    with pytest.raises(
        DataContractError,
        match=r"as_of=1704067200000 \(2024-01-01 00:00:00 UTC\) has another row in .*column "
        r"'state' \(2 such rows\); .*one per \(user, as_of\), .*a later as_of",
    ):
        write(tmp_path / "log", {"users": [users() | {"state": ["new", "new"]}]})


@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
def test_one_changed_row_of_many_is_found_in_whatever_batch_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_bytes: int
) -> None:
    monkeypatch.setattr(repeats, "_BATCH_BYTES", batch_bytes)
    ids = np.repeat(np.arange(20), 10)
    at = np.tile(np.arange(10), 20) * 86_400_000 + 1_704_067_200_000
    given = {"user_id": ids, "as_of": at, "state": np.where(at % 7 == 0, "core", "new")}
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.pins(pins())
        writer.impressions(shown_on(2).assign(user_id=1))
        writer.actions(acted_on(2).assign(user_id=1))
        for start in range(0, 200, 70):
            writer.users({name: values[start : start + 70] for name, values in given.items()})
    order = np.random.default_rng(3).permutation(200)
    again = {name: values[order] for name, values in given.items()}
    write(tmp_path / "log", {"users": [again]})
    assert record_of(tmp_path / "log").num_rows["users"] == 200
    states = again["state"].copy()
    place = int(np.flatnonzero((again["user_id"] == 13) & (again["as_of"] == at[4]))[0])
    states[place] = "else"
    with pytest.raises(
        DataContractError, match=rf"user_id=13, as_of={at[4]} .*column 'state' \(1 such rows\)"
    ):
        write(tmp_path / "log", {"users": [again | {"state": states}]})


def test_a_pin_of_another_version_is_no_repeat(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    write(tmp_path / "log", {"pins": [pins()]}, "mine-2")
    assert record_of(tmp_path / "log").num_rows["pins"] == 6
