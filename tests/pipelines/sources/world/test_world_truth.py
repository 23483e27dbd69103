"""The known answer of a window of requests: `support.world_truth`."""

from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.storage import to_uri
from support.small_world import END, START
from support.world_truth import known_answer, read_truth


def test_who_knows_more_ranks_better(written) -> None:
    answer = known_answer(to_uri(written[0] / "event_log"), START, END)
    assert answer.num_requests == written[1].num_requests
    for mean in (answer.expected, answer.realised):
        assert mean.oracle > mean.filtered + 0.05 > mean.no_sequence + 0.15
        assert mean.no_sequence > mean.popularity > mean.random
    # at most 3 a request, of variance below 0.75: four standard errors
    tolerance = 4 * (0.75 / answer.num_requests) ** 0.5
    for name in type(answer.expected).model_fields:
        assert abs(getattr(answer.expected, name) - getattr(answer.realised, name)) < tolerance


def test_a_window_counts_its_own_requests(written) -> None:
    uri = to_uri(written[0] / "event_log")
    middle = START + timedelta(days=17, hours=5)
    parts = [known_answer(uri, START, middle), known_answer(uri, middle, END)]
    whole = known_answer(uri, START, END)
    assert sum(part.num_requests for part in parts) == whole.num_requests
    total = sum(part.expected.filtered * part.num_requests for part in parts)
    assert total == pytest.approx(whole.expected.filtered * whole.num_requests)
    assert len(read_truth(uri, START, middle)) == 12 * parts[0].num_requests


def test_only_a_world_has_a_known_answer(written, tmp_path: Path) -> None:
    uri = to_uri(written[0] / "event_log")
    with pytest.raises(ConfigurationError, match="no other has a known answer"):
        known_answer(to_uri(tmp_path), START, END)
    with pytest.raises(ConfigurationError, match="no requests in .*; it covers 2024-01-01 to"):
        known_answer(uri, END, END + timedelta(days=1))
    with pytest.raises(ConfigurationError, match="k is 13; expected 1 to 12"):
        known_answer(uri, START, END, k=13)
    with pytest.raises(ConfigurationError, match="no other has a known answer"):
        read_truth(to_uri(tmp_path), START, END)
