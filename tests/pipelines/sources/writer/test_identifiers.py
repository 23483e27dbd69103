"""Ids from names: stable, kept with their names, one kind in a log, and never two names for one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.sources import EventLogWriter
from pipelines.sources.writer import identifiers
from pipelines.sources.writer.identifiers import id_of
from support.own_tables import VERSION, acted_on, pins, record_of, shown_on, write_own_log


def test_a_name_has_the_same_id_for_ever() -> None:
    # BLAKE2b with a digest of 8 bytes, as `b2sum -l 64` prints it.
    assert id_of("abc") % 2**64 == 0xD8BB14D833D59559
    assert {id_of(name) for name in ("", "ü", "a" * 10_000)} == {
        id_of(""),
        id_of("ü"),
        id_of("a" * 10_000),
    }
    assert -(2**63) <= min(id_of(str(n)) for n in range(500)) < 0


def colliding(monkeypatch: pytest.MonkeyPatch, first: str, second: str) -> None:
    """Let two names have one id; for 64 bits no such pair is known."""
    ids = {first: 7, second: 7}
    monkeypatch.setattr(identifiers, "id_of", lambda name: ids.get(name, id_of(name)))


def test_two_names_with_one_id_in_a_batch_are_refused(tmp_path: Path, monkeypatch) -> None:
    colliding(monkeypatch, "p0", "p2")
    with (
        pytest.raises(
            DataContractError, match="names 'p0' and 'p2' in column 'pin_id' have one id"
        ),
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        writer.impressions(shown_on(2))
    assert not (tmp_path / "log").exists()


def test_two_names_with_one_id_in_two_batches_are_refused(tmp_path: Path, monkeypatch) -> None:
    colliding(monkeypatch, "p0", "p9")
    with (
        pytest.raises(DataContractError, match=r"names/pins: the names 'p0' and 'p9' .* one id, 7"),
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2).assign(pin_id="p9"))
        writer.pins(pins())
    assert not (tmp_path / "log").exists()


def test_a_name_with_the_id_of_an_earlier_increments_name_is_refused(
    tmp_path: Path, monkeypatch
) -> None:
    colliding(monkeypatch, "u0", "u9")
    write_own_log(tmp_path / "log", 2)
    before = record_of(tmp_path / "log")
    with (
        pytest.raises(DataContractError, match=r"names/users: the names 'u0' and 'u9'"),
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        writer.actions(acted_on(3).assign(user_id="u9"))
    assert record_of(tmp_path / "log") == before


@pytest.mark.parametrize("is_later", [False, True])
def test_ids_of_both_kinds_are_refused(tmp_path: Path, is_later: bool) -> None:
    if is_later:
        write_own_log(tmp_path / "log", 2)
    with (
        pytest.raises(
            DataContractError,
            match="actions, batch 1: column 'user_id' has integer ids, and this log has string ids",
        ),
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        writer.impressions(shown_on(3))
        writer.actions(acted_on(3).assign(user_id=[0, 1]))


def test_ids_of_both_kinds_in_one_column_are_refused(tmp_path: Path) -> None:
    mixed = acted_on(3).assign(user_id=pd.Series(["u0", 1], dtype=object))
    with (
        pytest.raises(
            DataContractError, match="actions, batch 1 cannot be read .* one type in each"
        ),
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        writer.actions(mixed)


def test_users_and_pins_may_have_ids_of_different_kinds(tmp_path: Path) -> None:
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.impressions(shown_on(2).assign(user_id=np.arange(9, dtype=np.uint64)))
        writer.actions(acted_on(2).assign(user_id=[3, 4]))
        writer.pins(pins())
    assert record_of(tmp_path / "log").id_kinds == {"user_id": "integer", "pin_id": "string"}
    assert not (tmp_path / "log" / "names" / "users").exists()


def test_an_integer_that_does_not_fit_is_named(tmp_path: Path) -> None:
    ids = np.array([1, 2**63], dtype=np.uint64)
    with (
        pytest.raises(
            DataContractError, match="'user_id' is 9223372036854775808 in row 1 .*strings"
        ),
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        writer.actions(acted_on(3).assign(user_id=ids))
