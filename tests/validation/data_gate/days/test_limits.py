"""How far a day may be from the days before."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from pipelines.contracts.day_profile import DayProfile, Number
from support.log_days import FIRST_DAY, profiles
from validation.data_gate.days.limits import (
    FEWEST_DAYS,
    Deviation,
    deviations,
    eta_squared,
    known_ids,
    share_back,
    told_otherwise,
)
from validation.data_gate.days.limits import (
    KIND_AND_STATE as WHO,
)
from validation.data_gate.days.queries import NUM_FOLLOWED

Found = dict[tuple[str, str], Deviation]
Cycle = Sequence[Mapping[str, tuple[float, int] | dict[str, int]]]
SHARE, ROWS = "named.repin.known", "impressions.rows"
REPINS, SAVES = "actions.repin.rows", "actions.save.rows"
SHELF, HOUR, CENTRE = "impressions.shelf", "impressions.hour", "impressions.hour.centre"
FIRST_JUDGED = FIRST_DAY + 56

USUAL = {SHARE: (1.0, 10_000), ROWS: (10_000, 10_000)}
WEEKEND = [{ROWS: (10_000, 10_000)}] * 5 + [{ROWS: (30_000, 30_000)}] * 2
RESTLESS = [{SHARE: (share, 10_000)} for share in (0.4, 0.9, 0.6, 0.8, 0.7)]
SHELVES = {SHELF: {"a": 700, "b": 300}}
EVENING = {HOUR: {"20": 300, "21": 400, "22": 300}}
EVEN = {str(hour): 100 for hour in range(24)}


def days(num: int, first: int, cycle: Cycle) -> list[DayProfile]:
    """Return days of some counts, and of numbers with how many rows each was taken from."""
    made = []
    for day in range(first, first + num):
        of_day = cycle[day % len(cycle)]
        counts = {name: of for name, of in of_day.items() if isinstance(of, dict)}
        numbers = {
            name: Number(value=of[0], num=of[1])
            for name, of in of_day.items()
            if isinstance(of, tuple)
        }
        made.append(DayProfile(day=day, numbers=numbers, counts=counts))
    return made


def found_of(before: Cycle, now: Cycle, num_before: int = 56, factor: float = 1.0) -> Found:
    """Return the deviations of a fortnight by name and level."""
    history = days(num_before, FIRST_JUDGED - num_before, before)
    found = deviations(history, days(14, FIRST_JUDGED, now), factor)
    return {(each.name, each.level): each for each in found}


def told(found: Found) -> set[tuple[str, str]]:
    return {key for key, each in found.items() if each.times_limit > 1}


def both(*names: str) -> set[tuple[str, str]]:
    return {(name, level) for name in names for level in ("day", "run")}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([USUAL], [USUAL | {SHARE: (0.9, 10_000)}], both(SHARE)),
        ([USUAL], [{SHARE: (0.985, 10_000), ROWS: (9_000, 9_000)}], set()),  # floors
        ([USUAL], [USUAL | {SHARE: (0.97, 10_000)}], {(SHARE, "run")}),
        (RESTLESS, [{SHARE: (0.3, 10_000)}], {(SHARE, "run")}),
        (WEEKEND, WEEKEND, set()),
        ([USUAL | {REPINS: (900, 900)}], [USUAL], both(REPINS)),  # no rows of a type are a number
        ([{SAVES: (13, 13)}], [{SAVES: (25, 25)}], set()),  # what is rare comes in bursts
        ([{SAVES: (13, 13)}], [{}], {(SAVES, "run")}),
        ([SHELVES], [{SHELF: {"a": 690, "b": 310}}], set()),
        ([SHELVES], [{SHELF: {"a": 50, "b": 950}}], {(SHELF, "run")}),
        ([SHELVES], [{SHELF: {"a": 600, "b": 150, "c": 200, "(null)": 50}}],
         both(f"{SHELF}.never_seen") | {(SHELF, "run"), (f"{SHELF}.null", "run")}),
        ([{WHO: {"hide core": 970, "hide new": 30}}], [{WHO: {"hide core": 984, "hide new": 16}}],
         {(f"{WHO}.hide new.of_all", "run")}),
        ([{WHO: {"hide core": 995, "hide new": 5}}], [{WHO: {"hide core": 999, "hide new": 1}}],
         set()),  # rarer than one in fifty
        ([EVENING], [{HOUR: {"23": 300, "0": 400, "1": 300}}], both(HOUR, CENTRE)),
        ([{HOUR: EVEN | {"3": 101}}], [{HOUR: EVEN | {"15": 101}}], set()),  # spread over the day
        ([{HOUR: {"23": 600, "0": 400}}], [{HOUR: {"23": 400, "0": 600}}], set()),  # no jump
    ],
)  # fmt: skip
def test_what_the_days_before_do_not_let_expect_is_told(
    before: Cycle, now: Cycle, expected: set
) -> None:
    assert told(found_of(before, now)) == expected


def test_a_limit_is_a_floor_or_as_wide_as_a_number_moves_and_a_recipe_may_widen_it() -> None:
    for factor in (1.0, 2.0):
        found = found_of([USUAL], [USUAL], factor=factor)
        assert found[SHARE, "run"].limit == pytest.approx(0.02 * 1.25 * factor)
    assert found_of(RESTLESS, RESTLESS)[SHARE, "day"].limit > 1.5 * 0.25


def test_a_growth_that_goes_on_is_usual_and_a_loss_in_it_is_not() -> None:
    made = profiles(lambda day: {ROWS: 9000 * 1.006 ** max(0, day - 50)}, 98)
    lost = profiles(lambda day: {ROWS: 9000 * 1.006 ** max(0, day - 50) * 0.6}, 98)
    for judged, is_told in ((made[84:], False), (lost[84:], True)):
        found = {each.level: each for each in deviations(made[:84], judged)}
        assert bool(found["run"].times_limit > 1) == is_told


def test_a_deviation_says_from_what_to_what_and_on_which_day() -> None:
    assert found_of(WEEKEND, [USUAL])[ROWS, "day"].day % 7 in (5, 6)
    assert found_of([USUAL | {REPINS: (900, 900)}], [USUAL])[REPINS, "run"].effect < -5
    moved = found_of([EVENING], [{HOUR: {"0": 900}}])[CENTRE, "day"]
    assert (moved.usual % 24, moved.effect) == pytest.approx((21.5, 3))
    shelves = found_of([SHELVES], [{SHELF: {"a": 600, "b": 150, "c": 200, "(null)": 50}}])
    shares = [shelves[f"{SHELF}.{name}", "run"].found for name in ("never_seen", "null")]
    assert shares == pytest.approx([0.25, 0.05])


def test_a_short_history_judges_nothing_and_a_long_one_is_cut() -> None:
    usual, week = days(56, FIRST_DAY, [USUAL]), days(7, FIRST_JUDGED, [USUAL])
    assert found_of([USUAL], [USUAL], FEWEST_DAYS - 1) == {}
    assert deviations(usual, []) == ()
    long_ago = days(100, FIRST_DAY - 200, [{SHARE: (0.0, 10_000)}])
    assert deviations([*long_ago, *usual], week) == deviations(usual, week) != ()


# Whether a category begins to give the label away, over all days.
def telling(num: int, first_day: int, seed: int, leaking: float) -> list[DayProfile]:
    """Return days whose category says nothing, except for a share of the rows: it is the label."""
    rng, made = np.random.default_rng(seed), []
    for day in range(first_day, first_day + num):
        rows = rng.multinomial(1_500, [1 / 8] * 8)
        hits = rng.binomial(rows, 0.06)
        others = rows - hits
        for value, of in enumerate((hits, others)):
            moved = rng.binomial(of, leaking)
            np.subtract(of, moved, out=of)
            of[value] += moved.sum()
        counts, acted_upon = (
            {SHELF: {str(value): int(num) for value, num in enumerate(of)}}
            for of in (hits + others, hits)
        )
        made.append(DayProfile(day=day, numbers={}, counts=counts, acted_upon=acted_upon))
    return made


@pytest.mark.parametrize("seed", range(3))
def test_a_label_that_leaks_into_a_column_or_no_more_harms_and_chance_is_not_told(
    seed: int,
) -> None:
    for before, now, is_told in ((0, 0, False), (0, 0.2, True), (0.4, 0.4, False), (0.4, 0, True)):
        history, judged = telling(56, FIRST_DAY, seed, before), telling(21, FIRST_JUDGED, 99, now)
        (found,) = (e for e in deviations(history, judged) if e.name == f"{SHELF}.tells")
        assert (found.times_limit > 1, found.risk >= 1) == (is_told, is_told)
        assert found.effect >= 0 and found.limit >= 0.012


def test_a_category_whose_values_all_rise_alike_tells_nothing_otherwise() -> None:
    """Rates of 0.5 and 0.1 become 0.2 and 0.4; both are 0.3 from the 0.5 and 0.1 expected."""
    rows, hits = np.array([1e6, 1e6]), np.array([5e5, 1e5])
    assert told_otherwise(rows, hits * 0.5, rows, hits) == pytest.approx(0, abs=1e-3)
    changed = told_otherwise(rows, np.array([2e5, 4e5]), rows, hits)
    assert changed == pytest.approx((0.3**2 + 0.3**2) / 2 / (0.3 * 0.7), rel=1e-3)
    assert told_otherwise(rows, 0 * rows, rows, hits) == 0.0
    assert told_otherwise(rows, hits, rows, 0 * rows) == 0.0


def test_eta_squared_is_the_share_of_the_variance_that_the_values_explain() -> None:
    """Rates of 0.5 and 0.1 explain 0.8 of the variance of 4.2, of which 1/20 is chance."""
    rows, hits = np.array([10.0, 10.0, 0.0]), np.array([5.0, 1.0, 0.0])
    assert eta_squared(rows, hits) == pytest.approx(0.8 / 4.2 - 1 / 20)
    assert eta_squared(rows, rows) == eta_squared(rows, 0 * rows) == 0.0


# What rows give together, and weeks.
CLICKS = "joint.impressions.acted click"
POSITIONS, BELONGS = f"{CLICKS}.mean", f"{CLICKS}~position"


def joint(position: float, belongs: float) -> Cycle:
    return [{POSITIONS: (position + day / 1000, 900), BELONGS: (belongs - day / 1000, 900),
             f"{CLICKS}.deviation": (0.2, 900)} for day in range(7)]  # fmt: skip


@pytest.mark.parametrize(
    ("now", "expected"),
    [(joint(0.1, 0.4), set()), (joint(0.1, 0.2), {BELONGS}), (joint(0.15, 0.4), {POSITIONS})],
)
def test_what_rows_say_of_each_other_is_judged_over_all_days(now: Cycle, expected: set) -> None:
    found = found_of(joint(0.1, 0.4), now)
    assert told(found) == {(name, "run") for name in expected}
    assert not any(each.risk >= 1 for each in found.values())
    assert told(found_of(joint(0.1, 0.4), joint(0.1, 0.0), num_before=48)) == set()


def test_what_is_new_on_purpose_is_told_once_and_is_usual_when_it_was_accepted() -> None:
    before, changed = (joint(0.1, belongs) for belongs in (0.4, 0.1))
    history = days(56, FIRST_JUDGED - 70, before)
    for first, is_told in ((FIRST_JUDGED - 14, True), (FIRST_JUDGED, False)):
        judged = days(14, first, changed)
        found = {each.name: each.times_limit for each in deviations(history, judged)}
        assert bool(found[BELONGS] > 1) == is_told
        history = [*history, *judged]


def test_a_week_that_is_shifted_is_told_though_every_volume_is_usual() -> None:
    rows, shifted = (f"{ROWS}.by_weekday", "run"), [*WEEKEND[3:], *WEEKEND[:3]]
    assert found_of(WEEKEND, WEEKEND)[rows].effect == pytest.approx(0)
    assert found_of(WEEKEND, shifted)[rows].found < 0 and rows in told(found_of(WEEKEND, shifted))
    assert rows not in found_of([USUAL], [USUAL])


# Whether users come back.
def day_of(day: int, users: np.ndarray) -> DayProfile:
    """Return a day of which nothing but the users' hashes is known."""
    kept = tuple(np.sort(users)[:NUM_FOLLOWED].tolist())
    return DayProfile(day=day, numbers={}, counts={}, followed={"users": kept} if kept else {})


def coming(num_users: int, lost: float = 0.0, lost_from: int = 56) -> list[DayProfile]:
    """Each user comes every day with a chance of one in three; from a day on, some never do."""
    rng, made = np.random.default_rng(4), []
    ids = rng.choice(1 << 60, num_users, replace=False)
    stays = rng.random(num_users) >= lost
    for day in range(70):
        comes = rng.random(num_users) < 1 / 3
        made.append(day_of(day, ids[comes & stays] if day >= lost_from else ids[comes]))
    return made


def back(made: list[DayProfile], first: int = 56) -> list[Deviation]:
    return list(deviations(made[:first], made[first:]))


@pytest.mark.parametrize("num_users", [400, 20_000])
def test_a_fifth_of_the_users_is_missed(num_users: int) -> None:
    """Also where the days' numbers of users would be lost in what volumes may move."""
    (sound, *_), (spoiled, *_) = back(coming(num_users)), back(coming(num_users, lost=0.2))
    assert sound.name == spoiled.name == "impressions.users_come_back"
    assert sound.times_limit < 0.5 and spoiled.times_limit > 1
    assert spoiled.found == pytest.approx(0.8 * spoiled.usual, abs=0.06)


def test_a_loss_of_half_harms_one_in_the_middle_is_seen_and_a_gain_is_not_told() -> None:
    assert back(coming(2_000, lost=0.5))[0].risk >= 1
    found, _ = back(coming(2_000, 0.3, lost_from=50), 42)
    assert found.times_limit > 1 and 50 <= found.day <= 56
    few, full = coming(2_000, lost=0.2, lost_from=0), coming(2_000)
    assert back([*few[:56], *full[56:]])[0].effect == 0
    odd = coming(2_000, lost=0.2)  # a day of three users does not end the watch
    odd[30] = day_of(30, np.array([5, 1 << 59, 1 << 60]))
    odd[60] = DayProfile(day=60, numbers={}, counts={})
    assert back(odd)[0].times_limit > 1


def test_newcomers_that_no_longer_come_are_missed() -> None:
    """One user in fifty a day is new; from a day on only those come who were there before."""
    rng, made, known = np.random.default_rng(6), [], []
    for day in range(70):
        known += rng.choice(1 << 60, 4 if day < 56 else 0, replace=False).tolist()
        made.append(day_of(day, rng.choice(known[-300:], min(len(known), 150), replace=False)))
    found = {each.name: each for each in deviations(made[:56], made[56:])}
    assert found["impressions.users_new"].times_limit > 1
    assert found["impressions.users_come_back"].times_limit <= 1


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
