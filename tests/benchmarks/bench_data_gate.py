"""The data gate: which planted defects it finds, how often it warns of nothing, what it costs.

Defects are planted into the last windows before AS_OF and held against the eight weeks before.
False alarms of the days are counted over every day that a fortnight can begin on, each with the
days that were known then, on other worlds than those that limits were chosen with.
"""

import dataclasses
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from bench_log_check import SHAPE as LARGE
from record import Row, row
from sample import AS_OF, HOME, event_log_uri
from synthetic import start_ms, write_log
from timed import call

from pipelines import storage
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.log_days.reading import measure_log
from pipelines.recipes import completejourney, world
from pipelines.snapshot.plan import SnapshotPlan, plan_of
from pipelines.sources.publish import ingest
from pipelines.sources.world.parameters import WorldParameters
from support.planted import STRENGTHS, Trial, try_defects
from support.planted_blind import BLIND
from support.planted_tuned import TUNED
from support.world_adapter import WorldAdapter
from validation.data_gate.days.gate import date_of
from validation.data_gate.days.limits import deviations

SAMPLE_END, SAMPLE_DAYS = datetime(2018, 1, 2, tzinfo=UTC), 365
WORLD_SEEDS, WORLD_DAYS, WORLD_USERS = (*range(111, 115), *range(131, 135)), 97, 700
DEFECTS_SEED, DEFECTS_USERS = 100, 1000
WINDOW_DAYS, NUM_MILLIONS = 22, 20
SHAPE = dataclasses.replace(LARGE, num_impressions=NUM_MILLIONS * 1_000_000)
LOG = HOME / "bench" / "data_gate"
CYCLE_DAYS = 14


class PastWindow(NamedTuple):
    """One window of the past, and what would have been said of it."""

    first: date
    worst: float  # The largest deviation, as a multiple of its limit.
    warnings: tuple[str, ...]
    is_critical: bool


def measure() -> list[Row]:
    """Return the rows of the data gate."""
    logs = open_event_log(event_log_uri()), plan_of(completejourney(), AS_OF)
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as scratch:
        clean, *trials = try_defects(*logs, Path(scratch))
    assert not clean.told
    return [
        defects_caught(trials),
        unseen_defects_caught(),
        false_alarms_all_starts(),
        judging_20m(),
    ]


def defects_caught(trials: list[Trial]) -> Row:
    """Return what was found of every defect, planted into the sample at three strengths."""
    tried = {of: [t for t in trials if t.strength == of and t.has_effect] for of in STRENGTHS}
    found, critical = (
        [100 * np.mean([bool(getattr(t, field)) for t in tried[of]]) for of in STRENGTHS]
        for field in ("told", "is_critical")
    )
    missed = [", ".join(t.defect for t in tried[of] if not t.told) or "none" for of in STRENGTHS]
    note = (f"weak {found[0]:.0f}, strong {found[2]:.0f} %; critical {critical[0]:.0f}, "
            f"{critical[1]:.0f} and {critical[2]:.0f} %. Not found at the middle strength: "
            f"{missed[1]}; at the strong one: {missed[2]}.")  # fmt: skip
    return row("gate_defects_caught", found[1], "%", ratio=found[1] / 90, note=note, seed="1",
               peer="the goal of 90 % at the middle strength", spread="one planting",
               rows=len(trials))  # fmt: skip


def unseen_defects_caught() -> Row:
    """Return what was found of the kinds that no rule was made for, on the sample and a world."""
    told: dict[tuple[str, bool], list[Trial]] = defaultdict(list)
    missed: dict[bool, list[str]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        logs = {
            "sample": (open_event_log(event_log_uri()), plan_of(completejourney(), AS_OF)),
            "world": _world(Path(folder), DEFECTS_SEED, DEFECTS_USERS),
        }
        for of, log in logs.items():
            clean, *trials = try_defects(*log, Path(folder), TUNED | BLIND, STRENGTHS[1:])
            assert not clean.told
            for trial in (each for each in trials if each.has_effect):
                is_unseen = trial.defect in BLIND
                told[trial.strength, is_unseen].append(trial)
                if not trial.told and trial.strength == "middle":
                    missed[is_unseen].append(f"{of} {trial.defect}")
    shares = {key: 100 * np.mean([bool(t.told) for t in of]) for key, of in told.items()}
    unseen, seen = told["middle", True], told["middle", False]
    note = (f"{shares['strong', True]:.0f} % at the strong one; of the kinds that limits were "
            f"chosen with {shares['middle', False]:.0f} % of {len(seen)} and "
            f"{shares['strong', False]:.0f} %. Critical {sum(t.is_critical for t in unseen)} of "
            f"the unseen. Not found at the middle strength: {', '.join(missed[True]) or 'none'}; "
            f"of the others: {', '.join(missed[False]) or 'none'}. The sample's positions are "
            f"drawn at random.")  # fmt: skip
    share = shares["middle", True]
    return row("gate_unseen_defects_caught", share, "%", ratio=share / 90, note=note,
               peer="the goal of 90 % at the middle strength", rows=len(unseen),
               spread=f"{len(unseen)} plantings of {len(BLIND)} kinds",
               seed=f"1 plants, world {DEFECTS_SEED}")  # fmt: skip


def sample_windows() -> list[PastWindow]:
    """Return what the gate would have said of the sample's year."""
    plan = plan_of(completejourney(), SAMPLE_END)
    days = range(plan.holdout.end_ms // DAY_MS - SAMPLE_DAYS, plan.holdout.end_ms // DAY_MS)
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as scratch:
        found = measure_log(open_event_log(event_log_uri()), plan, days, Path(scratch))
    return list(past_windows(found, WINDOW_DAYS, 1))


def past_windows(
    days: Sequence[DayProfile], num_window_days: int, step_days: int = CYCLE_DAYS
) -> Iterator[PastWindow]:
    """Yield what would have been said of each window, the first one of which has a history.

    So many days of the whole log as a snapshot's windows have (`num_window_days`) are accepted
    before the first that is judged. From the beginning of one window to that of the next are
    `step_days`; windows that are nearer than CYCLE_DAYS share days.
    """
    first, end = days[0].day + num_window_days, days[-1].day + 1
    starts = range(first, end - CYCLE_DAYS + 1, step_days)
    for start in starts:
        before = [day for day in days if day.day < start]
        judged = [day for day in days if start <= day.day < start + CYCLE_DAYS]
        if found := deviations(before, judged):
            missing = {*range(start, start + CYCLE_DAYS)} - {day.day for day in judged}
            told = sorted({each.name for each in found if each.times_limit > 1})
            yield PastWindow(
                date_of(start),
                max(each.times_limit for each in found),
                (*(f"no rows on {date_of(day)}" for day in sorted(missing)), *told),
                any(each.risk >= 1 for each in found),
            )


def false_alarms_all_starts() -> Row:
    """Count the warnings of days, over every day that a fortnight can begin on."""
    of_sample, of_worlds = sample_windows(), world_windows(WORLD_SEEDS)
    total = [*of_sample, *of_worlds]
    share, sample_share, worlds_share = (
        100 * np.mean([bool(each.warnings) for each in of]) for of in (total, of_sample, of_worlds)
    )
    critical = 100 * np.mean([each.is_critical for each in total])
    told = Counter(name for each in total for name in each.warnings).most_common(8)
    note = (f"{sample_share:.1f} % of the sample's {len(of_sample)} starts, {worlds_share:.1f} % "
            f"of {len(of_worlds)} of worlds; critical {critical:.2f} %. Told most: "
            f"{'; '.join(f'{name} ({num})' for name, num in told)}.")  # fmt: skip
    return row("gate_false_alarms_all_starts", share, "%", ratio=share / 5, note=note,
               peer="the budget of 5 %", rows=len(total),
               spread=f"{round(share * len(total) / 100)} of {len(total)} windows",
               seed=f"worlds {', '.join(map(str, WORLD_SEEDS))}")  # fmt: skip


def world_windows(seeds: Sequence[int]) -> list[PastWindow]:
    """Return what the gate would have said of the windows of some worlds."""
    windows: list[PastWindow] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
            event_log, plan = _world(Path(folder), seed, WORLD_USERS)
            end = -(-plan.holdout.end_ms // DAY_MS)
            days = measure_log(event_log, plan, range(end - WORLD_DAYS, end), Path(folder))
        windows += past_windows(days, WINDOW_DAYS, 1)
    return windows


def _world(folder: Path, seed: int, num_users: int) -> tuple[EventLog, SnapshotPlan]:
    parameters = WorldParameters(num_users=num_users, num_days=WORLD_DAYS, seed=seed)
    uri = storage.to_uri(folder / "log")
    ingest(WorldAdapter(parameters), uri)
    until = datetime.combine(parameters.start, datetime.min.time(), UTC)
    return open_event_log(uri), plan_of(world(), until + timedelta(days=WORLD_DAYS + 1))


def judging_20m() -> Row:
    """Judge the days of a log of 20 M impressions in a process of its own."""
    num_rows = write_log(LOG, SHAPE)
    try:
        ran = call("bench_data_gate", "judge_days", str(LOG), sees_memory=True)
    finally:
        shutil.rmtree(LOG)
    return row(
        f"gate_{NUM_MILLIONS}m_s",
        ran.seconds,
        "s",
        ratio=ran.seconds / 60,
        peer="the goal of 60 s",
        rows=num_rows,
        seed="1",
        note=f"the event log's days; {ran.peak_mib:,.0f} MiB at most (goal 2,048)",
    )


def judge_days(folder: str) -> None:
    """Measure the days of the log that `synthetic` writes."""
    features = completejourney().features.model_copy(
        update={"categorical": (), "action_types": ("repin", "click", "long_click", "save", "hide")}
    )
    recipe = completejourney().model_copy(update={"features": features})
    start = start_ms(SHAPE.first) // DAY_MS
    days = range(start, start + SHAPE.num_days)
    until = datetime.combine(SHAPE.first, datetime.min.time(), UTC)
    plan = plan_of(recipe, until + timedelta(days=SHAPE.num_days + 1))
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as scratch:
        found = measure_log(open_event_log(storage.to_uri(folder)), plan, days, Path(scratch))
    assert len(found) == SHAPE.num_days
