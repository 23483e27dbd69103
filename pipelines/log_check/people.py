"""Counts users, how many of them have a row, and how many actions they did before their requests.

A request's number of earlier actions is counted to the end of the day before it, which is near
enough for a look at a log; the snapshot counts by `known_at`. Not for requests (`matching`).
"""

from pathlib import Path

import numpy as np

from pipelines.log_check import scratch
from pipelines.log_check.events import folder_of
from pipelines.log_check.found import LENGTH_EDGES, LogReport
from pipelines.log_check.reading import distinct


def count_people(folder: Path, report: LogReport, num_user_files: int) -> None:
    """Add the counts of users and of their earlier actions to a report."""
    asked = {
        day: np.unique(
            scratch.load_parts(folder_of(folder, "requests", day), "user", np.int64),
            return_counts=True,
        )
        for day in report.exposures
    }
    users = np.zeros(0, dtype=np.int64)
    for own, _ in asked.values():
        users = distinct(np.concatenate([users, own]))
    report.num_users = len(users)
    with_row = np.zeros(len(users), dtype=bool)
    for number in range(num_user_files):
        own = scratch.load(folder / f"users-{number}", "user", np.int64)
        with_row |= np.isin(users, distinct(own))
    report.num_users_with_row = int(with_row.sum())

    num_before = np.zeros(len(users), dtype=np.int64)
    for day in sorted({*report.exposures, *report.deeds}):
        if day in asked:
            own, num_requests = asked[day]
            lengths = num_before[np.searchsorted(users, own)]
            bins = np.searchsorted(LENGTH_EDGES, lengths, side="right") - 1
            report.sequence_lengths = report.sequence_lengths + np.bincount(
                bins, weights=num_requests, minlength=len(LENGTH_EDGES)
            ).astype(np.int64)
        if day in report.deeds and len(users):
            actions = folder_of(folder, "actions", day)
            own = scratch.load(actions, "own_user", np.int64)
            place = np.minimum(np.searchsorted(users, own), len(users) - 1)
            is_known = users[place] == own
            counts = scratch.load(actions, "own_count", np.int64)
            num_before[place[is_known]] += counts[is_known]
