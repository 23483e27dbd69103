"""The numbers of days, against a log small enough to count by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.time import DAY_MS, HOUR_MS
from support.log_days import FIRST_DAY, WIDTH, actions, impressions, random_log, users
from validation.data_gate.days import measure
from validation.data_gate.days.measure import (
    OTHERS,
    DayRows,
    measure_days,
    open_engine,
    summarise_users,
)
from validation.data_gate.days.queries import NUM_FOLLOWED, NUM_PROJECTIONS

SHELF = 'she"lf; drop table i'  # a category may have any name
NOON = FIRST_DAY * DAY_MS + 12 * HOUR_MS
NEXT = NOON + DAY_MS

SHOWN = impressions(
    [
        ("a", 1, 10, NOON, 0),
        ("a", 1, 11, NOON, 1),
        ("a", 1, 11, NOON, 1),  # the pin and its place come again
        ("b", 2, 10, NOON + HOUR_MS, 0),
        ("c", 1, 12, NEXT, 0),
        ("c", 1, 13, NEXT, 3),  # places 0 and 3: two of four are used
    ],
    **{SHELF: ["x", "x", "y", None, "x", "x"]},
)
ACTED = actions(
    [
        (1, 11, "repin", NOON + 5000, "a"),
        (2, 99, "repin", NOON + HOUR_MS + 5000, "b"),  # was not shown
        (3, 10, "repin", NOON - 7000, "a"),  # another's request, and before it
        (1, 12, "click", NOON + 1, None),  # within a day before it was shown
        (1, 12, "click", NEXT + 5000, None),  # five seconds after it was shown
    ]
)
VECTORS = np.outer([1.0, 1.0, 0.0, 1.0], np.eye(1, WIDTH))
USERS = users(
    [(1, FIRST_DAY - 40, "core"), (1, FIRST_DAY + 1, "core"), (2, FIRST_DAY, "new"),
     (3, FIRST_DAY, "core")], VECTORS,
)  # fmt: skip


def measured(
    scratch: Path,
    num_days: int = 2,
    first: int = FIRST_DAY,
    categories: Sequence[str] = (SHELF,),
    **changes: list[pa.Table],
) -> dict[int, DayProfile]:
    rows = {"impressions": [SHOWN], "actions": [ACTED], "users": [USERS]} | changes
    with open_engine(str(scratch)) as engine:
        found = measure_days(engine, DayRows(**rows), first, FIRST_DAY + num_days, categories)
    return {profile.day: profile for profile in found}


EXPECTED = {
    "impressions.rows": (4, 2),
    "impressions.requests": (2, 1),
    "impressions.users": (2, 1),
    "impressions.pins_per_request": (2.0, 2.0),
    "impressions.different_pins": (0.5, 1.0),
    "impressions.pin_repeated": (0.25, 0.0),
    "impressions.place_repeated": (0.25, 0.0),
    "impressions.places_used": (0.75, 2.0),
    "impressions.mean_position": (0.5, 1.5),
    "impressions.without_propensity": (1.0, 1.0),
    "impressions.lag_median_s": (1.0, 1.0),
    "impressions.known_at_once": (0.0, 0.0),
    "impressions.known_after_an_hour": (0.0, 0.0),
    "named.repin.after_an_hour": (0.0, None),
    "impressions.busiest_user": (0.75, 1.0),
    "impressions.busiest_pin": (0.5, 0.5),
    "impressions.acted_upon_before": (0.0, 0.5),
    "impressions.of_idle_users": (0.0, 0.0),
    "actions.repin.rows": (3, None),
    "actions.repin.per_request": (1.5, None),
    "actions.click.rows": (1, 1),
    "named.repin.known": (1.0, None),
    "named.repin.shown": (2 / 3, None),
    "named.repin.own": (2 / 3, None),
    "named.repin.early": (1 / 3, None),
    "unnamed.click.shown_before": (0.0, 1.0),
    "users.without_row": (0.0, 0.0),
    "users.row_over_28_days": (0.5, 0.0),
    "users.zero_embedding": (0.5, 0.0),
    "users.like_themselves": (None, 1.0),
    f"impressions.{SHELF}.tells": (1 - 2 / 4, None),  # all of it, of which chance tells a half
}


def test_numbers_counted_by_hand(tmp_path: Path) -> None:
    found = measured(tmp_path)
    for place in (0, 1):
        numbers = found[FIRST_DAY + place].numbers
        values = {name: numbers[name].value for name in EXPECTED if name in numbers}
        expected = {name: of[place] for name, of in EXPECTED.items() if of[place] is not None}
        assert values == pytest.approx(expected)


def test_counts_by_hour_surface_state_and_category(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = measured(tmp_path)[FIRST_DAY].counts
    assert counts == {
        "impressions.hour": {"12": 1, "13": 1},
        "actions.hour": {"11": 1, "12": 2, "13": 1},
        "impressions.surface": {"home": 2},
        "users.state": {"core": 1, "new": 1},
        "actions.kind_and_state": {
            "click core": 1,
            "repin (no row)": 1,
            "repin core": 1,
            "repin new": 1,
        },
        f"impressions.{SHELF}": {"x": 2, "y": 1, "(null)": 1},
    }
    monkeypatch.setattr(measure, "MOST_KEYS", 1)  # the rarest of many count together
    day = measured(tmp_path)[FIRST_DAY]
    assert day.counts[f"impressions.{SHELF}"] == {"x": 2, OTHERS: 2}
    assert day.acted_upon[f"impressions.{SHELF}"] == {"x": 2, OTHERS: 1}


def test_rows_in_parts_and_in_any_order_give_the_same_numbers(tmp_path: Path) -> None:
    log = random_log()
    shown = log.impressions.take(np.random.default_rng(2).permutation(len(log.impressions)))
    parts = [shown.slice(start, 300) for start in range(0, len(shown), 300)]
    rows = {"first": log.first_day, "actions": [log.actions], "users": [log.users]}
    whole, of_parts = (
        measured(tmp_path, 5, categories=["shelf"], impressions=each, **rows)
        for each in ([log.impressions], parts)
    )
    assert whole == of_parts and len(whole) == 4


def test_a_day_without_impressions_has_no_profile_and_users_without_rows_are_counted(
    tmp_path: Path,
) -> None:
    assert list(measured(tmp_path, impressions=[SHOWN.slice(0, 4)])) == [FIRST_DAY]
    found = measured(tmp_path, users=[USERS.slice(0, 0)])[FIRST_DAY]
    assert found.numbers["users.without_row"].value == 1.0
    assert "users.row_age_days" not in found.numbers
    assert found.counts["users.state"] == {"(no row)": 2}


def test_a_day_looks_back_to_the_day_before_and_no_further(tmp_path: Path) -> None:
    """Otherwise a day would have other numbers where more days are measured with it."""
    (second,) = measured(tmp_path, first=FIRST_DAY + 1).values()
    assert second.numbers["impressions.acted_upon_before"].value == 0.5
    shown = impressions(
        [("old", 1, 10, NOON, 0), ("new", 1, 10, NEXT + DAY_MS, 0)], **{SHELF: ["x", "x"]}
    )
    acted = actions([(1, 10, "repin", NEXT + DAY_MS, "old"), (1, 10, "repin", NEXT, "old")])
    found = measured(tmp_path, 3, impressions=[shown], actions=[acted])
    assert found[FIRST_DAY + 2].numbers["named.repin.known"].value == 0


def test_the_hashes_of_ids_are_the_smallest_and_never_change(tmp_path: Path) -> None:
    """Kept for a year, they must be the same in every release of the database."""
    rows = [(f"r{n}", 4 * n - 5, n % 7, NOON, 0) for n in range(1_000)]
    shown = impressions(rows, **{SHELF: ["x"] * 1_000})
    followed = measured(tmp_path, impressions=[shown])[FIRST_DAY].followed
    assert [len(followed[name]) for name in ("users", "pins")] == [NUM_FOLLOWED, 7]
    assert all(list(ids) == sorted(ids) for ids in followed.values())
    assert followed["users"][:2] == (1671821852847242, 2501783700239591)
    assert followed["pins"][:2] == (490365701847424976, 510164068333812098)


def test_lengths_and_angles_of_the_projections_are_those_of_the_embeddings() -> None:
    """And a row has the same numbers whichever rows it came with.

    A matrix product in single precision rounds by the number of rows, on some processors.
    """
    vectors = np.random.default_rng(5).normal(size=(3_000, WIDTH))
    rows = users([(n // 3, n, "core") for n in range(3_000)], vectors)
    found = summarise_users([rows])
    for size in (64, 1_001):
        parts = [rows.slice(start, size) for start in range(0, 3_000, size)]
        assert summarise_users(parts).equals(found)
    projected = np.stack([found[f"q{n}"].to_numpy() for n in range(NUM_PROJECTIONS)], axis=1)
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(found["length"].to_numpy(), lengths, rtol=1e-6)
    assert np.mean(np.linalg.norm(projected, axis=1) / lengths) == pytest.approx(1, abs=0.05)
    pairs = vectors[:-1] * vectors[1:]
    cosines = pairs.sum(axis=1) / (lengths[:-1] * lengths[1:])
    is_same = np.arange(1, 3_000) % 3 != 0
    likeness = found["likeness"].to_numpy()[1:]
    assert np.isnan(likeness[~is_same]).all()
    assert np.mean(likeness[is_same] - cosines[is_same]) == pytest.approx(0, abs=0.02)
