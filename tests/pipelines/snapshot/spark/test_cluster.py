"""Which parts' summaries come together. Needs no Spark."""

from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.recipes import smoke
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.spark.cluster import Cluster
from pipelines.snapshot.spill import BYTES_PER_TASK, make_tasks
from support.runs import PLANTED_AS_OF


def test_what_comes_together_is_about_the_same_days_whatever_the_sizes(tmp_path: Path) -> None:
    """A pin on a day is known to one collector or two, and not to nearly all of them."""
    rng, plan = np.random.default_rng(1), plan_of(smoke(), PLANTED_AS_OF)
    files = [
        LogFile(table, f"{table}/day={day}/part-{part}.parquet", day, BYTES_PER_TASK + size)
        for table in ("impressions", "actions")
        for day in (PLANTED_AS_OF.date() - timedelta(days=number) for number in range(12, 0, -1))
        for part, size in enumerate(rng.integers(1, 10**6, 3).tolist())
    ]
    context: Any = mock.Mock()
    context.parallelize.side_effect = DataContractError("seen enough")
    with pytest.raises(DataContractError, match="seen enough"):
        cluster = Cluster(context, mock.Mock(), tmp_path)
        cluster.deal_out(make_tasks(EventLog("file:///log", tuple(files)), plan), plan)
    collectors, by_day = defaultdict[int, int](int), defaultdict[tuple[str, date], set[int]](set)
    for collector, task in context.parallelize.call_args.args[0]:
        (file,) = task.files
        collectors[collector] += 1
        by_day[file.table, file.day].add(collector)
    assert min(collectors) == plan.config.num_shards
    num_tasks = sum(collectors.values())
    assert max(collectors.values()) == int(num_tasks**0.5) and num_tasks > 40
    assert max(map(len, by_day.values())) <= 2
    assert sum(map(len, by_day.values())) < 1.5 * len(by_day)
