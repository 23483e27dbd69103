"""Sessions by their definition, whatever their length and however late the log knew of them."""

import time

import numpy as np
import pytest

from pipelines.snapshot.features.sessions import count_earlier

GAP_MS = 100


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
