"""The data gate: which planted defects it finds, how often it warns of nothing, what it costs.

Defects are planted into the sample's last windows before AS_OF and held against the eight weeks
before. False alarms are counted over the sample's 25 fortnights, each with what would have been
known then alone: the days that were accepted before, and the shifts of the snapshots before. Worlds
of other seeds follow, whose windows are every sixth day. The floors of the limits were chosen with
the sample's fortnights and one world in view (docs/decisions.md); the worlds here are others.
"""

import dataclasses
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench_log_check import SHAPE as LARGE
from record import Row, row
from sample import AS_OF, HOME, event_log_uri, make_run
from synthetic import start_ms, write_log
from timed import call

from pipelines import storage
from pipelines.contracts.config import RunConfig
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import open_event_log
from pipelines.log_days.calibration import past_windows
from pipelines.log_days.reading import measure_log
from pipelines.recipes import completejourney, world
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.plan import plan_of
from pipelines.sources.publish import ingest
from pipelines.sources.world.adapter import WorldAdapter
from pipelines.sources.world.parameters import WorldParameters
from support.planted import CLEAN, Trial, try_defects
from validation.data_gate.shifts import Earlier, kept_shifts, shifts_of
from validation.data_gate.snapshot_profile import Measures, profile_snapshot

FIRST_AS_OF, NUM_FORTNIGHTS = datetime(2017, 1, 29, tzinfo=UTC), 25
WORLD_SEEDS = range(101, 121)
WORLD_DAYS, WORLD_USERS, WORLD_STEP = 97, 700, 6
WINDOW_DAYS = 22
NUM_MILLIONS = 20
SHAPE = dataclasses.replace(LARGE, num_impressions=NUM_MILLIONS * 1_000_000)
LOG = HOME / "bench" / "data_gate"


def measure() -> list[Row]:
    """Return the rows of the data gate."""
    event_log = open_event_log(event_log_uri())
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as scratch:
        trials = list(try_defects(event_log, plan_of(completejourney(), AS_OF), Path(scratch)))
    assert trials[0].defect == CLEAN and not trials[0].told
    return [defects_caught(trials), false_alarms(sample_alarms()), judging_20m()]


def defects_caught(trials: list[Trial]) -> Row:
    """Return what was found of every defect, planted into the sample at three strengths."""
    found, critical, missed = {}, {}, {}
    for strength in ("weak", "middle", "strong"):
        tried = [each for each in trials if each.strength == strength and each.has_effect]
        found[strength] = 100 * sum(bool(each.told) for each in tried) / len(tried)
        critical[strength] = 100 * sum(each.is_critical for each in tried) / len(tried)
        missed[strength] = _missed(tried)
    return row(
        "gate_defects_caught",
        found["middle"],
        "%",
        ratio=found["middle"] / 90,
        peer="the goal of 90 % at the middle strength",
        spread="one planting",
        rows=len(trials) - 1,
        seed="1",
        note=f"weak {found['weak']:.0f}, strong {found['strong']:.0f} %; critical "
        f"{critical['weak']:.0f}, {critical['middle']:.0f} and {critical['strong']:.0f} %. Not "
        f"found at the middle strength: {missed['middle'] or 'none'}; at the strong one: "
        f"{missed['strong'] or 'none'}.",
    )


def _missed(trials: list[Trial]) -> str:
    return ", ".join(each.defect for each in trials if not each.told)


def false_alarms(of_sample: list[tuple[str, ...]]) -> Row:
    """Count the warnings over fortnights and worlds in which nothing is wrong."""
    of_worlds, num_critical = world_alarms()
    total = [*of_sample, *of_worlds]
    share = 100 * sum(map(bool, total)) / len(total)
    told = sorted({name for names in total for name in names})
    return row(
        "gate_false_alarms",
        share,
        "%",
        ratio=share / 5,
        peer="the budget of 5 %",
        spread=f"{sum(map(bool, total))} of {len(total)} windows",
        rows=len(total),
        seed=f"{WORLD_SEEDS.start} to {WORLD_SEEDS.stop - 1}",
        note=f"{sum(map(bool, of_sample))} of the sample's {len(of_sample)} fortnights, "
        f"{sum(map(bool, of_worlds))} of {len(of_worlds)} windows of worlds (of their days alone); "
        f"critical {num_critical}. Told: {'; '.join(told) or 'nothing'}.",
    )


def sample_alarms() -> list[tuple[str, ...]]:
    """Return what is told of each fortnight of the sample, of days and of shifts."""
    log_uri, recipe = event_log_uri(), completejourney()
    told_days = {window.first: window.warnings for window in _sample_windows(log_uri, recipe)}
    earlier: Earlier = {}
    before, told = Measures(), []
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        for number in range(NUM_FORTNIGHTS):
            as_of = FIRST_AS_OF + timedelta(days=14 * number)
            snapshot = write_snapshot(make_run(recipe, as_of, Path(folder)))
            profile = profile_snapshot(snapshot, storage.local_path(snapshot.uri))
            shifts = shifts_of(snapshot, profile.measures, before, recipe.data_gate)
            shifted = [
                shift.key
                for shift in shifts
                if (limit := shift.limit(earlier)) is not None and abs(shift.size) > limit
            ]
            first = snapshot.holdout.end.date() - timedelta(days=14)
            told.append((*told_days.get(first, ()), *shifted))
            earlier, before = kept_shifts(shifts, earlier), profile.measures
    return told


def _sample_windows(log_uri: str, recipe: RunConfig) -> list:
    """Return what is told of the days that each fortnight of the sample adds."""
    plan = plan_of(recipe, FIRST_AS_OF + timedelta(days=14 * NUM_FORTNIGHTS - 14))
    first = plan_of(recipe, FIRST_AS_OF).training.start_ms // 86_400_000
    end = -(-plan.holdout.end_ms // 86_400_000)
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as scratch:
        days = measure_log(open_event_log(log_uri), plan, range(first, end), Path(scratch))
    return list(past_windows(days, WINDOW_DAYS))


def world_alarms() -> tuple[list[tuple[str, ...]], int]:
    """Return what is told of each window of the worlds, and how often it is critical."""
    told, num_critical = [], 0
    for seed in WORLD_SEEDS:
        parameters = WorldParameters(num_users=WORLD_USERS, num_days=WORLD_DAYS, seed=seed)
        with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
            uri = storage.to_uri(Path(folder) / "log")
            ingest(WorldAdapter(parameters), uri)
            until = datetime.combine(parameters.start, datetime.min.time(), UTC)
            plan = plan_of(world(), until + timedelta(days=WORLD_DAYS + 1))
            start = int(until.timestamp()) // 86_400
            days = measure_log(
                open_event_log(uri), plan, range(start, start + WORLD_DAYS), Path(folder)
            )
        windows = list(past_windows(days, WINDOW_DAYS, WORLD_STEP))
        told += [window.warnings for window in windows]
        num_critical += sum(window.is_critical for window in windows)
    return told, num_critical


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
        spread="one run",
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
