"""Repeated impressions are dropped, and rows that contradict each other refused.

That the order of the rows that come in changes no byte is tested in test_purity.
"""

from pathlib import Path

import pytest

from pipelines.contracts.errors import DataContractError
from support.tiny_log import (
    acted,
    build_tiny,
    rows_of,
    shown,
    tiny_actions,
    tiny_impressions,
    write_tiny_log,
)


def test_duplicate_impressions_are_dropped_and_counted(tmp_path: Path) -> None:
    again = shown("C", 1, "18 00:01", 30, 10)  # both pins once more, a minute later
    write_tiny_log(tmp_path / "event_log", impressions=[*tiny_impressions(), *again])
    snapshot = build_tiny(tmp_path)
    assert snapshot.num_duplicate_impressions == 2
    examples = rows_of(snapshot, "examples")
    assert [row["position"] for row in examples] == [0, 1] * 4


@pytest.mark.parametrize("is_first", [True, False])
def test_of_repeated_impressions_the_earliest_is_kept_whatever_order_they_come_in(
    tmp_path: Path, is_first: bool
) -> None:
    again = [{**row, "position": 7} for row in shown("C", 1, "18 00:01", 30)]
    rows = [*again, *tiny_impressions()] if is_first else [*tiny_impressions(), *again]
    write_tiny_log(tmp_path / "event_log", impressions=rows)
    snapshot = build_tiny(tmp_path)
    assert snapshot.num_duplicate_impressions == 1
    assert all(row["position"] < 2 for row in rows_of(snapshot, "examples"))


def test_an_action_before_the_request_it_names_is_refused(tmp_path: Path) -> None:
    actions = [*tiny_actions(), acted(1, 30, "repin", "17 23:59", "17 23:59", "C")]
    write_tiny_log(tmp_path / "event_log", actions=actions)
    with pytest.raises(DataContractError, match=r"names request 'C', which was shown later"):
        build_tiny(tmp_path)


def test_a_request_of_two_users_is_refused(tmp_path: Path) -> None:
    write_tiny_log(
        tmp_path / "event_log",
        impressions=[*tiny_impressions(), *shown("C", 2, "18 00:00", 40)],
    )
    with pytest.raises(DataContractError, match="request 'C' belongs to users 1 and 2"):
        build_tiny(tmp_path)


def test_a_request_that_showed_two_users_the_same_pins_is_refused(tmp_path: Path) -> None:
    """Their rows differ in nothing else, so neither may pass for the other's repetition."""
    same = [row for row in tiny_impressions() if row["request_id"] == "C"]
    write_tiny_log(
        tmp_path / "event_log",
        impressions=[*tiny_impressions(), *({**row, "user_id": 2} for row in same)],
    )
    with pytest.raises(DataContractError, match="request 'C' belongs to users 1 and 2"):
        build_tiny(tmp_path)
