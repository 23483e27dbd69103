"""A log from somebody's tables: sorted, numbered, unique, whole or not at all."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RunInProgressError,
    TransientStorageError,
)
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS
from pipelines.event_log.record import EventLogRecord, list_below
from pipelines.sources import event_log_writer
from pipelines.sources.event_log_writer import EventLogWriter, id_of
from pipelines.storage import to_uri
from support.own_tables import (
    VERSION,
    acted_on,
    contents,
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
    january,
    pins_of,
    tiny_actions,
    tiny_impressions,
    users_of,
    write_tiny_log,
)

AT = pd.Timestamp(2024, 1, 1)
MIDNIGHT = pd.Timestamp(2024, 1, 3)


def days_of(record: EventLogRecord) -> set[str]:
    """Return the days of which a log has actions."""
    start = "actions/day="
    return {name[len(start) :][:10] for name in record.files if name.startswith(start)}


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
def test_rows_in_any_form_and_order_make_the_same_files(tmp_path: Path, monkeypatch, form) -> None:
    monkeypatch.setattr(event_log_writer, "MAX_FILE_ROWS", 2)
    give(tmp_path / "in_order", "planted-1", **tiny_tables())
    parts = [(t, rows.slice(n, 1)) for t, rows in tiny_tables().items() for n in range(len(rows))]
    random.Random(form).shuffle(parts)
    with EventLogWriter(tmp_path / "log", "planted-1") as writer:
        for table, row in parts:
            getattr(writer, table)(FORMS[form](row))
    assert contents(tmp_path / "log") == contents(tmp_path / "in_order")
    assert record_of(tmp_path / "log").num_rows["impressions"] == len(tiny_impressions())
    shown = (tmp_path / "log" / "impressions").rglob("*.parquet")
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
    rows, at_ms = rows_of_log(tmp_path / "log", "impressions"), at.value // 10**6
    found = [(row["request_id"], row["position"], row["pin_id"]) for row in rows]
    assert found == [("7", 0, 3), ("7", 1, 1), ("7", 2, 2), ("8", 0, 5)]
    assert {(row["impressed_at"], row["known_at"]) for row in rows} == {(at_ms, at_ms)}
    others = [rows[0][n] for n in ("surface", "is_exploration", "propensity", "brand")]
    assert others == ["homefeed", False, None, "x"]
    [action] = rows_of_log(tmp_path / "log", "actions")
    assert (action["known_at"], action["request_id"]) == (at_ms, None)
    [user] = rows_of_log(tmp_path / "log", "users")
    midnight = pd.Timestamp(2024, 1, 2).value // 10**6
    assert (user["state"], user["location"], user["as_of"]) == ("unknown", None, midnight)
    assert rows_of_log(tmp_path / "log", "pins")[2]["embedding_version"] == VERSION


def test_an_exception_or_a_refused_batch_publishes_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rows = pa.Table.from_pandas(shown_on(3), preserve_index=False)
    bad = rows.set_column(1, "user_id", pa.array([*rows["user_id"].to_pylist()[:-1], None]))
    for days in ((), (2,)):
        if days:
            write_own_log(log, *days)
        before = contents(log)
        with pytest.raises(ZeroDivisionError), EventLogWriter(log, VERSION) as writer:
            writer.impressions(shown_on(3))
            writer.impressions(1 / 0)
        with (
            pytest.raises(DataContractError, match="a batch for .* was refused; .* give all of th"),
            EventLogWriter(log, VERSION) as writer,
        ):
            writer.impressions(shown_on(4))
            with pytest.raises(
                DataContractError, match="impressions, batch 2: column 'user_id' is null .* row 8"
            ):
                writer.impressions(FORMS["reader"](bad))  # read whole, so that rows count on
            with pytest.raises(ConfigurationError, match="or after a batch that was refused"):
                writer.actions(acted_on(3))
        assert contents(log) == before


def test_a_new_log_needs_three_tables_and_no_users(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match="would have no actions and no pins; expected rows"):
        give(tmp_path / "log", impressions=shown_on(2))
    assert not (tmp_path / "log").exists()
    give_log(tmp_path / "log")
    assert rows_of_log(tmp_path / "log", "users") == []


def test_days_pins_and_users_are_added(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_own_log(log, 2)
    before = contents(log)
    of_no_day = pd.DataFrame({name: [] for name in acted_on(2).columns})  # of floats
    give(log, pins=pins(), users=users(), actions=of_no_day)  # which it has
    give(log)
    assert contents(log) == before
    shown = [shown_on(5), shown_on(6).assign(tone="x"), shown_on(7)]
    give(log, impressions=shown, pins=[pins(2, 9), pins(8, 12)], users=[users(5), users(5)])
    give(log, "mine-2", pins=pins())
    give(log, impressions=shown_on(8).assign(more=1, tone="y"), actions=acted_on(8))
    record = record_of(log)
    assert record.num_rows == {"impressions": 45, "actions": 4, "pins": 15, "users": 4}
    assert {table: len(rows_of_log(log, table)) for table in record.num_rows} == record.num_rows
    assert (record.generation, days_of(record)) == (5, {"2024-01-02", "2024-01-08"})
    assert list_below(to_uri(log), ".parquet") == list(record.files)
    tones = [row.get("tone") for row in rows_of_log(log, "impressions")]
    assert (tones.count("x"), tones.count("y"), tones.count(None)) == (9, 9, 27)
    names = pq.read_table(log / "names" / "pins").sort_by("id").to_pylist()
    expected = [{"id": id_of(name), "name": name} for name in (f"p{n}" for n in range(12))]
    assert names == sorted(expected, key=lambda row: row["id"])


@pytest.mark.parametrize("complete_to", [None, datetime(2024, 1, 4, tzinfo=UTC)])
def test_after_a_kill_past_the_commit_the_same_block_is_there_already(
    tmp_path: Path, complete_to: datetime | None
) -> None:
    log, acted = tmp_path / "log", acted_on(3)
    give_log(log, complete_to=complete_to, impressions=shown_on(3), actions=acted)
    before = record_of(log)
    give_log(log, complete_to=complete_to, impressions=shown_on(3), actions=acted)
    assert record_of(log) == before
    with pytest.raises(DataContractError):
        give_log(log, complete_to=complete_to, impressions=shown_on(3, 2), actions=acted)


def test_a_day_that_is_there_is_refused_or_replaced_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_own_log(log, 2, 3)
    before = contents(log)
    with pytest.raises(DataContractError, match="impressions of 2024-01-03 are in .*/log already"):
        give(log, impressions=[shown_on(5), shown_on(3)])
    assert contents(log) == before
    give(log, replace_days=True, impressions=[shown_on(day, num_requests=1) for day in (3, 4)])
    shown = rows_of_log(log, "impressions")
    days = [pd.Timestamp(row["impressed_at"], unit="ms").day for row in shown]
    assert [days.count(day) for day in (2, 3, 4)] == [9, 3, 3]
    assert days_of(record_of(log)) == {"2024-01-02", "2024-01-03"}
    assert sum(name.startswith("impressions") for name in record_of(log).files) == 3


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    write_tiny_log(tmp_path / "by_hand")
    with pytest.raises(ConfigurationError, match="no record: .* would be overwritten"):
        give(tmp_path / "by_hand")
    says = "writing to file://.*log is already running"
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        with pytest.raises(RunInProgressError, match=says):
            give(tmp_path / "log")
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
        writer.pins(pins())
    with pytest.raises(ConfigurationError, match="takes pins outside of its block"):
        writer.pins(pins())


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
    before = contents(tmp_path / "log")
    give(tmp_path / "log", pins=given)
    assert contents(tmp_path / "log") == before
    found = pq.read_table(tmp_path / "log" / "pins")
    order = np.argsort([id_of(name) for name in given["pin_id"]])
    for name in ("is_new", "tags", "made"):
        assert found[name].combine_chunks().equals(more[name].take(pa.array(order))), name
    cost = pa.array([1, 2, 3], pa.decimal256(50, 2))
    with pytest.raises(DataContractError, match="a column has a type that cannot be kept"):
        give(tmp_path / "log", "mine-2", pins=given | {"cost": cost})


FIRST: dict[str, Any] = pins() | {
    "known_at": [AT] * 3,
    "price": [1.5, 0.0, 3.0],
    "brand": ["x", "y", None],
    "tags": pa.array([["a"], ["b"], ["c"]]),
}
CHANGED: dict[str, Any] = {
    "embedding": np.array([[1.0] * 6, [2.0] * 5 + [2.5], [3.0] * 6], np.float32),
    "known_at": [AT, AT + pd.Timedelta("1ms"), AT],
    "price": [1.5, 0.5, 3.0],
    "brand": ["x", None, None],
    "tags": pa.array([["a"], ["b"], ["c", "d"]]),
    "a new column": [None, "x", None],
}


@pytest.mark.parametrize("column", CHANGED)
def test_a_changed_row_is_refused_by_its_column(tmp_path: Path, column: str) -> None:
    give_log(tmp_path / "log", pins=FIRST)
    before = contents(tmp_path / "log")
    changed = FIRST | {column: CHANGED[column]}
    for version, given, where in (
        (VERSION, [changed], "the log"),
        ("mine-2", [FIRST, changed], "these batches"),
    ):
        with pytest.raises(DataContractError) as caught:
            give(tmp_path / "log", version, pins=given, impressions=shown_on(3))
        message = str(caught.value)
        assert f" has another row in {where}, with another value in column '{column}' (" in message
        assert "write changed pins as a new embedding version" in message
        assert contents(tmp_path / "log") == before


@pytest.mark.parametrize("batch_rows", [7, 1 << 20])
def test_one_changed_row_of_many_is_found_in_whatever_batch_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr(event_log_writer, "_BATCH_ROWS", batch_rows)
    ids = np.repeat(np.arange(20), 10)
    at = np.tile(np.arange(10), 20) * 86_400_000 + 1_704_067_200_000
    given = {"user_id": ids, "as_of": at, "state": np.where(at % 7 == 0, "core", "new")}
    shown, acted = shown_on(2).assign(user_id=1), acted_on(2).assign(user_id=1)
    give_log(tmp_path / "log", users=given, impressions=shown, actions=acted)
    order = np.random.default_rng(3).permutation(200)
    again = {name: values[order] for name, values in given.items()}
    give(tmp_path / "log", users=again)
    assert record_of(tmp_path / "log").num_rows["users"] == 200
    states = again["state"].copy()
    place = int(np.flatnonzero((again["user_id"] == 13) & (again["as_of"] == at[4]))[0])
    states[place] = "else"
    says = rf"user_id=13, as_of={at[4]} \(2024-01-05 .* UTC\) .*column 'state' \(else here, "
    with pytest.raises(DataContractError, match=f"{says}.*give users a later as_of"):
        give(tmp_path / "log", users=again | {"state": states})


@pytest.mark.parametrize("is_in_log", [True, False])
def test_two_names_with_one_id_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_in_log: bool
) -> None:
    """For 64 bits no such pair is known."""
    ids = {"u0": 7, "u9": 7}
    monkeypatch.setattr(event_log_writer, "id_of", lambda name: ids.get(name, id_of(name)))
    if is_in_log:
        write_own_log(tmp_path / "log", 2)
    before = contents(tmp_path / "log")
    acted = acted_on(3).assign(user_id="u9")
    says = r"names/users: id=7 .* 'name' \(u9 here, u0 there\); .* rename one of two"
    with pytest.raises(DataContractError, match=says):
        give_log(tmp_path / "log", impressions=shown_on(3), actions=acted)
    assert contents(tmp_path / "log") == before


def test_users_without_embeddings_get_zeros_of_the_pins_or_users_width(tmp_path: Path) -> None:
    bare = {name: values for name, values in users().items() if name != "embedding"}
    log = tmp_path / "log"
    give_log(log, users=[bare | {"state": ["core", "new"]}, users(5)])
    found = np.array([row["embedding"] for row in rows_of_log(log, "users")])
    assert sorted(found.sum(axis=1).tolist()) == [0.0, 0.0, 6.0, 6.0] and found.shape == (4, 6)
    give(log, "mine-2", users=bare | {"as_of": [AT + pd.Timedelta("9D")] * 2})
    assert len(rows_of_log(log, "users")) == 6
    give_log(tmp_path / "other")
    with pytest.raises(DataContractError, match="and no pins of version 'mine-2' say how wide"):
        give(tmp_path / "other", "mine-2", users=bare, pins=pins())  # which come too late


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
def test_positions_are_counted_over_midnight_files_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_file_rows: int
) -> None:
    """Rows of one instant in the order in which they were given."""
    monkeypatch.setattr(event_log_writer, "MAX_FILE_ROWS", max_file_rows)
    shown, at_once = around_midnight(), around_midnight(1).assign(request_id="x", impressed_at=AT)
    parts = [shown.iloc[[row]] for row in range(len(shown))]
    random.Random(3).shuffle(parts)
    parts += [at_once.iloc[[4, 1]], at_once.iloc[[5]].assign(position=9), at_once.iloc[[0, 3, 2]]]
    give_log(tmp_path / "log", impressions=parts, pins=pins(0, 6))
    names = {id_of(f"p{number}"): number for number in range(6)}
    rows = rows_of_log(tmp_path / "log", "impressions")
    found = {(row["request_id"], names[row["pin_id"]]): row["position"] for row in rows}
    expected = {(f"r{r}", place): place for r in range(5) for place in range(6)}
    in_order = {4: 0, 1: 1, 5: 9, 0: 3, 3: 4, 2: 5}
    assert found == expected | {("x", pin): place for pin, place in in_order.items()}
    monkeypatch.setattr(event_log_writer, "_LARGEST_POSITION", 4)
    with pytest.raises(DataContractError, match="request 'r0' has more than 4 rows; expected one"):
        give_log(tmp_path / "other", impressions=around_midnight(1), pins=pins(0, 6))
    assert not (tmp_path / "other").exists()


def test_files_of_wide_rows_have_fewer_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log_writer, "MAX_FILE_BYTES", 4000)
    rows = {"user_id": np.arange(40), "as_of": np.full(40, 1_704_067_200_000)}
    own = {"impressions": shown_on(2), "actions": acted_on(2)}
    own = {table: batch.assign(user_id=1) for table, batch in own.items()}
    give_log(tmp_path / "log", pins=pins(width=200), users=rows, **own)
    assert len(list((tmp_path / "log" / "users").iterdir())) >= 8  # rows of 800 bytes each
    assert record_of(tmp_path / "log").num_rows["users"] == 40


def test_a_full_disk_is_an_error_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_temp_directory_size": "0MB", "memory_limit": "20MB"}
    monkeypatch.setattr(event_log_writer, "_SETTINGS", event_log_writer._SETTINGS | settings)
    ids = np.arange(400_000)
    many = {"request_id": ids.astype(str), "user_id": ids, "pin_id": ids}
    many["impressed_at"] = np.full(len(ids), MIDNIGHT.value // 10**6)
    acted = acted_on(2).assign(user_id=1, pin_id=1)
    with pytest.raises(TransientStorageError, match=r"(?s)keeping rows for .*/log failed: .*retry"):
        give_log(
            tmp_path / "log", impressions=many, actions=acted, pins=pins() | {"pin_id": ids[:3]}
        )
    assert list(tmp_path.glob("*/")) == []
