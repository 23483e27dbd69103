"""How far a day may be from the days before."""

from collections.abc import Sequence

import numpy as np
import pytest

from pipelines.contracts.day_profile import DayProfile, Number
from support.log_days import FIRST_DAY, profiles
from validation.data_gate.days.gate import describe
from validation.data_gate.days.limits import (
    FEWEST_DAYS,
    MARGIN,
    Deviation,
    deviations,
    eta_squared,
    kind_of,
    known_ids,
    share_back,
)
from validation.data_gate.days.queries import NUM_FOLLOWED

SHARE, ROWS = "named.repin.known", "impressions.rows"
SHELF, HOUR = "impressions.shelf", "impressions.hour"


def days(num_days: int, first: int = FIRST_DAY, **numbers: float) -> list[DayProfile]:
    named = {name.replace("__", "."): value for name, value in numbers.items()}
    return profiles(lambda place: {SHARE: 1.0, ROWS: 10_000.0} | named, num_days, first)


def later(**numbers: float) -> list[DayProfile]:
    return days(7, FIRST_DAY + 56, **numbers)


def told(found: Sequence[Deviation]) -> set[tuple[str, str]]:
    return {(each.name, each.level) for each in found if each.times_limit > 1}


def of(found: Sequence[Deviation], name: str, level: str) -> Deviation:
    (one,) = [each for each in found if (each.name, each.level) == (name, level)]
    return one


def both(name: str) -> set[tuple[str, str]]:
    return {(name, "day"), (name, "run")}


@pytest.mark.parametrize(
    ("now", "factor", "expected"),
    [
        (later(named__repin__known=0.9), 1.0, both(SHARE)),
        (later(named__repin__known=0.985, impressions__rows=9_000.0), 1.0, set()),  # floors
        (later(named__repin__known=0.97), 1.0, {(SHARE, "run")}),
        (later(named__repin__known=0.97), 2.0, set()),  # a recipe may widen limits
    ],
)
def test_a_number_that_never_moved_has_a_narrow_limit(
    now: list[DayProfile], factor: float, expected: set
) -> None:
    found = deviations(days(56), now, factor)
    assert told(found) == expected
    floor = kind_of(SHARE).run_floor * (1 + FEWEST_DAYS / 56)
    assert of(found, SHARE, "run").limit == pytest.approx(factor * floor)


def test_a_number_that_moves_by_itself_has_a_wide_limit() -> None:
    rng = np.random.default_rng(1)
    restless = profiles(lambda place: {SHARE: float(rng.uniform(0.4, 0.9))}, 56)
    day = of(deviations(restless, later(named__repin__known=0.3)), SHARE, "day")
    assert day.times_limit < 1
    largest = max(abs(p.numbers[SHARE].value - day.usual) for p in restless)
    assert day.limit >= MARGIN * largest * 0.6  # weekdays take some of it


def test_weekdays_are_told_apart() -> None:
    def weekend(place: int) -> dict[str, float]:
        return {ROWS: 10_000.0 if (FIRST_DAY + place) % 7 < 5 else 30_000.0}

    history = profiles(weekend, 56)
    assert told(deviations(history, profiles(weekend, 7, FIRST_DAY + 56))) == set()
    assert of(deviations(history, later()), ROWS, "day").day % 7 in (5, 6)


def test_a_type_without_rows_is_a_number_too_and_a_rare_one_comes_in_bursts() -> None:
    repins, saves = "actions.repin.rows", "actions.save.rows"
    found = deviations(days(56, actions__repin__rows=900.0), later())
    assert told(found) == both(repins)
    assert of(found, repins, "run").effect < -5

    def rare(num_days: int, value: float, first: int = FIRST_DAY) -> list[DayProfile]:
        numbers = {saves: Number(value=value, num=int(value))} if value else {}
        return [DayProfile(day=first + n, numbers=numbers, counts={}) for n in range(num_days)]

    assert told(deviations(rare(56, 13.0), rare(7, 25.0, FIRST_DAY + 56))) == set()
    assert (saves, "run") in told(deviations(rare(56, 13.0), rare(7, 0, FIRST_DAY + 56)))


SEGMENT = "users.state.new.save.label_rate"


@pytest.mark.parametrize(
    ("shown", "now", "is_told"), [(400, 0.05, True), (400, 0.15, False), (40, 0.0, False)]
)
def test_a_label_rate_that_falls_to_a_third_is_told_where_it_has_enough_positives(
    shown: int, now: float, is_told: bool
) -> None:
    def rated(num: int, first: int, value: float) -> list[DayProfile]:
        numbers = {SEGMENT: Number(value=value, num=shown)}
        return [DayProfile(day=first + n, numbers=numbers, counts={}) for n in range(num)]

    found = deviations(rated(44, FIRST_DAY, 0.15), rated(14, FIRST_DAY + 44, now))
    assert {name for name, _ in told(found)} == ({SEGMENT} if is_told else set())
    assert not any(each.is_harmful for each in found)
    if is_told:
        day = of(found, SEGMENT, "day")
        assert np.exp([day.found, day.usual]) == pytest.approx([0.05, 0.15], rel=0.1)
        assert describe(day).startswith(f"{SEGMENT}: 0.05")


def test_a_short_history_judges_nothing_and_a_long_one_is_cut() -> None:
    short = days(FEWEST_DAYS - 1, FIRST_DAY + 57 - FEWEST_DAYS)
    assert deviations(short, later(named__repin__known=0.0)) == deviations(days(56), []) == ()
    long_ago = days(100, FIRST_DAY - 200, named__repin__known=0.0)
    assert told(deviations([*long_ago, *days(56)], later())) == set()


def counted(name: str, before: dict[str, int], now: dict[str, int]) -> tuple[Deviation, ...]:
    history, judged = (
        [day.model_copy(update={"counts": {name: counts}}) for day in of_days]
        for of_days, counts in ((days(56), before), (later(), now))
    )
    return deviations(history, judged)


EVEN = {str(hour): 100 for hour in range(24)}


@pytest.mark.parametrize(
    ("name", "before", "now", "expected"),
    [
        (SHELF, {"a": 700, "b": 300}, {"a": 690, "b": 310}, set()),
        (SHELF, {"a": 700, "b": 300}, {"a": 50, "b": 950}, {(SHELF, "run")}),
        (HOUR, {"20": 300, "21": 400, "22": 300}, {"23": 300, "0": 400, "1": 300},
         both(HOUR) | both(f"{HOUR}.centre")),
        (HOUR, EVEN | {"3": 101}, EVEN | {"15": 101}, set()),  # spread over the day
        (HOUR, {"23": 600, "0": 400}, {"23": 400, "0": 600}, set()),  # midnight is no jump
    ],
)  # fmt: skip
def test_other_shares_and_other_hours_are_told(
    name: str, before: dict[str, int], now: dict[str, int], expected: set
) -> None:
    found = counted(name, before, now)
    assert told(found) == expected
    has_centre = name == HOUR and "3" not in before
    assert (f"{HOUR}.centre" in {each.name for each in found}) == has_centre


def test_a_value_never_seen_a_null_and_the_hour_of_events_are_numbers() -> None:
    found = counted(SHELF, {"a": 700, "b": 300}, {"a": 600, "b": 150, "c": 200, "(null)": 50})
    for name, share in ((f"{SHELF}.never_seen", 0.25), (f"{SHELF}.null", 0.05)):
        assert of(found, name, "run").found == pytest.approx(share)
        assert (name, "run") in told(found)
    usual = {"20": 300, "21": 400, "22": 300}
    moved = of(counted(HOUR, usual, {"0": 900}), f"{HOUR}.centre", "day")
    assert (moved.usual % 24, moved.effect) == pytest.approx((21.5, 3))


# Whether a category begins to give the label away, over all days.
ROWS_A_DAY, RATE, NUM_VALUES = 1_500, 0.06, 8


def telling(num: int, first_day: int, seed: int, leaking: float = 0.0) -> list[DayProfile]:
    """Return days whose category says nothing, except for a share of the rows: it is the label."""
    rng, made = np.random.default_rng(seed), []
    for day in range(first_day, first_day + num):
        is_hit = rng.random(ROWS_A_DAY) < RATE
        value = rng.integers(0, NUM_VALUES, ROWS_A_DAY)
        is_leaking = rng.random(ROWS_A_DAY) < leaking
        value = np.where(is_leaking, np.where(is_hit, 0, 1), value)
        counts, hits = (
            {SHELF: {str(key): int(n) for key, n in enumerate(np.bincount(rows, minlength=8))}}
            for rows in (value, value[is_hit])
        )
        rows = {ROWS: Number(value=ROWS_A_DAY, num=ROWS_A_DAY)}
        made.append(DayProfile(day=day, numbers=rows, counts=counts, acted_upon=hits))
    return made


def test_eta_squared_is_the_share_of_the_variance_that_the_values_explain() -> None:
    rng = np.random.default_rng(3)
    value, is_hit = rng.integers(0, 5, 400), rng.random(400) < 0.2
    is_hit |= (value == 2) & (rng.random(400) < 0.5)
    means = np.array([is_hit[value == key].mean() for key in range(5)])[value]
    between = ((means - is_hit.mean()) ** 2).sum() / ((is_hit - is_hit.mean()) ** 2).sum()
    rows, hits = (np.bincount(of, minlength=6).astype(float) for of in (value, value[is_hit]))
    assert eta_squared(rows, hits) == pytest.approx(between - 4 / 400)
    assert eta_squared(rows, rows) == eta_squared(rows, 0 * rows) == 0.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("before", "now", "is_told"), [(0, 0, False), (0, 0.2, True), (0.4, 0, False)]
)
def test_a_leak_in_a_fifth_of_the_rows_harms_and_chance_and_less_are_not_told(
    seed: int, before: float, now: float, is_told: bool
) -> None:
    history, judged = telling(56, FIRST_DAY, seed, before), telling(21, FIRST_DAY + 56, 99, now)
    found = of(deviations(history, judged), f"{SHELF}.tells", "run")
    assert (found.times_limit > 1, found.is_harmful) == (is_told, is_told)
    assert found.effect >= 0


# Whether users come back.
NUM_DAYS, FIRST_JUDGED = 70, 56


def day_of(day: int, users: np.ndarray) -> DayProfile:
    """Return a day of which nothing but the users' hashes is known."""
    kept = tuple(np.sort(users)[:NUM_FOLLOWED].tolist())
    return DayProfile(day=day, numbers={}, counts={}, followed={"users": kept} if kept else {})


def coming(num_users: int, lost: float = 0.0, lost_from: int = FIRST_JUDGED) -> list[DayProfile]:
    """Each user comes every day with a chance of one in three; from a day on, some never do."""
    rng, made = np.random.default_rng(4), []
    ids = rng.choice(1 << 60, num_users, replace=False)
    stays = rng.random(num_users) >= lost
    for day in range(NUM_DAYS):
        comes = rng.random(num_users) < 1 / 3
        made.append(day_of(day, ids[comes & stays] if day >= lost_from else ids[comes]))
    return made


def back(made: list[DayProfile], first: int = FIRST_JUDGED) -> list[Deviation]:
    return list(deviations(made[:first], made[first:]))


@pytest.mark.parametrize("num_users", [400, 20_000])
def test_a_fifth_of_the_users_is_missed(num_users: int) -> None:
    """Also where the days' numbers of users would be lost in what volumes may move."""
    (sound,), (spoiled,) = back(coming(num_users)), back(coming(num_users, lost=0.2))
    assert sound.name == spoiled.name == "impressions.users_come_back"
    assert sound.times_limit < 0.5 and spoiled.times_limit > 1
    assert spoiled.found == pytest.approx(0.8 * spoiled.usual, abs=0.06)


def test_a_loss_of_half_harms_one_in_the_middle_is_seen_and_a_gain_is_not_told() -> None:
    assert back(coming(2_000, lost=0.5))[0].is_harmful
    (found,) = deviations(coming(2_000)[:42], coming(2_000, 0.3, lost_from=50)[42:])
    assert found.times_limit > 1 and 50 <= found.day <= 56
    few, full = coming(2_000, lost=0.2, lost_from=0), coming(2_000)
    assert back([*few[:FIRST_JUDGED], *full[FIRST_JUDGED:]])[0].times_limit < 1
    odd = coming(2_000, lost=0.2)  # a day of three users does not end the watch
    odd[30] = day_of(30, np.array([5, 1 << 59, 1 << 60]))
    odd[60] = DayProfile(day=60, numbers={}, counts={})
    assert back(odd)[0].times_limit > 1


def test_nothing_is_said_of_few_days_or_few_users() -> None:
    assert back(coming(400), 30) == back(coming(40)) == []
    sixty = frozenset(range(60))
    for known, found in ((range(30), (1.0, 60)), (range(28), None), (range(20, 30), None)):
        assert share_back(dict.fromkeys(known, sixty), 28, 2) == found


def test_ids_are_compared_up_to_what_every_day_knows() -> None:
    """A day of few ids has all of them; of a day of many, those up to the largest are known."""
    largest = 2 * (NUM_FOLLOWED - 1)
    few, many = np.array([1, 5, largest + 1]), np.arange(0, 10 * NUM_FOLLOWED, 2)
    ids = known_ids([day_of(0, few), day_of(1, many)], "users")
    assert ids == {0: {1, 5}, 1: set(range(0, largest + 1, 2))}
