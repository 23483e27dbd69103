"""Rows of several batches together: sorted, numbered, unique, and in files of bounded size."""

import logging
import random
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.errors import DataContractError, TransientStorageError
from pipelines.sources import EventLogWriter
from pipelines.sources.writer import batches, kept_rows
from pipelines.sources.writer.batches import id_of
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

AT = pd.Timestamp(2024, 1, 1)
MIDNIGHT = pd.Timestamp(2024, 1, 3)


def files_of(log: Path) -> dict[Path, bytes]:
    return {path.relative_to(log): path.read_bytes() for path in log.rglob("*.*")}


@pytest.mark.parametrize("max_rows", [2, 1 << 20])
def test_days_are_added_with_all_pins_and_users_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, max_rows: int
) -> None:
    monkeypatch.setattr(kept_rows, "MAX_FILE_ROWS", max_rows)
    log = tmp_path / "log"
    write_own_log(log, 2)
    caplog.set_level(logging.INFO)
    for day in (3, 4):
        again = {"pins": pins(0, 3 + day), "users": users()}
        give(log, **again, impressions=shown_on(day), actions=acted_on(day))
    expected = {"impressions": 27, "actions": 6, "pins": 7, "users": 2}
    assert record_of(log).num_rows == expected
    assert {table: len(rows_of_log(log, table)) for table in expected} == expected
    assert [text for text in caplog.messages if text.startswith("passed over")] == [
        f"passed over rows that are there already, the same in every column: {num} pins, 2 users"
        for num in (3, 6)
    ]
    assert "wrote" in caplog.messages[-1] and "1 pins, 0 users" in caplog.messages[-1]


def test_a_row_that_comes_again_is_one_row_and_one_of_another_version_is_another(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    write_own_log(log, 2)
    before = files_of(log)
    give(log, pins=pins(), users=users())
    with EventLogWriter(log, VERSION):
        pass
    assert files_of(log) == before
    give(log, pins=[pins(2, 9), pins(8, 12)], users=[users(5), users(5), users(6)])
    give(log, "mine-2", pins=pins())
    num_rows = record_of(log).num_rows
    assert (num_rows["pins"], num_rows["users"]) == (15, 6)


def test_rows_of_every_kind_of_column_are_kept_and_told_to_be_the_same(tmp_path: Path) -> None:
    """NaN is itself."""
    more: dict[str, Any] = {
        "known_at": [AT, AT, AT],
        "price": [1.5, float("nan"), None],
        "brand": pd.Categorical(["x", None, "y"]),
        "is_new": pa.array([True, None, False]),
        "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
        "point": pa.array([[0.5, float("nan")]] * 3, pa.list_(pa.float64(), 2)),
        "weight": pa.array([0.5, None, 2.0], pa.float16()),
        "made": pa.array([5, None, 1704189600123456789], pa.timestamp("ns", "Europe/Berlin")),
    }
    given = pins(type_=np.float16) | more
    give_log(tmp_path / "log", pins=[given, given])
    before = files_of(tmp_path / "log")
    give(tmp_path / "log", pins=given)
    assert files_of(tmp_path / "log") == before
    found = pq.read_table(tmp_path / "log" / "pins")
    order = np.argsort([id_of(name) for name in given["pin_id"]])
    for name in ("is_new", "tags", "weight", "made"):
        assert found[name].combine_chunks().equals(more[name].take(pa.array(order))), name


CHANGED: dict[str, Any] = {
    "embedding": np.array([[1.0] * 6, [2.0] * 5 + [2.5], [3.0] * 6], np.float32),
    "known_at": [AT, AT + pd.Timedelta("1ms"), AT],
    "price": [1.5, 0.5, 3.0],
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
    give_log(tmp_path / "log", pins=first)
    before = files_of(tmp_path / "log")
    version, batches = VERSION, [first | {column: CHANGED[column]}]
    if not is_in_log:
        version, batches = "mine-2", [first, *batches]
    with pytest.raises(DataContractError) as caught:
        give(tmp_path / "log", version, pins=batches, impressions=shown_on(3))
    message = str(caught.value)
    assert f"of version '{version}' has another row in " in message
    assert f"with another value in column '{column}' (1 such rows)" in message
    assert "write changed pins as a new version" in message
    assert ("in these batches" in message) is not is_in_log
    assert files_of(tmp_path / "log") == before


def test_a_column_that_came_later_counts_where_it_has_a_value(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    give(tmp_path / "log", pins=pins(0, 4) | {"brand": [None, None, None, "x"]})
    assert [row.get("brand") for row in rows_of_log(tmp_path / "log", "pins")] == [*[None] * 3, "x"]
    with pytest.raises(DataContractError, match="another value in column 'brand'"):
        give(tmp_path / "log", pins=pins() | {"brand": ["a", "b", "c"]})


@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
def test_one_changed_row_of_many_is_found_in_whatever_batch_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_bytes: int
) -> None:
    monkeypatch.setattr(kept_rows, "_BATCH_BYTES", batch_bytes)
    ids = np.repeat(np.arange(20), 10)
    at = np.tile(np.arange(10), 20) * 86_400_000 + 1_704_067_200_000
    given = {"user_id": ids, "as_of": at, "state": np.where(at % 7 == 0, "core", "new")}
    parts = [
        {name: values[start : start + 70] for name, values in given.items()}
        for start in range(0, 200, 70)
    ]
    shown, acted = shown_on(2).assign(user_id=1), acted_on(2).assign(user_id=1)
    give_log(tmp_path / "log", users=parts, impressions=shown, actions=acted)
    order = np.random.default_rng(3).permutation(200)
    again = {name: values[order] for name, values in given.items()}
    give(tmp_path / "log", users=again)
    assert record_of(tmp_path / "log").num_rows["users"] == 200
    states = again["state"].copy()
    place = int(np.flatnonzero((again["user_id"] == 13) & (again["as_of"] == at[4]))[0])
    states[place] = "else"
    says = rf"user_id=13, as_of={at[4]} \(2024-01-05 .* UTC\) .*column 'state' \(1 such rows\)"
    with pytest.raises(DataContractError, match=f"{says}.*give them a later as_of"):
        give(tmp_path / "log", users=again | {"state": states})


@pytest.mark.parametrize("is_in_log", [True, False])
def test_two_names_with_one_id_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_in_log: bool
) -> None:
    """For 64 bits no such pair is known."""
    ids = {"u0": 7, "u9": 7}
    monkeypatch.setattr(batches, "id_of", lambda name: ids.get(name, id_of(name)))
    if is_in_log:
        write_own_log(tmp_path / "log", 2)
    before = files_of(tmp_path / "log")
    says = "names/users: the names 'u0' and 'u9' in column 'user_id' have one id, 7; expected an id"
    with pytest.raises(DataContractError, match=says):
        give_log(
            tmp_path / "log", impressions=shown_on(3), actions=acted_on(3).assign(user_id="u9")
        )
    assert files_of(tmp_path / "log") == before


def around_midnight(num_requests: int = 5, num_rows: int = 6) -> pd.DataFrame:
    """Return requests whose rows lie on both sides of midnight, in order of time."""
    place, request = np.divmod(np.arange(num_rows * num_requests), num_requests)
    return pd.DataFrame(
        {
            "request_id": [f"r{number}" for number in request],
            "user_id": "u0",
            "pin_id": [f"p{number}" for number in place],
            "impressed_at": MIDNIGHT + pd.to_timedelta(place - num_rows // 2, unit="s"),
        }
    )


@pytest.mark.parametrize("max_file_rows", [2, 1 << 20])
@pytest.mark.parametrize("is_one_batch", [True, False])
def test_positions_are_counted_over_midnight_files_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_file_rows: int, is_one_batch: bool
) -> None:
    monkeypatch.setattr(kept_rows, "MAX_FILE_ROWS", max_file_rows)
    shown = around_midnight()
    parts = [shown] if is_one_batch else [shown.iloc[[row]] for row in range(len(shown))]
    random.Random(3).shuffle(parts)
    give_log(tmp_path / "log", impressions=parts, pins=pins(0, 6))
    start = int((MIDNIGHT - pd.Timedelta(seconds=3)).timestamp() * 1000)
    found = rows_of_log(tmp_path / "log", "impressions")
    assert {(row["request_id"], row["impressed_at"]): row["position"] for row in found} == {
        (f"r{r}", start + 1000 * place): place for r in range(5) for place in range(6)
    }


def test_rows_of_one_instant_are_counted_as_they_were_given(tmp_path: Path) -> None:
    shown = around_midnight(num_requests=1).assign(impressed_at=MIDNIGHT)
    given = [shown.iloc[[4, 1]], shown.iloc[[5]].assign(position=9), shown.iloc[[0, 3, 2]]]
    give_log(tmp_path / "log", impressions=given, pins=pins(0, 6))
    found = rows_of_log(tmp_path / "log", "impressions")
    names = {id_of(f"p{number}"): number for number in range(6)}
    in_order = {names[row["pin_id"]]: row["position"] for row in found}
    assert in_order == {4: 0, 1: 1, 5: 9, 0: 3, 3: 4, 2: 5}


def test_a_request_with_too_many_rows_is_named(tmp_path: Path) -> None:
    number = np.arange(40_000)
    many = {
        "request_id": np.zeros(40_000, dtype=np.int64),
        "user_id": ["u0"] * 40_000,
        "pin_id": ["p0"] * 40_000,
        "impressed_at": MIDNIGHT.value // 10**6 - 20_000 + number,  # over midnight
    }
    says = "request '0' has more than 32,767 rows; expected one request_id for each page"
    with pytest.raises(DataContractError, match=says):
        give_log(tmp_path / "log", impressions=many)
    assert not (tmp_path / "log").exists()


def test_files_of_wide_events_have_fewer_rows_however_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_rows, "MAX_FILE_BYTES", 4000)
    shown = shown_on(2, num_requests=20).assign(text="x" * 900, position=0)
    contents = []
    for step in (1, 7, len(shown)):
        log = tmp_path / str(step)
        give_log(log, impressions=[shown.iloc[at : at + step] for at in range(0, len(shown), step)])
        contents.append(files_of(log))
        rows = [pq.read_metadata(path).num_rows for path in (log / "impressions").rglob("*.*")]
        assert sum(rows) == len(shown) and max(rows) <= 4
    assert contents[0] == contents[1] == contents[2]


def test_the_zeros_of_users_count_where_a_file_s_rows_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_rows, "MAX_FILE_BYTES", 4000)
    rows = {"user_id": np.arange(40), "as_of": np.full(40, 1_704_067_200_000)}
    give_log(
        tmp_path / "log",
        pins=pins(width=200),
        impressions=shown_on(2).assign(user_id=1),
        actions=acted_on(2).assign(user_id=1),
        users=rows,
    )
    assert len(list((tmp_path / "log" / "users").iterdir())) >= 8  # rows of 800 bytes each
    assert len(rows_of_log(tmp_path / "log", "users")) == 40


def test_a_full_disk_is_an_error_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = duckdb.connect

    def connect(path: Path, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        found = real(path, config=config)
        found.execute("SET max_temp_directory_size = '0MB'")
        found.execute("SET memory_limit = '20MB'")
        return found

    monkeypatch.setattr(duckdb, "connect", connect)
    many = {
        "request_id": np.arange(400_000).astype(str),
        "user_id": np.arange(400_000),
        "pin_id": np.arange(400_000),
        "impressed_at": np.full(400_000, MIDNIGHT.value // 10**6),
    }
    with (
        pytest.raises(
            TransientStorageError, match=r"(?s)keeping rows for file.*/log failed: .*retry"
        ),
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        writer.impressions(many)
        writer.actions(acted_on(2).assign(user_id=1, pin_id=1))
        writer.pins(pins() | {"pin_id": [1, 2, 3]})
    assert list(tmp_path.glob("*/")) == []
