"""Batches that break the contract: a message names column, row, value, expectation and remedy."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.errors import DataContractError
from pipelines.sources import EventLogWriter
from pipelines.sources.writer import batches
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

Give = Callable[[EventLogWriter], None]
AT = pd.Timestamp(2024, 1, 2).value // 10**6


def shown(**columns: Any) -> Give:
    return lambda writer: writer.impressions(shown_on(2).assign(**columns))


def with_vectors(lists: Any, type_: pa.DataType | None = None) -> Give:
    embedding = pa.array(lists, type_)
    return lambda writer: writer.pins({"pin_id": ["p7", "p8"], "embedding": embedding})


@pytest.mark.parametrize(
    ("give", "says"),
    [
        (
            lambda writer: writer.impressions(shown_on(2).drop(columns=["user_id", "pin_id"])),
            r"missing columns \['user_id', 'pin_id'\]; found \['request_id', 'impressed_at'\]",
        ),
        (
            shown(impressed_at=AT // 1000),
            f"looks like seconds.*first row 0: .*impressed_at={AT // 1000}",
        ),
        (
            lambda writer: writer.actions(pa.table([[1], [2]], names=["user_id", "user_id"])),
            r"columns \['user_id'\] come more than once; expected each once",
        ),
        (shown(impressed_at=AT * 1000), r"looks like microseconds\) .*; expected .*convert it"),
        (shown(impressed_at=1.5), "'impressed_at' is double; expected int64 milliseconds .*floats"),
        (shown(impressed_at="2024-01-02"), "'impressed_at' is .*string; .*parse texts into timest"),
        (
            shown(known_at=pd.Timestamp(2024, 1, 1)),
            r"impressed_at is after known_at \(9 such rows, first row 0: .*correct the clock",
        ),
        (
            shown(known_at=pd.array([AT + 10**8] * 5 + [None] * 4, "Int64")),
            r"'known_at' is null in row 5 \(4 such rows\); .*fill it, leave out the column, or",
        ),
        (shown(user_id=[f"u{n}" for n in range(8)] + [None]), "'user_id' is null in row 8"),
        (shown(pin_id=[1.0] * 9), "'pin_id' is double; expected integers or strings"),
        (shown(position=[70_000] + [1] * 8), "'position' is int64 .*70000 .*expected int16"),
        (
            shown(propensity=[0.5] * 4 + [1.5] * 5),
            r"propensity is outside .*\(5 such rows, first row 4: .*=1.5",
        ),
        (
            shown(impressed_at=np.full(9, 2**63 + 5, np.uint64)),
            r"'impressed_at' is uint64 with a value that does not fit .*922337203685477581",
        ),
        (
            lambda writer: writer.actions(
                pa.Table.from_pandas(acted_on(2)).set_column(
                    3, "acted_at", pa.array([2**60] * 2, pa.timestamp("s"))
                )
            ),
            r"'acted_at' is timestamp\[s\] with .*1152921504606846976\); expected int64",
        ),
        (shown(is_exploration="no"), "'is_exploration' is .*string; expected bool; cast it"),
        (
            shown(request_id=[None] * 9),
            "'request_id' is null in row 0 .*; fill it, or leave out th",
        ),
        (
            lambda writer: writer.actions(acted_on(2).assign(request_id=[1, None])),
            r"'request_id' is double; .*astype\('Int64'\)",
        ),
        (lambda writer: writer.impressions([1, 2]), "is a list; expected a pandas or polars DataF"),
        (
            with_vectors([[1.0, 2.0], [1.0]]),
            "has 2 numbers .1 such row, first row 0: pin_id=p7.* expected 1, the ",
        ),
        (
            with_vectors([[1.0, 2.0], None]),
            r"is null \(1 such row, first row 1: pin_id=p8.*expected none",
        ),
        (
            with_vectors([[1.0], [None]]),
            "has a null, NaN or infinite number .1 such row, first row 1: pin_id=p8",
        ),
        (with_vectors([[1.0], [float("inf")]]), "expected finite float32 numbers; write these"),
        (with_vectors([[], []], pa.list_(pa.float32())), "has 0 numbers .*expected at least 1"),
        (with_vectors([[1], [2]]), r"'embedding' is list<.*int64>; expected lists of float16, "),
        (with_vectors(["[1]", "[2]"]), "'embedding' is string; expected lists of float16"),
        (
            shown(price=pd.array([1] * 9, pd.ArrowDtype(pa.decimal256(50, 2)))),
            "a column has a type that cannot be kept .*'price': 'decimal256.* cast the column",
        ),
        (
            lambda writer: writer.pins(pins() | {"embedding_version": [VERSION, "other", "other"]}),
            "'embedding_version' is 'other' in row 1 .*'mine-1', the writer's .* for each version",
        ),
    ],
)
def test_a_bad_batch_is_refused_and_nothing_is_published(
    tmp_path: Path, give: Give, says: str
) -> None:
    with (
        pytest.raises(DataContractError, match=says) as caught,
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        give(writer)
    assert str(caught.value).startswith(("impressions", "actions, batch 1", "pins, b"))
    assert caught.value.exit_code == 65
    assert not (tmp_path / "log").exists()


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    bad = acted_on(2).assign(user_id=[1.5, 2], action_type=["repin", None], acted_at=AT // 1000)
    with (
        pytest.raises(DataContractError) as caught,
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        writer.actions(bad.drop(columns="pin_id"))
    message = str(caught.value)
    assert message.startswith("actions, batch 1: 3 problems. (1) missing columns ['pin_id']")
    assert "(2) column 'user_id' is double" in message
    assert "(3) column 'action_type' is null in row 1 (1 such rows)" in message


@pytest.mark.parametrize("max_bytes", [1, 1 << 20])
def test_nothing_of_a_batch_in_several_parts_stays_where_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_bytes: int
) -> None:
    monkeypatch.setattr(batches, "MAX_BYTES", max_bytes)
    good = pa.Table.from_pandas(shown_on(2).assign(tone="blue"), preserve_index=False)
    bad = good.set_column(1, "user_id", pa.array([*good["user_id"].to_pylist()[:-1], None]))
    broken = pa.Table.from_pandas(shown_on(3).assign(tone=None).astype({"tone": "float64"}))

    def reader(rows: pa.Table) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=2))

    def failing() -> Iterator[pa.RecordBatch]:
        yield from broken.to_batches(max_chunksize=2)
        raise ZeroDivisionError

    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        with pytest.raises(DataContractError, match="batch 1 from row 8: column 'user_id' is null"):
            writer.impressions(reader(bad))
        with pytest.raises(DataContractError, match="batch 2 cannot be read as an Arrow table"):
            writer.impressions(pa.RecordBatchReader.from_batches(broken.schema, failing()))
        writer.impressions(reader(good))
        writer.actions(acted_on(2))
        writer.pins(pins())
    assert record_of(tmp_path / "log").num_rows["impressions"] == len(good)
    # The refused batches have settled no column either: the second's tone was a number.
    assert record_of(tmp_path / "log").extra_columns["impressions"] == {"tone": "string"}


@pytest.mark.parametrize(
    ("later", "says"),
    [
        (shown_on(3).assign(tone=4), "'tone' is int64, and string in earlier rows"),
        (shown_on(3).assign(tone=[["x"]] * 9), "'tone' is list<.*string>, and string in earlier"),
    ],
)
def test_batches_with_other_columns_are_refused(
    tmp_path: Path, later: pd.DataFrame, says: str
) -> None:
    first = shown_on(2).assign(tone=pd.Categorical(["blue"] * 9))
    with pytest.raises(DataContractError, match=says):
        give(tmp_path / "log", impressions=[first, later])


def test_a_column_that_some_batches_lack_is_null_there(tmp_path: Path) -> None:
    given = [shown_on(day) for day in (2, 3, 4)]
    given[1] = given[1].assign(tone="x")
    give_log(tmp_path / "log", impressions=given)
    give(tmp_path / "log", impressions=[shown_on(5), shown_on(6).assign(more=1, tone="y")])
    found = [row.get("tone") for row in rows_of_log(tmp_path / "log", "impressions")]
    assert (found.count("x"), found.count("y"), found.count(None)) == (9, 9, 27)
    extra = record_of(tmp_path / "log").extra_columns["impressions"]
    assert extra == {"tone": "string", "more": "int64"}


def test_a_new_log_needs_three_tables(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match="would have no actions and no pins; expected rows"):
        give(tmp_path / "log", impressions=shown_on(2))
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("give", "says"),
    [
        (
            lambda writer: writer.pins(pins(2, 4) | {"embedding": np.ones((2, 6))}),
            r"pins: pin_id=-?\d+ of version 'mine-1' has another row",
        ),
        (
            lambda writer: writer.users(users(day=1) | {"state": ["new", "new"]}),
            r"users: user_id=-?\d+, as_of=17.* \(2 such r",
        ),
        (
            lambda writer: [
                writer.pins(pins(8, 9)),
                writer.pins(pins(8, 9) | {"embedding": np.ones((1, 6))}),
            ],
            r"has another row in these batches, .* \(1 such rows\); expected one row per \(pin, em",
        ),
        (
            lambda writer: writer.pins(pins(8, 10, width=7)),
            "has 7 numbers .2 such rows, first row 0: pin_id=p8.*expected 6, the width of this",
        ),
        (
            lambda writer: writer.users(users(2, width=7)),
            "has 7 numbers .2 such rows, first row 0: user_id=u0.*; expected 6, the width",
        ),
        (
            lambda writer: writer.pins(pins(8, 9) | {"known_at": [AT]}),
            "pins so far have not the column 'known_at', and this batch has; .*write a new log",
        ),
    ],
)
def test_what_does_not_fit_the_log_is_refused(tmp_path: Path, give: Give, says: str) -> None:
    write_own_log(tmp_path / "log", 2)
    before = {path: path.read_bytes() for path in (tmp_path / "log").rglob("*.*")}
    with (
        pytest.raises(DataContractError, match=says),
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        give(writer)
    assert {path: path.read_bytes() for path in (tmp_path / "log").rglob("*.*")} == before


NUMBERS = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
IDS = ["p0", "p1", "p2"]


def tensors(numbers: np.ndarray) -> pa.ExtensionArray:
    type_ = pa.fixed_shape_tensor(pa.float32(), (4,))
    return pa.ExtensionArray.from_storage(type_, to_list_column(numbers))


@pytest.mark.parametrize(
    "given",
    [
        NUMBERS,
        NUMBERS.astype(np.float64),
        NUMBERS.astype(np.float16),
        to_list_column(NUMBERS.astype(np.float16)),
        pa.array(NUMBERS.tolist(), pa.large_list(pa.float32())),
        tensors(NUMBERS),
        pd.Series(list(NUMBERS)),
        pd.Series(NUMBERS.tolist()),
    ],
)
def test_every_form_of_embedding_is_written_as_lists_of_one_width(
    tmp_path: Path, given: Any
) -> None:
    batch = {"pin_id": IDS, "embedding": given}
    is_series = isinstance(given, pd.Series)
    give_log(tmp_path / "log", pins=pd.DataFrame(batch) if is_series else batch)
    vectors = record_of(tmp_path / "log").embedding_versions[VERSION]
    assert (vectors.embedding_dim, vectors.type) == (4, "float32")
    rows = pq.read_table(tmp_path / "log" / "pins")
    assert rows.schema.field("embedding").type == pa.list_(pa.float32(), 4)
    by_id = {row["pin_id"]: row["embedding"] for row in rows.to_pylist()}
    assert [by_id[id_of(name)] for name in IDS] == NUMBERS.tolist()


def bare(day: int = 1) -> dict[str, Any]:
    """Return users without embeddings."""
    return {name: values for name, values in users(day).items() if name != "embedding"}


def embeddings_of_users(log: Path) -> np.ndarray:
    return np.array([row["embedding"] for row in rows_of_log(log, "users")])


@pytest.mark.parametrize("are_users_first", [True, False])
def test_users_without_embeddings_get_zeros_of_the_pins_width(
    tmp_path: Path, are_users_first: bool
) -> None:
    later = bare(5) | {"state": ["core", "new"]}
    tables = {"users": [bare(), later], "pins": pins()}
    give(
        tmp_path / "log",
        **dict(sorted(tables.items(), reverse=are_users_first)),
        impressions=shown_on(2),
        actions=acted_on(2),
    )
    found = embeddings_of_users(tmp_path / "log")
    assert found.shape == (4, 6) and not found.any()
    states = sorted(row["state"] for row in rows_of_log(tmp_path / "log", "users"))
    assert states == ["core", "new", "unknown", "unknown"]
    record = record_of(tmp_path / "log")
    assert record.user_embeddings == record.embedding_versions[VERSION]


def test_the_width_of_zeros_is_that_of_the_users_or_of_the_version(tmp_path: Path) -> None:
    give_log(tmp_path / "log")
    says = "users have no column 'embedding', and no pins of version 'mine-2' say how wide"
    with pytest.raises(DataContractError, match=says):
        give(tmp_path / "log", "mine-2", users=bare())
    give(tmp_path / "log", users=bare())
    give(tmp_path / "log", "mine-2", users=bare(5))
    assert embeddings_of_users(tmp_path / "log").shape == (4, 6)


@pytest.mark.parametrize("has_first", [True, False])
def test_some_users_with_and_some_without_embeddings_are_refused_by_their_batches(
    tmp_path: Path, has_first: bool
) -> None:
    first, second = (users(), bare(5)) if has_first else (bare(), users(5))
    there, here = ("have", "has not") if has_first else ("have not", "has")
    says = (
        f"^users, batch 2: the users so far {there} the column 'embedding', and this batch {here}; "
        f"expected it in all users or in none"
    )
    with pytest.raises(DataContractError, match=says):
        give(tmp_path / "log", users=[first, second])


@pytest.mark.parametrize("are_users_first", [True, False])
def test_users_of_another_width_than_the_pins_are_refused_at_the_batch(
    tmp_path: Path, are_users_first: bool
) -> None:
    says = (
        r"the users' embeddings have 7 numbers, and the pins' of version 'mine-1' have 6; .* lie "
        r"in the pins' space .* or leave out the users' column 'embedding'"
    )
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        batches = [(writer.pins, pins()), (writer.users, users(width=7))]
        (take, batch), (refuse, other) = reversed(batches) if are_users_first else batches
        take(batch)
        with pytest.raises(DataContractError, match=says):
            refuse(other)
        refuse(pins(width=7) if are_users_first else users())
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
    assert record_of(tmp_path / "log").num_rows["users"] == 2


def test_a_name_has_the_same_id_for_ever() -> None:
    # BLAKE2b with a digest of 8 bytes, as `b2sum -l 64` prints it.
    assert id_of("abc") % 2**64 == 0xD8BB14D833D59559
    assert len({id_of(name) for name in ("", "ü", "a" * 10_000)}) == 3
    assert -(2**63) <= min(id_of(str(n)) for n in range(500)) < 0


@pytest.mark.parametrize(
    ("user_id", "says"),
    [
        ([0, 1], "column 'user_id' has integer ids, and this log has string ids"),
        (pd.Series(["u0", 1], dtype=object), "cannot be read .* one type in each"),
        (
            np.array([1, 2**63], np.uint64),
            "'user_id' is uint64 .*9223372036854775808 .*as strings",
        ),
    ],
)
@pytest.mark.parametrize("is_later", [False, True])
def test_ids_that_are_none_are_refused(
    tmp_path: Path, user_id: Any, says: str, is_later: bool
) -> None:
    tables: dict[str, Any] = {"actions": acted_on(3).assign(user_id=user_id)}
    if "integer ids" in says:
        tables = {"impressions": shown_on(3)} | tables
    if is_later:
        write_own_log(tmp_path / "log", 2)
        says = says if isinstance(user_id, pd.Series) else "has integer ids, and this log has strin"
    with pytest.raises(DataContractError, match=f"actions, batch 1:? .*{says}"):
        give(tmp_path / "log", **tables)


def test_users_and_pins_may_have_ids_of_different_kinds(tmp_path: Path) -> None:
    shown = shown_on(2).assign(user_id=np.arange(9, dtype=np.uint64))
    acted = acted_on(2).assign(user_id=[3, 4])
    give_log(tmp_path / "log", impressions=shown, actions=acted)
    assert record_of(tmp_path / "log").id_kinds == {"user_id": "integer", "pin_id": "string"}
    assert not (tmp_path / "log" / "names" / "users").exists()
