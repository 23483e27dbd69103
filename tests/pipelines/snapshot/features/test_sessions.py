"""Sessions by their definition, whatever their length and however late the log knew of them."""

import time

import numpy as np
import pytest

from pipelines.snapshot.features.sessions import count_earlier

GAP_MS = 100


def by_definition(user_id: list[int], impressed_at: list[int], known_at: list[int]) -> list[int]:
    counts = []
    for row, (user, asked_at) in enumerate(zip(user_id, impressed_at, strict=True)):
        count, last_at = 0, asked_at
        for earlier in range(row - 1, -1, -1):
            if user_id[earlier] != user or last_at - impressed_at[earlier] > GAP_MS:
                break
            if known_at[earlier] < asked_at:
                count, last_at = count + 1, impressed_at[earlier]
        counts.append(count)
    return counts


@pytest.mark.parametrize("latest_ms", [0, 50, 300, 1_000])
def test_counts_are_those_of_the_definition(latest_ms: int) -> None:
    """Two users have few and many requests in a row; times repeat, some silences end a session."""
    rng = np.random.default_rng(latest_ms)
    user_id = np.repeat([-1, 3], [40, 200])
    steps = rng.choice([0, 10, 60, 100, 101, 400], len(user_id), p=[0.1, 0.4, 0.2, 0.2, 0.05, 0.05])
    impressed_at = np.concatenate([1000 + np.cumsum(steps[:40]), 1000 + np.cumsum(steps[40:])])
    known_at = impressed_at + rng.integers(0, latest_ms + 1, len(user_id))
    found = count_earlier(user_id, impressed_at, known_at, GAP_MS)
    expected = by_definition(user_id.tolist(), impressed_at.tolist(), known_at.tolist())
    assert found.tolist() == expected
    assert len(set(expected)) > 2


@pytest.mark.parametrize("latest_ms", [0, 150])
def test_a_session_of_many_requests_takes_time_in_proportion(latest_ms: int) -> None:
    """Going back step by step took the square: 20,000 requests 25 times as long as 4,000."""

    def cpu_s(num_requests: int) -> float:
        impressed_at = np.arange(num_requests) * 10
        lates = np.random.default_rng(1).integers(0, latest_ms + 1, num_requests)
        user_id = np.zeros(num_requests, dtype=np.int64)
        started = time.thread_time()
        found = count_earlier(user_id, impressed_at, impressed_at + lates, GAP_MS)
        assert found.max() > 1_000
        return time.thread_time() - started

    short = min(cpu_s(4_000) for _ in range(3))
    assert min(cpu_s(20_000) for _ in range(3)) < 12 * short
