"""Scores that a snapshot does not give are found at one request in a hundred, with a cause."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipelines.log_days.skew import MOST_REQUESTS, measure_skew
from support.served_world import PLANTED, ServedWorld


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> ServedWorld:
    return ServedWorld(tmp_path_factory.mktemp("served"))


def test_what_a_sound_server_logs_is_what_the_snapshot_gives(served: ServedWorld) -> None:
    assert measure_skew(served.run, served.side) is None  # nothing is logged yet
    served.write(served.sound)
    found = measure_skew(served.run, served.side)
    assert found is not None and found.num_requests == MOST_REQUESTS
    assert (found.num_differ, found.causes, found.is_fault) == (0, {}, False)
    assert (
        measure_skew(served.run, replace(served.side, model=SimpleNamespace(version="8"))) is None
    )


@pytest.mark.parametrize("cause", PLANTED)
def test_a_skew_of_one_request_in_a_hundred_is_found(served: ServedWorld, cause: str) -> None:
    served.plant(cause, 0.01, seed=5)
    found = measure_skew(served.run, served.side)
    assert found is not None and found.is_fault
    assert set(found.causes) == {cause}
    assert found.causes[cause] == found.num_differ
    assert f"{cause} {found.num_differ}" in found.sentence
