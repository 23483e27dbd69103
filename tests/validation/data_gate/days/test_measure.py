"""The numbers of days, against a log small enough to count by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.time import DAY_MS, HOUR_MS
from support.log_days import FIRST_DAY, WIDTH, actions, impressions, random_log, users
from support.planted import LogRows
from validation.data_gate.days import measure, queries
from validation.data_gate.days.limits import shares_told
from validation.data_gate.days.measure import (
    OTHERS,
    DayRows,
    measure_days,
    open_engine,
    summarise_users,
)
from validation.data_gate.days.queries import NUM_FOLLOWED, NUM_PROJECTIONS

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
    shelf=["x", "x", "y", None, "x", "x"],
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
VECTORS = np.zeros((4, WIDTH))
VECTORS[:, 0] = [1.0, 1.0, 0.0, 1.0]
USERS = users(
    [(1, FIRST_DAY - 40, "core"), (1, FIRST_DAY + 1, "core"), (2, FIRST_DAY, "new"),
     (3, FIRST_DAY, "core")], VECTORS,
)  # fmt: skip


def profiles_of(
    scratch: Path, num_days: int, *tables: object, first: int = FIRST_DAY,
    categories: Sequence[str] = (),
) -> list[DayProfile]:  # fmt: skip
    with open_engine(str(scratch)) as engine:
        rows = DayRows(*tables)
        return list(measure_days(engine, rows, first, FIRST_DAY + num_days, categories))


def measured(
    tmp_path: Path, num_days: int = 2, first: int = FIRST_DAY, column: str = "shelf",
    **changes: object,
) -> dict[int, DayProfile]:  # fmt: skip
    rows = {"impressions": [SHOWN], "actions": [ACTED], "users": [USERS]} | changes
    found = profiles_of(tmp_path, num_days, *rows.values(), first=first, categories=[column])
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
    assert counts["impressions.hour"] == {"12": 1, "13": 1}
    assert counts["impressions.surface"] == {"home": 2}
    assert counts["users.state"] == {"core": 1, "new": 1}
    assert counts["impressions.shelf"] == {"x": 2, "y": 1, "(null)": 1}
    monkeypatch.setattr(measure, "MOST_KEYS", 1)  # the rarest of many count together
    day = measured(tmp_path)[FIRST_DAY]
    assert day.counts["impressions.shelf"] == {"x": 2, OTHERS: 2}
    assert day.acted_upon["impressions.shelf"] == {"x": 2, OTHERS: 1}


def of_log(tmp_path: Path, log: LogRows, *shown: pa.Table) -> list[DayProfile]:
    tables = (shown or [log.impressions], [log.actions], [log.users])
    num_days = log.end_day - FIRST_DAY
    return profiles_of(tmp_path, num_days, *tables, first=log.first_day, categories=["shelf"])


def test_rows_in_parts_and_in_any_order_give_the_same_numbers(tmp_path: Path) -> None:
    log = random_log()
    shown = log.impressions.take(np.random.default_rng(2).permutation(len(log.impressions)))
    parts = [shown.slice(start, 300) for start in range(0, len(shown), 300)]
    whole = of_log(tmp_path, log)
    assert whole == of_log(tmp_path, log, *parts) and len(whole) == 4


def test_a_day_without_impressions_has_no_profile_and_users_without_rows_are_counted(
    tmp_path: Path,
) -> None:
    assert list(measured(tmp_path, impressions=[SHOWN.slice(0, 4)])) == [FIRST_DAY]
    found = measured(tmp_path, users=[USERS.slice(0, 0)])[FIRST_DAY]
    assert found.numbers["users.without_row"].value == 1.0
    assert "users.row_age_days" not in found.numbers
    assert found.counts["users.state"] == {"(no row)": 2}


def test_a_column_with_any_name_is_a_category(tmp_path: Path) -> None:
    name = 'she"lf; drop table i'
    shown = SHOWN.rename_columns([*SHOWN.column_names[:-1], name])
    found = measured(tmp_path, column=name, impressions=[shown])
    assert found[FIRST_DAY].counts[f"impressions.{name}"]["x"] == 2


def test_a_category_that_tells_the_label_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    log = random_log()
    shown, acted = (
        list(zip(rows["request_id"].to_pylist(), rows["pin_id"].to_pylist(), strict=True))
        for rows in (log.impressions, log.actions)
    )
    leak = {"shelf": ["yes" if key in set(acted) else "no" for key in shown]}
    shares = []
    for spoiled in (log, log.set("impressions", **leak)):
        found = of_log(tmp_path, spoiled)
        shares.append([day.numbers["impressions.shelf.tells"].value for day in found])
        together = [shares_told("impressions.shelf", [day], 1)[0] for day in found]
        assert together == pytest.approx(shares[-1])
    assert max(shares[0]) < 0.03
    assert shares[1] == pytest.approx([1.0] * 4, abs=0.01)


def test_a_day_looks_back_to_the_day_before_and_no_further(tmp_path: Path) -> None:
    """Otherwise a day would have other numbers where more days are measured with it."""
    (second,) = measured(tmp_path, first=FIRST_DAY + 1).values()
    assert second.numbers["impressions.acted_upon_before"].value == 0.5
    shown = impressions(
        [("old", 1, 10, NOON, 0), ("new", 1, 10, NEXT + DAY_MS, 0)], shelf=["x", "x"]
    )
    acted = actions([(1, 10, "repin", NEXT + DAY_MS, "old"), (1, 10, "repin", NEXT, "old")])
    found = measured(tmp_path, 3, impressions=[shown], actions=[acted])
    assert found[FIRST_DAY + 2].numbers["named.repin.known"].value == 0


def test_the_hashes_of_ids_are_the_smallest_and_never_change(tmp_path: Path) -> None:
    """Kept for a year, they must be the same in every release of the database."""
    shown = impressions([(f"r{n}", 4 * n - 5, n % 7, NOON, 0) for n in range(1_000)])
    followed = measured(tmp_path, impressions=[shown.append_column("shelf", [["x"] * 1_000])])
    users_of_day = followed[FIRST_DAY].followed["users"]
    assert users_of_day == tuple(sorted(map(hashed, range(-5, 3_995, 4)))[:NUM_FOLLOWED])
    assert followed[FIRST_DAY].followed["pins"] == tuple(sorted(map(hashed, range(7))))


def hashed(number: int) -> int:
    """Return what the query makes of an id; a remainder has its dividend's sign there."""
    prime = (1 << 61) - 1
    first = remainder(number * 6364136223846793005 + 1442695040888963407, prime)
    return remainder((first ^ (first >> 29)) * 3202034522624059733, prime)


def remainder(dividend: int, divisor: int) -> int:
    return dividend % divisor if dividend >= 0 else -(-dividend % divisor)


NUM_ROWS, WIDE = 3_000, 64


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    draw = np.random.default_rng(5)
    vectors = draw.normal(size=(NUM_ROWS, WIDE)).astype(np.float32)
    return pa.table(
        {
            "user_id": np.arange(NUM_ROWS) // 3,
            "as_of": np.arange(NUM_ROWS),
            "state": ["new", "core", "casual"] * (NUM_ROWS // 3),
            "embedding": pa.FixedSizeListArray.from_arrays(vectors.ravel(), WIDE),
        }
    )


@pytest.mark.parametrize("num_per_part", [1, 64, 1_001])
def test_a_row_has_the_same_numbers_whichever_rows_it_came_with(
    rows: pa.Table, num_per_part: int
) -> None:
    """A matrix product in single precision rounds by the number of rows, on some processors."""
    parts = [rows.slice(start, num_per_part) for start in range(0, NUM_ROWS, num_per_part)]
    assert summarise_users(parts).equals(summarise_users([rows]))


def test_lengths_and_angles_of_the_projections_are_those_of_the_embeddings(rows: pa.Table) -> None:
    found = summarise_users([rows])
    vectors = np.stack(rows["embedding"].to_numpy()).astype(np.float64)
    projected = np.stack([found[f"q{n}"].to_numpy() for n in range(NUM_PROJECTIONS)], axis=1)
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(found["length"].to_numpy(), lengths, rtol=1e-6)
    assert np.mean(np.linalg.norm(projected, axis=1) / lengths) == pytest.approx(1, abs=0.05)
    pairs = vectors[:-1] * vectors[1:]
    cosines = pairs.sum(axis=1) / (lengths[:-1] * lengths[1:])
    is_same = np.arange(1, NUM_ROWS) % 3 != 0
    likeness = found["likeness"].to_numpy()[1:]
    assert np.isnan(likeness[~is_same]).all()
    assert np.mean(likeness[is_same] - cosines[is_same]) == pytest.approx(0, abs=0.02)


# Label rates of single segments and surfaces.
def rated(
    scratch: Path, shown: list, acted: list, states: list[str], surfaces: list[str], num_days: int
) -> list[DayProfile]:
    """Return the days of a log whose users 0, 1, ... have these states and see these surfaces."""
    rows = [(user, FIRST_DAY + day, state) for user, state in enumerate(states)
            for day in range(-1, num_days)]  # fmt: skip
    vectors = np.random.default_rng(5).normal(size=(len(rows), WIDTH))
    seen = impressions(shown, surface=[surfaces[user] for _, user, *_ in shown])
    return profiles_of(scratch, num_days, [seen], [actions(acted)], [users(rows, vectors)])


RATED = [
    ("a", 0, 10, NOON, 0),
    ("a", 0, 10, NOON, 1),  # the pin comes again
    ("b", 1, 10, NOON, 0),
    ("b", 1, 11, NOON, 1),
    ("c", 1, 11, NOON + HOUR_MS, 0),
]
RATED_ACTIONS = [
    (0, 10, "save", NOON + 5000, "a"),
    (0, 10, "save", NOON + 6000, "a"),  # the same again
    (1, 10, "save", NOON - 5000, "b"),  # before it was shown
    (1, 99, "save", NOON + 5000, "b"),  # was not shown
    (1, 11, "click", NOON + HOUR_MS + 1, None),  # the newest of two that showed it
    (1, 10, "click", NOON + DAY_MS + 1, None),  # more than a day later
    (1, 11, "repin", NOON + 13 * HOUR_MS, "b"),  # counts on its own day, the next
]
RATES = {
    "core.save": (1 / 2, 2),  # a pin that comes again in its request was acted upon once
    "new.save": (0.0, 3),
    "core.click": (0.0, 2),
    "new.click": (1 / 3, 3),
}


def test_rates_counted_by_hand(tmp_path: Path) -> None:
    shown = [*RATED, ("d", 0, 10, NOON + DAY_MS, 0), ("e", 1, 10, NOON + DAY_MS, 0)]
    first, second = rated(tmp_path, shown, RATED_ACTIONS, ["core", "new"], ["home", "search"], 2)
    for by, core, new in (
        ("users.state", "core", "new"),
        ("impressions.surface", "home", "search"),
    ):
        for name, expected in RATES.items():
            value, _, kind = name.replace("core", core).replace("new", new).partition(".")
            number = first.numbers[f"{by}.{value}.{kind}.label_rate"]
            assert (number.value, number.num) == pytest.approx(expected), (by, name)
        rates = [second.numbers[f"{by}.{value}.repin.label_rate"].value for value in (core, new)]
        assert rates == [0.0, 1.0]


def test_which_segments_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only one has the rate of all rows; of many, those with most impressions count."""
    (first,) = rated(tmp_path, RATED, RATED_ACTIONS, ["core", "core"], ["home", "home"], 1)
    assert not [name for name in first.numbers if name.endswith("label_rate")]
    most = queries.LABEL_RATES.replace(f"<= {queries.MOST_VALUES}", "<= 1")
    monkeypatch.setattr(queries, "NUMBERS", (*queries.NUMBERS[:1], most))
    (first,) = rated(tmp_path, RATED, RATED_ACTIONS, ["core", "new"], ["home", "search"], 1)
    names = {name for name in first.numbers if name.endswith("label_rate")}
    assert {name.split(".")[2] for name in names} == {"new", "search"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_impressions_at_once_the_order_of_rows_does_not_choose(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    rows, surfaces = [("a", 0, 10, NOON, 0), ("b", 0, 10, NOON, 0)], ["search", "home"]
    shown = impressions([rows[n] for n in order], surface=[surfaces[n] for n in order])
    acted = actions([(0, 10, "click", NOON + 1, None)])
    people = users([(0, FIRST_DAY, "core")], np.ones((1, WIDTH)))
    (first,) = profiles_of(tmp_path, 1, [shown], [acted], [people])
    rates = {s: first.numbers[f"impressions.surface.{s}.click.label_rate"].value for s in surfaces}
    assert rates == {"search": 0.0, "home": 1.0}
