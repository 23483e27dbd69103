"""Planted defects: each changes what it says, as much as it says, where it may, and no more."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from support.log_days import random_log
from validation.data_gate.days.measure import DayRows, measure_days, open_engine
from validation.data_gate.planted import DEFECTS, HOURS, SHARES, TABLES, LogRows

BY_NAME = {defect.name: defect for defect in DEFECTS}
NOT_BY_DAYS = ("pin_embeddings_random", "pin_embeddings_swapped", "pin_embeddings_shuffled",
               "pin_embeddings_rotated", "user_embeddings_months_old")  # fmt: skip


def planted(name: str, strength: float = 0.6) -> LogRows:
    return BY_NAME[name].plant(random_log(), strength, np.random.default_rng(3))


def changed(before: LogRows, after: LogRows) -> list[str]:
    return [name for name in TABLES if not getattr(before, name).equals(getattr(after, name))]


def number(log: LogRows, folder: Path, name: str) -> float:
    with open_engine(str(folder)) as engine:
        rows = DayRows([log.impressions], [log.actions], [log.users])
        days = measure_days(engine, rows, log.first_day, log.end_day, ["shelf"])
    return float(np.mean([day.numbers[name].value for day in days]))


def test_the_list_and_the_strengths_are_what_was_fixed() -> None:
    assert len(DEFECTS) == len(BY_NAME) == 37
    assert SHARES == (0.05, 0.2, 0.6) and HOURS == (1, 3, 12)
    assert {d.name for d in DEFECTS if d.strengths == HOURS} == {
        "actions_hours_later", "impressions_hours_later", "lag_grown"}  # fmt: skip


@pytest.mark.parametrize("name", BY_NAME)
def test_a_defect_changes_the_days_that_it_may_and_the_same_with_the_same_seed(name: str) -> None:
    strength = BY_NAME[name].strengths[-1]
    before, after = random_log(), planted(name, strength)
    assert changed(after, planted(name, strength)) == []
    assert changed(before, after)
    for table in changed(before, after):
        assert getattr(after, table).column_names == getattr(before, table).column_names
    if name in NOT_BY_DAYS:
        return
    for table in ("impressions", "actions"):
        first, spoiled = (
            getattr(log, table).filter(pa.array(log.day_of(table) < before.first_day))
            for log in (before, after)
        )
        assert spoiled.equals(first)
    outside = pa.array(before.day_of("users") >= before.end_day)
    assert after.users.filter(outside).equals(before.users.filter(outside))


EFFECTS = [
    ("exposures_twice", "impressions.pin_repeated", 0.0, 0.6 / 1.6),
    ("negatives_lost", "impressions.pins_per_request", 5.0, 1 + 4 * 0.4),
    ("position_constant", "impressions.place_repeated", 0.0, 0.6 * 0.8),
    ("sequence_reversed", "named.repin.shown", 1.0, 0.42),
    ("columns_swapped", "named.repin.own", 1.0, 0.4),
    ("leak_through_actions", "actions.repin.name_a_request", 1.0, 1 / 1.6),
    ("action_type_gone", "actions.repin.per_request", 1.0, 0.4),
    ("lag_gone", "actions.repin.known_at_once", 0.0, 0.6),
    ("user_embeddings_zero", "users.zero_embedding", 0.0, 0.6),
    ("user_embeddings_equal", "users.embedding_repeated", 0.0, 0.58),
    ("holdout_requests_lost", "named.repin.known", 1.0, 1 - 0.6 / 2),
    ("actions_tripled", "actions.repin.per_request", 1.0, 2.2),
]


@pytest.mark.parametrize(("name", "measure", "clean", "spoiled"), EFFECTS)
def test_how_strong_a_strong_defect_is(
    tmp_path: Path, name: str, measure: str, clean: float, spoiled: float
) -> None:
    assert number(random_log(), tmp_path, measure) == pytest.approx(clean, abs=0.01)
    after = number(planted(name), tmp_path, measure)
    assert after == pytest.approx(spoiled, abs=0.08)


def test_hours_bots_and_shares_are_as_strong_as_they_say() -> None:
    before, after = random_log(), planted("actions_hours_later", 3)
    moved = np.asarray(after.actions["acted_at"]) - np.asarray(before.actions["acted_at"])
    assert set(moved.tolist()) == {0, 3 * 3_600_000}
    assert (moved[before.inside("actions")] > 0).all()
    for name, acts in (("bots_with_actions", True), ("bots_without_actions", False)):
        after = planted(name)
        extra = len(after.impressions) - len(before.impressions)
        assert extra == pytest.approx(0.6 * before.inside("impressions").sum(), abs=1)
        assert (len(after.actions) - len(before.actions)) == (extra if acts else 0)
    for share in SHARES:
        explores = planted("all_exploration", share).column("impressions", "is_exploration")
        found = explores[before.inside("impressions")].mean()
        assert found == pytest.approx(share, abs=0.03)


def test_embeddings_that_are_turned_keep_their_angles() -> None:
    first, second = (
        np.array(log.pins["embedding"].to_pylist())
        for log in (random_log(), planted("pin_embeddings_rotated", 1.0))
    )
    assert np.allclose(first @ first.T, second @ second.T, atol=1e-4)
    assert not np.allclose(first, second, atol=0.1)
