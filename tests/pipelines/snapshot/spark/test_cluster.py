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


def test_what_comes_together_is_about_the_same_days_whatever_the_sizes() -> None:
    """A pin on a day is known to one collector or two, and not to nearly all of them."""
    rng, plan = np.random.default_rng(1), plan_of(smoke(), PLANTED_AS_OF)
    files = [
        LogFile(table, f"{table}/day={day}/part-{part}.parquet", day, int(rng.integers(1, 10**6)))
        for table in ("impressions", "actions")
        for day in (date(2017, 1, 1) + timedelta(days=number) for number in range(12))
        for part in range(3)
    ]
    files.sort(key=lambda file: file.num_bytes, reverse=True)  # as `make_tasks` does
    log = EventLog("file:///log", tuple(files))
    tasks = [SpillTask(n, log, (file,), plan) for n, file in enumerate(files)]
    collectors = collectors_of(tasks)
    assert sorted(collectors) == [task.number for task in tasks]
    assert len(set(collectors.values())) == 9  # of 72 tasks, eight or fewer in each
    by_day = defaultdict(set)
    for task in tasks:
        by_day[task.files[0].table, task.files[0].day].add(collectors[task.number])
    assert max(map(len, by_day.values())) <= 2
    assert sum(map(len, by_day.values())) < 1.5 * len(by_day)
    assert collectors_of(tasks[:1]) == {0: 0}
