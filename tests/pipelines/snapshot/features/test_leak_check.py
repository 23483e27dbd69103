"""What the shift test says of functions that are given a few rows made by hand.

Whole shards are in test_own.py.
"""

from collections.abc import Callable

import numpy as np
import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.time import HOUR_MS
from pipelines.snapshot.features.own import check_no_leak
from pipelines.snapshot.features.own_view import (
    Seen,
    SeenActions,
    SeenExamples,
    SeenPins,
    SeenRequests,
    SeenUsers,
)

NUM_REQUESTS = 6  # of each user; one action becomes known between two of them
USER_IDS = np.array([-1, 0, 8])


def shard() -> Seen:
    """Return requests of one candidate each; the first user's id is -1, an id as any other."""
    num_users, num_rows = len(USER_IDS), len(USER_IDS) * NUM_REQUESTS
    user, number = np.divmod(np.arange(num_rows), NUM_REQUESTS)
    impressed_at = (100 + number * 10 + user) * HOUR_MS
    late_h = np.random.default_rng(7).integers(1, 30, num_rows)
    start = user * NUM_REQUESTS
    users = np.arange(num_users)
    return Seen(
        requests=SeenRequests(
            user_id=USER_IDS[user],
            impressed_at=impressed_at,
            known_at=impressed_at + late_h * HOUR_MS,
            timeline_start=start,
            timeline_end=start + number,
            user_row=user,
            first_example=np.arange(num_rows),
            num_examples=np.ones(num_rows, dtype=np.int64),
        ),
        examples=SeenExamples(request=np.arange(num_rows), pin_row=np.arange(num_rows)),
        actions=SeenActions(
            pin_row=np.arange(num_rows),
            action_type_id=np.ones(num_rows, dtype=np.int64),
            acted_at=impressed_at + HOUR_MS,
            known_at=impressed_at + HOUR_MS,
        ),
        pins=SeenPins(np.arange(num_rows), np.ones((num_rows, 2), dtype=np.float32), {}),
        users=SeenUsers(USER_IDS, users * 0, np.ones((num_users, 2), dtype=np.float32), {}),
        action_type_ids={"repin": 1},
    )


def check(function: Callable[[Seen], np.ndarray]) -> None:
    def call(seen: Seen) -> np.ndarray:
        return np.asarray(function(seen), dtype=np.float32)

    check_no_leak("my.module:feature", call, shard(), call(shard()))


def known_actions(seen: Seen) -> np.ndarray:
    of = seen.requests
    return (of.timeline_end - of.timeline_start)[seen.examples.request]


def since_oldest_action(seen: Seen) -> np.ndarray:
    """Return the hours from the user's first known action to the request, 0 without any."""
    of, acted_at = seen.requests, np.append(seen.actions.acted_at, 0)
    since_ms = of.impressed_at - acted_at[of.timeline_start]
    counts = of.timeline_end - of.timeline_start
    return np.where(counts > 0, since_ms / HOUR_MS, 0)[seen.examples.request]


def later_requests(seen: Seen) -> np.ndarray:
    """Return how many requests of the same user there are, also later ones."""
    _, place, counts = np.unique(seen.requests.user_id, return_inverse=True, return_counts=True)
    return counts[place][seen.examples.request]


def known_earlier_requests(seen: Seen) -> np.ndarray:
    """Return how many earlier requests were known, as every function may count them."""
    of = seen.requests
    is_earlier = of.known_at[None, :] < of.impressed_at[:, None]
    is_own = of.user_id[None, :] == of.user_id[:, None]
    return (is_earlier & is_own).sum(axis=1)[seen.examples.request]


def own_known_at(seen: Seen) -> np.ndarray:
    return ((seen.requests.known_at - seen.requests.impressed_at) / HOUR_MS)[seen.examples.request]


@pytest.mark.parametrize("function", [known_actions, since_oldest_action, known_earlier_requests])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_function_that_looks_at_what_was_known_passes(
    function: Callable[[Seen], np.ndarray], scale: float
) -> None:
    check(lambda seen: function(seen) * scale)
    assert len(set(function(shard()).tolist())) > 2


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_function_that_looks_ahead_is_refused_whatever_the_scale_of_its_numbers(
    scale: float,
) -> None:
    expected = r"my.module:feature looks ahead: .*actions and requests that were not known before"
    with pytest.raises(ConfigurationError, match=expected):
        check(lambda seen: later_requests(seen) * scale)


def test_rounding_between_numbers_of_which_most_are_zero_passes() -> None:
    """Sums that were added up in another order differ in the last digits."""

    def difference_of_sums(seen: Seen) -> np.ndarray:
        noise = 1e-13 * len(seen.requests.user_id)
        return np.where(known_actions(seen) == 5, 1.0, noise)

    found = difference_of_sums(shard())
    assert len(set(found.tolist())) == 2
    check(difference_of_sums)


def test_the_known_at_of_the_request_itself_is_named() -> None:
    """Alone, without the other users, the function returns the same, and is not accused of them."""
    expected = (
        r"my.module:feature looks ahead: .*without the known_at of that very request.*"
        r"look only at the impressed_at of the request itself"
    )
    with pytest.raises(ConfigurationError, match=expected):
        check(own_known_at)
