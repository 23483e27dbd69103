"""Batches as people have them, and batches that break the contract: told by column and row."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.errors import DataContractError
from pipelines.sources.event_log_writer import Block, id_of, normalise, table_of
from support.own_tables import VERSION, acted_on, pins, shown_on, users

AT = pd.Timestamp(2024, 1, 2).value // 10**6
NUMBERS = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
IDS = ["p0", "p1", "p2"]


def taken(table: str, batch: Any, **settled: str | int) -> pa.Table:
    """Return the rows of a batch of a log that has settled something already."""
    return normalise(table, table_of(batch), Block(VERSION, settled))


def shown(**columns: Any) -> tuple[str, Any]:
    return "impressions", shown_on(2).assign(**columns)


def acted(**columns: Any) -> tuple[str, Any]:
    return "actions", acted_on(2).assign(**columns)


def with_vectors(lists: Any, type_: pa.DataType | None = None) -> tuple[str, Any]:
    return "pins", {"pin_id": ["p7", "p8"], "embedding": pa.array(lists, type_)}


SECONDS = pa.array([2**60] * 2, pa.timestamp("s"))
BAD: list[tuple[tuple[str, Any], str]] = [
    (
        ("impressions", shown_on(2).drop(columns=["user_id", "pin_id"])),
        r"2 problems. \(1\) missing column 'user_id'; found .*\(2\) missing column 'pin_id'",
    ),
    (
        ("actions", pa.table([[1], [2]], names=["user_id"] * 2)),
        r"\['user_id'\] come more than once",
    ),
    (
        shown(impressed_at=AT // 1000),
        f"is not a plausible time.* row 0: .*impressed_at={AT // 1000}",
    ),
    (shown(impressed_at=AT * 1000), r"is not a plausible time.*; expected .*convert it"),
    (shown(impressed_at=1.5), "'impressed_at' is double; expected int64; .* floats in pandas"),
    (shown(impressed_at="2024-01-02"), "'impressed_at' is .*string; expected int64"),
    (
        shown(impressed_at=np.full(9, 2**63 + 5, np.uint64)),
        r"'impressed_at' \(uint64\) has a value that does not fit .*922337203685477581",
    ),
    (
        ("actions", pa.Table.from_pandas(acted_on(2)).set_column(3, "acted_at", SECONDS)),
        r"'acted_at' \(timestamp\[s\]\) has a value .*1152921504606846976\).*expected .*int64",
    ),
    (
        shown(known_at=pd.Timestamp(2024, 1, 1)),
        r"impressed_at is after known_at \(9 such rows, first row 0: .*correct the clock",
    ),
    (
        shown(known_at=pd.array([AT + 10**8] * 5 + [None] * 4, "Int64")),
        r"'known_at' is null \(4 such rows, first row 5: request_id=2-1.*fill or drop these rows",
    ),
    (shown(user_id=[f"u{n}" for n in range(8)] + [None]), "'user_id' is null .* first row 8"),
    (shown(pin_id=[1.0] * 9), "'pin_id' is double; expected integers or strings"),
    (shown(user_id=np.array([2**63] * 9, np.uint64)), "'user_id' .*uint64.* 9223372036854775808"),
    (shown(position=[70_000] + [1] * 8), "'position' .int64.*70000 .*expected .*int16"),
    (
        shown(propensity=[0.5] * 4 + [1.5] * 5),
        r"propensity is outside .*\(5 such rows, first row 4: .*=1.5",
    ),
    (shown(is_exploration="no"), "'is_exploration' is .*string; expected bool; cast it"),
    (shown(request_id=[None] * 9), "'request_id' is .*null"),
    (acted(request_id=[1, None]), r"'request_id' is double; .*astype\('Int64'\)"),
    (("impressions", [1, 2]), "a list cannot be read .*; expected a pandas or polars DataF"),
    (acted(user_id=pd.Series(["u0", 1], dtype=object)), "cannot be read .*each of one type"),
    (with_vectors([[1.0, 2.0], [1.0]]), "has 2 numbers .1 such row, .*pin_id=p7.* expected 1, the"),
    (with_vectors([[1.0, 2.0], None]), r"null \(1 such row, first row 1: pin_id=p8.*expected none"),
    (with_vectors([[1.0], [None]]), "a null, NaN or infinite number .1 such row, .* pin_id=p8"),
    (with_vectors([[1.0], [float("inf")]]), "expected finite float32 numbers; write these"),
    (with_vectors([[], []], pa.list_(pa.float32())), "has 0 numbers .*expected at least 1"),
    (with_vectors([[1], [2]]), r"'embedding' is list<.*int64>; expected lists of float16, "),
    (with_vectors(["[1]", "[2]"]), "'embedding' is string; expected lists of float16"),
    (
        ("pins", pins() | {"embedding_version": [VERSION, "other", "other"]}),
        r"embedding_version is \['other'\]; expected 'mine-1', the writer's; .*for each version",
    ),
]


@pytest.mark.parametrize(("batch", "says"), BAD)
def test_a_bad_batch_is_refused_by_column_and_row(batch: tuple[str, Any], says: str) -> None:
    with pytest.raises(DataContractError, match=says) as caught:
        taken(*batch)
    assert caught.value.exit_code == 65


def test_all_that_is_wrong_is_told_at_once() -> None:
    bad = acted_on(2).assign(user_id=[1.5, 2], action_type=["repin", None], acted_at=AT // 1000)
    with pytest.raises(DataContractError) as caught:
        taken("actions", bad.drop(columns="pin_id"))
    message = str(caught.value)
    assert message.startswith("3 problems. (1) column 'user_id' is double")
    assert "(2) missing column 'pin_id'" in message
    assert "(3) column 'action_type' is null (1 such row, first row 1" in message


TIMES = {"known_at": [AT] * 3}


@pytest.mark.parametrize(
    ("batch", "settled", "says"),
    [
        (shown(tone=4), {"impressions.tone": "string"}, "tone is int64, and string in earlier"),
        (shown(tone=[["x"]] * 9), {"impressions.tone": "string"}, "tone is list<.*, and string in"),
        (shown(user_id=1), {"kind of user_id": "string"}, "user_id is integer, and string in earl"),
        (("pins", pins() | TIMES), {"pins.known_at": "not given"}, "known_at is given, and not"),
        (("pins", pins(width=7)), {"embeddings of mine-1": 6}, "has 7 numbers .* expected 6, the"),
        (("users", users(width=7)), {"embeddings of mine-1": 6}, "has 7 numbers .*user_id=u0"),
        (("users", users(width=7)), {"users.embedding": 6}, "has 7 numbers .* expected 6"),
    ],
)
def test_what_does_not_fit_the_rows_before_is_refused(
    batch: tuple[str, Any], settled: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataContractError, match=says):
        taken(*batch, **settled)


@pytest.mark.parametrize(
    "given",
    [
        NUMBERS,
        NUMBERS.astype(np.float64),
        NUMBERS.astype(np.float16),
        to_list_column(NUMBERS.astype(np.float16)),
        pa.array(NUMBERS.tolist(), pa.large_list(pa.float32())),
        pd.Series(list(NUMBERS)),
        pd.Series(NUMBERS.tolist()),
    ],
)
def test_every_form_of_embedding_becomes_lists_of_one_width(given: Any) -> None:
    batch = {"pin_id": IDS, "embedding": given}
    rows = taken("pins", pd.DataFrame(batch) if isinstance(given, pd.Series) else batch)
    assert rows.schema.field("embedding").type == pa.list_(pa.float32(), 4)
    assert rows["embedding"].to_pylist() == NUMBERS.tolist()
    assert rows["pin_id"].to_pylist() == [id_of(name) for name in IDS]


@pytest.mark.parametrize(
    "given",
    [
        pa.array([1704189600123456], pa.timestamp("us")),
        pa.array([1704189600123456789], pa.timestamp("ns", "America/New_York")),
        pa.array([1704189600123], pa.int64()),
        pd.DatetimeIndex(["2024-01-02 11:00:00.123456"], tz="Europe/Berlin"),
    ],
)
def test_times_become_milliseconds_in_utc(given: Any) -> None:
    row = {"user_id": ["u0"], "pin_id": ["p0"], "action_type": ["repin"], "acted_at": given}
    rows = taken("actions", pd.DataFrame(row) if isinstance(given, pd.DatetimeIndex) else row)
    assert rows["acted_at"].to_pylist() == rows["known_at"].to_pylist() == [1704189600123]


@pytest.mark.parametrize("kind", ["float64", object])
def test_a_column_without_a_value_is_null_whatever_its_type(kind: Any) -> None:
    nothing = pd.Series([None] * 9, dtype=kind)
    assert taken("actions", acted_on(2).assign(request_id=nothing[:2]))["request_id"].null_count
    rows = taken("impressions", shown_on(3).assign(tone=nothing), **{"impressions.tone": "string"})
    assert rows["tone"].to_pylist() == [None] * 9 and rows["tone"].type == pa.string()


def test_a_name_has_the_same_id_for_ever() -> None:
    # BLAKE2b with a digest of 8 bytes, as `b2sum -l 64` prints it.
    assert id_of("abc") % 2**64 == 0xD8BB14D833D59559
    assert len({id_of(name) for name in ("", "ü", "a" * 10_000)}) == 3
    assert -(2**63) <= min(id_of(str(n)) for n in range(500)) < 0
