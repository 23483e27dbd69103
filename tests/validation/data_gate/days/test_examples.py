"""Rows are shown for every number that rows can show, and they are the ones that make it."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.time import DAY_MS, HOUR_MS
from support.log_days import FIRST_DAY, WIDTH, actions, impressions, users
from validation.data_gate.days.examples import _QUERIES, can_show, find_examples
from validation.data_gate.days.measure import DayRows, open_engine

NOON = FIRST_DAY * DAY_MS + 12 * HOUR_MS
SHOWN = impressions(
    [
        ("a", 1, 10, NOON, 0),
        ("a", 1, 11, NOON, 1),
        ("a", 1, 11, NOON, 1),  # the pin and its place come again
        ("b", 2, 10, NOON + HOUR_MS, 0),
        ("c", 4, 10, NOON + HOUR_MS, 0),
    ]
)
ACTED = actions(
    [
        (1, 11, "repin", NOON + 5000, "gone"),
        (2, 99, "repin", NOON + HOUR_MS + 5000, "b"),  # was not shown
        (3, 10, "repin", NOON - 7000, "a"),  # another's request, and before it
        (1, 10, "click", NOON - 1, None),
    ]
)
VECTORS = np.zeros((3, WIDTH))
VECTORS[:, 0] = [1.0, 1.0, 0.0]
USERS = users([(1, FIRST_DAY - 40, "core"), (2, FIRST_DAY, "new"), (3, FIRST_DAY, "core")], VECTORS)

EXPECTED = {
    "impressions.pin_repeated": "user 1, pin 11 at 12:00:00, shown 2 times in its request",
    "impressions.place_repeated": "user 1, pin 11 at 12:00:00, position 1 of its request",
    "impressions.busiest_user": "user 1, 3 impressions",
    "impressions.busiest_pin": "pin 10, 3 impressions",
    "impressions.acted_upon_before": "user 1, pin 10 at 12:00:00, acted upon without a request in "
    "the day before",
    "actions.busiest_user": "user 1, 2 actions",
    "named.repin.known": "user 1, pin 11 at 12:00:05, of a request that is not there on the day "
    "or the one before",
    "named.repin.own": "user 3, pin 10 at 11:59:53, on a request of user 1",
    "named.repin.early": "user 3, pin 10 at 11:59:53, 7 s before its request",
    "named.repin.shown": "user 2, pin 99 at 13:00:05, which its request did not show",
    "users.without_row": "user 4",
    "users.row_over_28_days": "user 1, whose newest row is 40 days old",
    "users.embedding_repeated": "users 1 and 2",
}


def found(tmp_path: Path, names: list[str], **changes: object) -> dict[str, tuple[str, ...]]:
    rows = {"impressions": [SHOWN], "actions": [ACTED], "users": [USERS]} | changes
    with open_engine(str(tmp_path)) as engine:
        return dict(find_examples(engine, DayRows(**rows), FIRST_DAY, names))


LATE = {"impressions.known_after_an_hour": 90, "impressions.known_after_a_day": 1500,
        "actions.repin.known_after_a_day": 1500}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_row_that_makes_a_number_is_shown(tmp_path: Path, name: str) -> None:
    assert found(tmp_path, [name])[name][0] == EXPECTED[name]


@pytest.mark.parametrize(("name", "minutes"), LATE.items())
def test_the_latest_row_is_shown(tmp_path: Path, name: str, minutes: int) -> None:
    changes = {}
    for table, rows, time in (
        ("impressions", SHOWN, "impressed_at"),
        ("actions", ACTED, "acted_at"),
    ):
        late = np.asarray(rows[time]).copy()
        late[0] += minutes * 60_000
        place = rows.schema.get_field_index("known_at")
        changes[table] = [rows.set_column(place, "known_at", [late])]
    (phrase,) = found(tmp_path, [name], **changes)[name]
    assert phrase.startswith("user 1, pin 1") and phrase.endswith(f"known {minutes} minutes later")


def test_what_is_shown_of_zeros_of_volumes_and_of_later_actions(tmp_path: Path) -> None:
    shown, zero = impressions([("a", 3, 10, NOON, 0)]), "users.zero_embedding"
    assert found(tmp_path, [zero], impressions=[shown])[zero] == ("user 3",)
    assert not can_show("impressions.rows") and can_show("named.long_click.known")
    assert found(tmp_path, ["impressions.rows", "actions.repin.rows"]) == {}
    later, name = actions([(1, 10, "click", NOON + 1, None)]), "impressions.acted_upon_before"
    assert found(tmp_path, [name], actions=[later]) == {name: ()}
    tried = {each.replace(".repin.", ".*.") for each in (*EXPECTED, *LATE, zero)}
    assert tried == set(_QUERIES), "every query is tried here"
