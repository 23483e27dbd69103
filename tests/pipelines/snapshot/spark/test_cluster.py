"""Which parts' summaries come together, and how far Spark is said to be. Needs no Spark."""

import logging
import threading
from collections import defaultdict, namedtuple
from datetime import date, timedelta

import numpy as np
import pytest

from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.recipes import smoke
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.spark import cluster
from pipelines.snapshot.spark.cluster import collectors_of
from pipelines.snapshot.spill import SpillTask
from support.runs import PLANTED_AS_OF

NUM_DAYS, FILES_PER_DAY = 12, 3


def tasks_by_size(seed: int) -> list[SpillTask]:
    """Return a task for each file of some days, the largest first, as `make_tasks` does."""
    rng, plan, first = (
        np.random.default_rng(seed),
        plan_of(smoke(), PLANTED_AS_OF),
        date(2017, 1, 1),
    )
    files = [
        LogFile(table, f"{table}/day={day}/part-{part}.parquet", day, int(rng.integers(1, 10**6)))
        for table in ("impressions", "actions")
        for day in (first + timedelta(days=number) for number in range(NUM_DAYS))
        for part in range(FILES_PER_DAY)
    ]
    files.sort(key=lambda file: file.num_bytes, reverse=True)
    log = EventLog("file:///log", tuple(files))
    return [SpillTask(n, log, (file,), plan) for n, file in enumerate(files)]


def test_what_comes_together_is_about_the_same_days_whatever_the_sizes() -> None:
    """A pin on a day is known to one collector or two, and not to nearly all of them."""
    tasks = tasks_by_size(seed=1)
    collectors = collectors_of(tasks)
    assert sorted(collectors) == [task.number for task in tasks]
    assert len(set(collectors.values())) == 9  # of 72 tasks, eight or fewer in each
    by_day = defaultdict(set)
    for task in tasks:
        by_day[task.files[0].table, task.files[0].day].add(collectors[task.number])
    assert max(map(len, by_day.values())) <= 2
    assert sum(map(len, by_day.values())) < 1.5 * len(by_day)


def test_a_single_part_is_its_own_collector() -> None:
    assert collectors_of(tasks_by_size(seed=2)[:1]) == {0: 0}


Stage = namedtuple("Stage", ["numCompletedTasks", "numTasks"])


class Tracker:
    """Knows two stages that run, and one that has ended since; breaks when it is asked again."""

    def __init__(self) -> None:
        self.num_asked, self.was_asked_again = 0, threading.Event()

    def getActiveStageIds(self) -> list[int]:  # noqa: N802 - Spark's name
        self.num_asked += 1
        if self.num_asked == 2:
            self.was_asked_again.set()
            raise ConnectionError("gone")
        return [7, 3, 5]

    def getStageInfo(self, stage: int) -> Stage | None:  # noqa: N802 - Spark's name
        return {3: Stage(4, 9), 7: Stage(0, 2)}.get(stage)


def test_while_spark_works_its_tasks_are_counted_and_a_broken_connection_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster, "EVERY_S", 0.01)
    tracker, before = Tracker(), threading.active_count()
    with caplog.at_level(logging.INFO), cluster._telling(tracker, "shards"):
        assert tracker.was_asked_again.wait(60)
    assert threading.active_count() == before
    said = [message for message in caplog.messages if "tasks for shards" in message]
    assert said[:2] == ["4 of 9 tasks for shards", "0 of 2 tasks for shards"]
