"""Users whose embeddings nobody has: they get zeros as wide as the pins' embeddings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.parquet_files import open_file, read_file
from pipelines.event_log.rules import embedding_matrix
from pipelines.sources import EventLogWriter
from pipelines.sources.writer import assemble
from pipelines.storage import to_uri
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

SAYS_WIDTH = (
    r"the users' embeddings have 7 numbers, and the pins' of version 'mine-1' have 6; .* lie in "
    r"the pins' space .* or leave out the users' column 'embedding'"
)


def bare(day: int = 1) -> dict[str, Any]:
    return {name: values for name, values in users(day).items() if name != "embedding"}


def embeddings_of(log: Path) -> np.ndarray:
    listed = open_event_log(to_uri(log))
    read = [
        read_file(open_file(listed, file), file, ["user_id", "embedding"], None)
        for file in listed.files_of("users")
    ]
    return np.concatenate([embedding_matrix("users", "user_id", rows) for rows in read])


@pytest.mark.parametrize("type_", [np.float16, np.float32])
@pytest.mark.parametrize("are_users_first", [True, False])
def test_they_get_zeros_of_the_pins_width(
    tmp_path: Path, are_users_first: bool, type_: type
) -> None:
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        if are_users_first:
            writer.users(bare())
        writer.pins(pins(type_=type_))
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
        if not are_users_first:
            writer.users(bare())
        writer.users(bare(5) | {"state": ["core", "new"]})
    found = embeddings_of(tmp_path / "log")
    assert found.shape == (4, 6) and not found.any()
    assert sorted(row["state"] for row in rows_of_log(tmp_path / "log", "users")) == [
        *("core", "new", "unknown", "unknown")
    ]
    record = record_of(tmp_path / "log")
    assert record.user_embeddings == record.embedding_versions[VERSION]


def test_of_a_log_that_is_there_the_width_is_taken_and_the_same_row_is_passed_over(
    tmp_path: Path,
) -> None:
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.pins(pins())
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
    for version in ("mine-2", VERSION, VERSION):  # a later version without a pin so far, too
        with EventLogWriter(tmp_path / "log", version) as writer:
            writer.users(bare())
    assert embeddings_of(tmp_path / "log").shape == (2, 6)
    assert record_of(tmp_path / "log").num_rows["users"] == 2


def test_where_no_width_is_known_the_message_says_so(tmp_path: Path) -> None:
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.pins(pins())
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
    with EventLogWriter(tmp_path / "log", "mine-2") as writer:
        writer.pins(pins(width=7))
    with (
        pytest.raises(
            DataContractError,
            match=r"users have no column 'embedding', .* no pins of version 'mine-3'.* widths \[6, "
            r"7\]; .*give pins of version 'mine-3', or the users' embeddings",
        ),
        EventLogWriter(tmp_path / "log", "mine-3") as writer,
    ):
        writer.users(bare())
    with (
        pytest.raises(DataContractError, match="would have no pins"),
        EventLogWriter(tmp_path / "new", VERSION) as writer,
    ):
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
        writer.users(bare())


@pytest.mark.parametrize("has_first", [True, False])
def test_some_with_and_some_without_are_refused_by_their_batches(
    tmp_path: Path, has_first: bool
) -> None:
    first, second = (users(), bare(5)) if has_first else (bare(), users(5))
    there, here = ("has", "has not") if has_first else ("has not", "has")
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.users(first)
        with pytest.raises(
            DataContractError,
            match=f"^users, batch 2: users, batch 1 {there} the column 'embedding', and this batch "
            f"{here}; expected it in all batches of users or in none",
        ):
            writer.users(second)
        writer.pins(pins())
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
    assert record_of(tmp_path / "log").num_rows["users"] == 2


@pytest.mark.parametrize("are_users_first", [True, False])
def test_another_width_than_the_pins_is_refused_at_the_batch(
    tmp_path: Path, are_users_first: bool
) -> None:
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        give = [(writer.pins, pins()), (writer.users, users(width=7))]
        (take, batch), (refuse, other) = reversed(give) if are_users_first else give
        take(batch)
        with pytest.raises(DataContractError, match=SAYS_WIDTH):
            refuse(other)
        refuse(pins(width=7) if are_users_first else users())
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
    assert record_of(tmp_path / "log").num_rows["users"] == 2


def test_another_width_than_the_log_s_pins_is_refused_at_the_batch(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    with (
        EventLogWriter(tmp_path / "log", VERSION) as writer,
        pytest.raises(DataContractError, match=SAYS_WIDTH),
    ):
        writer.users(users(2, width=7))


def test_files_have_as_many_rows_as_if_the_zeros_had_been_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zeros are in memory with the rows, so they count where a file's rows are bounded."""
    monkeypatch.setattr(assemble, "MAX_BYTES", 4000)
    ids = np.arange(40)
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.pins(pins(width=200))
        writer.impressions(shown_on(2).assign(user_id=1))
        writer.actions(acted_on(2).assign(user_id=1))
        writer.users({"user_id": ids, "as_of": np.full(40, 1_704_067_200_000)})
    files = open_event_log(to_uri(tmp_path / "log")).files_of("users")
    assert len(files) >= 8  # at most 4 rows of 800 bytes each, or 5
    assert embeddings_of(tmp_path / "log").shape == (40, 200)
