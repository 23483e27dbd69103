"""How far Spark is, by what its tracker says. No Spark is needed for that."""

import threading
from collections import namedtuple

import pytest

from pipelines.snapshot.spark import progress
from pipelines.snapshot.spark.progress import progress_of, telling

Stage = namedtuple("Stage", ["numCompletedTasks", "numTasks"])


class Tracker:
    """Knows two stages that run, and one that has ended since."""

    def __init__(self) -> None:
        self.was_asked = threading.Event()

    def getActiveStageIds(self) -> list[int]:  # noqa: N802 - Spark's name
        self.was_asked.set()
        return [7, 3, 5]

    def getStageInfo(self, stage: int) -> Stage | None:  # noqa: N802 - Spark's name
        return {3: Stage(4, 9), 7: Stage(0, 2)}.get(stage)


class Broken:
    """Has lost its connection."""

    def __init__(self) -> None:
        self.num_asked = 0
        self.was_asked_again = threading.Event()

    def getActiveStageIds(self) -> list[int]:  # noqa: N802 - Spark's name
        self.num_asked += 1
        if self.num_asked == 2:
            self.was_asked_again.set()
        raise ConnectionError("gone")


def test_of_each_stage_that_runs_the_tasks_are_counted() -> None:
    assert progress_of(Tracker()) == [(4, 9), (0, 2)]


def test_it_asks_while_the_block_runs_and_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.01)
    tracker, before = Tracker(), threading.active_count()
    with telling(tracker, "shards"):
        assert tracker.was_asked.wait(60)
    assert threading.active_count() == before


def test_a_broken_connection_is_left_to_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.01)
    tracker = Broken()
    with telling(tracker, "shards"):
        assert tracker.was_asked_again.wait(60)
