"""A loss of users or pins that volumes hide is seen in who comes back."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.day_profile import DayProfile
from validation.data_gate.days.limits import Deviation, deviations, known_ids, name_of, share_back
from validation.data_gate.days.measure import DayRows, measure_days, open_engine
from validation.data_gate.days.queries import NUM_FOLLOWED

NUM_DAYS, FIRST_JUDGED = 70, 56


def day_of(day: int, users: np.ndarray, seed: int = 0) -> DayProfile:
    """Return a day of which nothing but the users' hashes is known."""
    kept = tuple(np.sort(users)[:NUM_FOLLOWED].tolist())
    return DayProfile(day=day, numbers={}, counts={}, followed={"users": kept} if kept else {})


def days_of(num_users: int, lost: float = 0.0, lost_from: int = FIRST_JUDGED) -> list[DayProfile]:
    """Each user comes every day with a chance of one in three; from a day on, some never do."""
    rng = np.random.default_rng(4)
    ids = rng.choice(1 << 60, num_users, replace=False)
    stays = rng.random(num_users) >= lost
    days = []
    for day in range(NUM_DAYS):
        comes = rng.random(num_users) < 1 / 3
        days.append(day_of(day, ids[comes & stays] if day >= lost_from else ids[comes]))
    return days


def judge(days: list[DayProfile]) -> list[Deviation]:
    return list(deviations(days[:FIRST_JUDGED], days[FIRST_JUDGED:]))


@pytest.mark.parametrize("num_users", [400, 20_000])
def test_a_fifth_of_the_users_is_missed(num_users: int) -> None:
    """Also where the days' numbers of users would be lost in what volumes may move."""
    (sound,) = judge(days_of(num_users))
    (spoiled,) = judge(days_of(num_users, lost=0.2))
    assert sound.name == spoiled.name == name_of("users")
    assert sound.times_limit < 0.5
    assert spoiled.times_limit > 1
    assert spoiled.found == pytest.approx(0.8 * spoiled.usual, abs=0.06)


def test_half_of_the_users_harm_a_model() -> None:
    (found,) = judge(days_of(2_000, lost=0.5))
    assert found.is_harmful


def test_a_loss_in_the_middle_of_the_judged_days_is_seen() -> None:
    (found,) = deviations(days_of(2_000)[:42], days_of(2_000, 0.3, lost_from=50)[42:])
    assert found.times_limit > 1 and 50 <= found.day <= 56


def test_that_more_come_back_is_not_told() -> None:
    days = days_of(2_000, lost=0.2, lost_from=0)
    full = days_of(2_000)
    (found,) = judge([*days[:FIRST_JUDGED], *full[FIRST_JUDGED:]])
    assert found.times_limit < 1


def test_nothing_is_said_of_few_days_or_few_users() -> None:
    assert list(deviations(days_of(400)[:30], days_of(400)[30:])) == []
    assert judge(days_of(40)) == []
    without = [DayProfile(day=day, numbers={}, counts={}) for day in range(NUM_DAYS)]
    assert judge(without) == []


def test_ids_are_compared_up_to_what_every_day_knows() -> None:
    """A day of few ids has all of them; of a day of many, those up to the largest are known."""
    many = np.arange(0, 10 * NUM_FOLLOWED, 2)
    largest = 2 * (NUM_FOLLOWED - 1)
    ids = known_ids([day_of(0, np.array([1, 5, largest + 1])), day_of(1, many)], "users")
    assert ids == {0: {1, 5}, 1: set(range(0, largest + 1, 2))}
    assert known_ids([day_of(0, np.array([1, 5]))], "users") == {0: {1, 5}}


def test_enough_days_are_needed_on_both_sides() -> None:
    sixty = frozenset(range(60))
    assert share_back(dict.fromkeys(range(30), sixty), 28, 2) == (1.0, 60)
    assert share_back(dict.fromkeys(range(28), sixty), 28, 2) is None
    assert share_back(dict.fromkeys(range(20, 30), sixty), 28, 2) is None


def test_a_day_of_three_users_does_not_end_the_watch() -> None:
    days = days_of(2_000, lost=0.2)
    days[30] = day_of(30, np.array([5, 1 << 59, 1 << 60]))
    days[60] = DayProfile(day=60, numbers={}, counts={})
    (found,) = judge(days)
    assert found.times_limit > 1


def test_the_hashes_are_the_smallest_and_never_change(tmp_path: Path) -> None:
    """Kept for a year, they must be the same in every release of the database."""
    num = 1_000
    impressions = pa.table(
        {
            "request_id": pa.array([f"r{n}" for n in range(num)]),
            "user_id": pa.array(np.arange(num) * 4 - 5),
            "pin_id": pa.array(np.arange(num) % 7),
            "impressed_at": pa.array(np.full(num, 86_400_000)),
            "known_at": pa.array(np.full(num, 86_400_000)),
            "position": pa.array(np.zeros(num, dtype=np.int16)),
            "surface": pa.array(["homefeed"] * num),
            "is_exploration": pa.array([False] * num),
            "propensity": pa.nulls(num, pa.float32()),
        }
    )
    actions = pa.table(
        {
            "user_id": pa.array([], pa.int64()),
            "pin_id": pa.array([], pa.int64()),
            "action_type": pa.array([], pa.string()),
            "acted_at": pa.array([], pa.int64()),
            "known_at": pa.array([], pa.int64()),
            "request_id": pa.array([], pa.string()),
        }
    )
    users = pa.table(
        {
            "user_id": pa.array([1], pa.int64()),
            "as_of": pa.array([0], pa.int64()),
            "state": pa.array(["core"]),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4, np.float32)), 4),
        }
    )
    with open_engine(str(tmp_path)) as engine:
        (day,) = measure_days(engine, DayRows([impressions], [actions], [users]), 1, 2)
    assert day.followed["users"] == tuple(sorted(map(hashed, range(-5, 4 * num - 5, 4)))[:256])
    assert day.followed["pins"] == tuple(sorted(map(hashed, range(7))))


def hashed(number: int) -> int:
    """Return what the query makes of an id; a remainder has its dividend's sign there."""
    prime = (1 << 61) - 1
    first = remainder(number * 6364136223846793005 + 1442695040888963407, prime)
    return remainder((first ^ (first >> 29)) * 3202034522624059733, prime)


def remainder(dividend: int, divisor: int) -> int:
    return dividend % divisor if dividend >= 0 else -(-dividend % divisor)
