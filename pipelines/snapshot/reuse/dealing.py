"""What a snapshot takes of a pack: rows of the days in its windows, and what was counted of them.

It gives the same as reading the files would. A file can be in a pack only where its day lies wholly
inside or outside of every window. Not for which packs there are (`shelf`). Tested in
tests/pipelines/snapshot/reuse/test_reuse.py.
"""

from collections.abc import Iterator

import numpy as np

from pipelines.contracts.time import DAY_MS, Window
from pipelines.event_log.event_index import Bools, Ints, starts_of_runs
from pipelines.event_log.first_seen import FirstSeen
from pipelines.event_log.popularity import ActionCounts
from pipelines.snapshot.plan import SnapshotPlan, WindowCounts
from pipelines.snapshot.reuse.packs import Pack, Small
from pipelines.snapshot.rows import HeldRows
from pipelines.snapshot.spill import SpillSummary


def is_whole(table: str, day: int, plan: SnapshotPlan) -> bool:
    """Return whether a day's events are all treated alike, because no window begins or ends in it.

    Args:
        table: Impressions or actions.
        day: Days since the epoch.
        plan: The windows.
    """
    if table == "impressions":
        edges = [edge for each in plan.windows.values() for edge in (each.start_ms, each.end_ms)]
    else:
        edges = [plan.history_start_ms, plan.actions_start_ms]
    edges += [plan.first_seen_start_ms, plan.as_of_ms]
    return not any(edge // DAY_MS == day and edge % DAY_MS for edge in edges)


def deal_pack(pack: Pack, is_used: Bools, plan: SnapshotPlan, held: HeldRows) -> SpillSummary:
    """Deal out the rows of some of a pack's files, and return what was counted in them.

    Args:
        pack: The pack, whose rows stay where they are.
        is_used: [F] of its files, those that are wanted.
        plan: The windows.
        held: Takes the rows.
    """
    day = np.array([file.day for file in pack.header.files], dtype=np.int64)
    is_late = is_used & (day * DAY_MS >= plan.first_seen_start_ms)
    if pack.header.table == "actions":
        _hold(pack, is_used, held)
        is_of_timeline = is_used & (day * DAY_MS >= plan.history_start_ms)
        return SpillSummary(
            pin_ids=_pins(pack, is_of_timeline),
            wanted_actions=(_wanted(pack, is_used, day),),
            first_seen=(_first_seen(pack, is_late, day),),
        )
    in_training, in_holdout = (is_used & _is_within(day, each) for each in plan.windows.values())
    _hold(pack, in_training | in_holdout, held)
    is_immature = is_used & (day * DAY_MS >= plan.holdout.end_ms)
    num_rows = pack.num_rows.sum(axis=0)
    return SpillSummary(
        pin_ids=_pins(pack, in_training | in_holdout),
        first_seen=(_first_seen(pack, is_late, day),),
        num_impressions=WindowCounts(
            int(num_rows[in_training].sum()), int(num_rows[in_holdout].sum())
        ),
        num_immature_impressions=int(num_rows[is_immature].sum()),
    )


def _is_within(day: Ints, window: Window) -> Bools:
    return (day * DAY_MS >= window.start_ms) & ((day + 1) * DAY_MS <= window.end_ms)


def _hold(pack: Pack, is_dealt: Bools, held: HeldRows) -> None:
    """Hand a shard's rows of neighbouring files over as one slice."""
    places = np.append(0, np.cumsum(pack.num_rows.ravel())).tolist()
    num_shards, num_files = pack.num_rows.shape
    for first, end in _runs(is_dealt):
        for shard in range(num_shards):
            start = places[shard * num_files + first]
            rows = pack.rows.slice(start, places[shard * num_files + end] - start)
            if len(rows):
                held.hold_mapped(shard, pack.header.table, rows)


def _runs(is_dealt: Bools) -> Iterator[tuple[int, int]]:
    """Yield where runs of files begin and end."""
    changes = np.flatnonzero(np.diff(is_dealt, prepend=False, append=False))
    yield from zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True)


def _pins(pack: Pack, is_taken: Bools) -> Ints:
    found = pack.seen[0][_rows_of(pack.seen[1], is_taken)]
    return found[starts_of_runs(found)]


def _first_seen(pack: Pack, is_taken: Bools, day: Ints) -> FirstSeen:
    rows = _rows_of(pack.seen[1], is_taken)
    pin_id, file, known_at = pack.seen[0][rows], pack.seen[1][rows], pack.seen[2][rows]
    if len(np.unique(day[is_taken])) == is_taken.sum():
        return FirstSeen(pin_id, day[file], known_at)
    return FirstSeen.of(pin_id, day[file] * DAY_MS, known_at)  # A day has several files.


def _wanted(pack: Pack, is_taken: Bools, day: Ints) -> ActionCounts:
    rows = _rows_of(pack.wanted[1], is_taken)
    file, known_day, count = (values[rows].astype(np.int64) for values in pack.wanted[1:])
    return ActionCounts(pack.wanted[0][rows], day[file], known_day, count)


def _rows_of(file: Small, is_taken: Bools) -> Bools | slice:
    """Return the rows of some of the files; where all are taken, nothing need be copied."""
    return slice(None) if is_taken.all() else is_taken[file]
