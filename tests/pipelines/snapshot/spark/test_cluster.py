"""Which parts' summaries come together. Needs no Spark."""

from collections import defaultdict
from datetime import date, timedelta

import numpy as np

from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.recipes import smoke
from pipelines.snapshot.plan import plan_of
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
