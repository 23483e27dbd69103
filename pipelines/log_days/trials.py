"""Tries the gate's limits on a log: on its own past, and on planted defects.

Calibration holds the log's past windows against the limits, each by the days before it alone. Every
window that would have been judged with enough history counts, one each cycle. The days that one
adds are judged as they would have been. A gate that warns of what was right is not read, so the
share of windows with a warning is held against the budget. Where it is above, limits that are wider
by a factor would have kept to it: the factor is the quantile of the windows' largest deviations
that conformal prediction takes (Vovk et al., Algorithmic Learning in a Random World, 2005), for
which 1 / budget - 1 windows are needed.

The self-test plants every known defect into a copy of a log's last days, and says which the gate
finds. The clean days are tried too, because a gate that warns of them finds everything. The rows of
the windows are read into memory once; nothing is written. Not for a cycle (`judging`).
"""

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines import storage
from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.config import RunConfig
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.event_log.reader import Before, read_rows
from pipelines.event_log.rules import embedding_matrix
from pipelines.log_days.judging import EARLIER_DAYS
from pipelines.log_days.known_days import day_number
from pipelines.log_days.reading import categories_of, measure_log, rows_of
from pipelines.recipes import make_recipe
from pipelines.settings import Settings
from pipelines.snapshot.plan import SnapshotPlan, plan_of

if TYPE_CHECKING:
    from validation.data_gate.planted import LogRows, Trial, Workbench

BUDGET = 0.05
"""The share of windows that may bring a warning though nothing is wrong."""
CYCLE_DAYS = 14
CLEAN = "(nothing planted)"
STRENGTHS = ("weak", "middle", "strong")
SEED = 1


@dataclass(frozen=True)
class LogWindow:
    """What a cycle of a recipe as of a day would judge."""

    recipe: RunConfig
    event_log: EventLog
    plan: SnapshotPlan

    @property
    def judged(self) -> range:
        """The days of both windows, since the epoch."""
        first = self.plan.training.start_ms // DAY_MS
        return range(first, -(-self.plan.holdout.end_ms // DAY_MS))


def open_window(settings: Settings, recipe: str, as_of: str) -> LogWindow:
    """Return what a cycle would judge.

    Args:
        settings: Where the log is.
        recipe: Its reference.
        as_of: YYYY-MM-DD; nothing takes the day after the log's last.

    Raises:
        ConfigurationError: the day is none.
        DataContractError: there is no such log.
    """
    event_log = open_event_log(storage.to_uri(settings.event_log_location))
    _, last = event_log.span("impressions")
    try:
        day = datetime.fromisoformat(as_of or last.isoformat()).replace(tzinfo=UTC)
    except ValueError:
        raise ConfigurationError(
            f"as_of is {as_of!r}; expected a day such as 2017-06-12; correct --as-of"
        ) from None
    config = make_recipe(recipe)
    return LogWindow(config, event_log, plan_of(config, day + timedelta(days=not as_of)))


class PastWindow(NamedTuple):
    """One window of the past, and what would have been said of it."""

    first: date
    worst: float  # The largest deviation, as a multiple of its limit.
    warnings: tuple[str, ...]
    is_critical: bool


class Calibration(NamedTuple):
    """What the limits would have said of the past."""

    windows: tuple[PastWindow, ...]
    budget: float

    @property
    def alarm_share(self) -> float:
        """The share of windows with a warning."""
        return sum(bool(window.warnings) for window in self.windows) / len(self.windows)

    @property
    def factor(self) -> float | None:
        """The factor by which limits would be wider to keep to the budget; None: too few windows.

        It is never below 1, because the floors say what matters.
        """
        num = len(self.windows)
        rank = math.ceil((num + 1) * (1 - self.budget))
        if rank > num:
            return None
        return max(1.0, sorted(window.worst for window in self.windows)[rank - 1])


def calibrate_limits(
    settings: Settings, recipe: str, as_of: str, budget: float = BUDGET
) -> Calibration:
    """Return what the gate would have said of a log's past windows.

    Raises:
        DataContractError: the log is missing, breaks its contract, or is too short.
    """
    window = open_window(settings, recipe, as_of)
    event_log, length = window.event_log, len(window.judged)
    first, _ = event_log.span("impressions")
    start = day_number(datetime(first.year, first.month, first.day, tzinfo=UTC))
    with tempfile.TemporaryDirectory(prefix="homefeed-gate-") as scratch:
        days = measure_log(event_log, window.plan, range(start, window.judged.stop), Path(scratch))
    if windows := tuple(past_windows(days, length)):
        return Calibration(windows, budget)
    raise DataContractError(
        f"the event log at {event_log.uri} has {len(days)} days up to as_of; expected the {length} "
        f"days of a snapshot and {CYCLE_DAYS} more, to hold the past against itself; choose a "
        f"later --as-of or wait"
    )


def past_windows(
    days: Sequence[DayProfile], num_window_days: int, step_days: int = CYCLE_DAYS
) -> Iterator[PastWindow]:
    """Yield what would have been said of each window, the first one of which has a history.

    Args:
        days: Of the whole log, by day.
        num_window_days: Length of a snapshot's windows together; so many days are accepted before
            the first window that is judged.
        step_days: From the beginning of one window to that of the next; windows that are nearer
            than CYCLE_DAYS share days.
    """
    from validation.data_gate.days.gate import date_of
    from validation.data_gate.days.limits import deviations

    first, end = days[0].day + num_window_days, days[-1].day + 1
    for start in range(first, end - CYCLE_DAYS + 1, step_days):
        before = [day for day in days if day.day < start]
        judged = [day for day in days if start <= day.day < start + CYCLE_DAYS]
        if found := deviations(before, judged):
            missing = {*range(start, start + CYCLE_DAYS)} - {day.day for day in judged}
            told = sorted({each.name for each in found if each.times_limit > 1})
            yield PastWindow(
                date_of(start),
                max(each.times_limit for each in found),
                (*(f"no rows on {date_of(day)}" for day in sorted(missing)), *told),
                any(each.is_harmful for each in found),
            )


def calibration_lines(found: Calibration) -> Iterator[str]:
    """Yield the result as lines for people."""
    for window in found.windows:
        warned = f"; warns of {', '.join(window.warnings)}" if window.warnings else ""
        yield (
            f"{window.first}  largest deviation {window.worst:.2f} times its limit{warned}"
            f"{'; critical' if window.is_critical else ''}"
        )
    num_alarms = sum(bool(window.warnings) for window in found.windows)
    yield (
        f"{num_alarms} of {len(found.windows)} past windows would have brought a warning "
        f"({found.alarm_share:.0%}); the budget is {found.budget:.0%}"
    )
    if found.factor is None:
        needed = math.ceil(1 / found.budget) - 1
        yield f"{needed} windows are needed to say how much wider limits would have to be"
    elif found.alarm_share <= found.budget or found.factor == 1:
        yield "the limits keep to it; nothing has to be set"
    else:
        yield (
            f"limits {found.factor:.2f} times as wide would have kept to it; set "
            f"data_gate.limit_factor so in the recipe"
        )


class NamedTrial(NamedTuple):
    """What the gate said of one planted defect."""

    defect: str
    strength: str
    trial: "Trial"


def try_defects(
    settings: Settings, recipe: str, as_of: str, names: Sequence[str] = ()
) -> Iterator[NamedTrial]:
    """Yield what the gate says of the clean days, and then of each planted defect.

    Args:
        settings: Where the log is.
        recipe: Its reference.
        as_of: YYYY-MM-DD; nothing takes the day after the log's last.
        names: Of defects; all of them where none is named.

    Raises:
        ConfigurationError: a defect is not known.
        DataContractError: the log is missing, breaks its contract, or is too short.
    """
    from validation.data_gate.days.limits import FEWEST_DAYS
    from validation.data_gate.planted import DEFECTS

    if unknown := sorted({*names} - {defect.name for defect in DEFECTS}):
        raise ConfigurationError(
            f"no planted defects are called {unknown}; expected some of "
            f"{[defect.name for defect in DEFECTS]}; correct the names"
        )
    window = open_window(settings, recipe, as_of)
    with tempfile.TemporaryDirectory(prefix="homefeed-gate-") as scratch:
        bench = prepare(window, scratch)
        if len(bench.history) < FEWEST_DAYS:
            raise DataContractError(
                f"the event log at {window.event_log.uri} has {len(bench.history)} days before the "
                f"windows; expected {FEWEST_DAYS}, to know what is usual; choose a later --as-of"
            )
        yield NamedTrial(CLEAN, "", bench.judge(bench.clean))
        for defect in DEFECTS:
            if names and defect.name not in names:
                continue
            for number, strength in enumerate(defect.strengths):
                rng = np.random.default_rng([SEED, number])
                log = defect.plant(bench.clean, strength, rng)
                yield NamedTrial(defect.name, STRENGTHS[number], bench.judge(log))


def prepare(window: LogWindow, scratch: str) -> "Workbench":
    """Read a window's rows into memory, and measure the days before it."""
    from validation.data_gate.planted import Workbench

    before = range(window.judged.start - EARLIER_DAYS, window.judged.start)
    history = measure_log(window.event_log, window.plan, before, Path(scratch))
    return Workbench(load_log(window), history, categories_of(window.plan), scratch)


def load_log(window: LogWindow, days: range | None = None) -> "LogRows":
    """Read the rows of a window's days, or of others, and of the day before them, into memory."""
    from validation.data_gate.planted import LogRows

    days, plan, event_log = days or window.judged, window.plan, window.event_log
    rows, pins = rows_of(event_log, plan, days), []
    for file in event_log.files_of("pins"):
        found = read_rows(event_log, file, (), Before("pin_id", 1 << 62))
        versions = np.asarray(found["embedding_version"].cast(pa.string()))
        found = found.filter(pa.array(versions == plan.config.embedding_version))
        vectors = to_list_column(embedding_matrix(file.path, found))
        pins.append(pa.table({"pin_id": found["pin_id"], "embedding": vectors}))
    return LogRows(
        impressions=pa.concat_tables(rows.impressions),
        actions=pa.concat_tables(rows.actions),
        pins=pa.concat_tables(pins),
        users=pa.concat_tables(rows.users or ()),
        first_day=days.start,
        holdout_day=plan.holdout.start_ms // DAY_MS,
        end_day=days.stop,
    )


def trial_lines(trials: Iterable[NamedTrial]) -> Iterator[str]:
    """Yield a line for each trial as it is done, and then how many were found."""
    done = []
    for each in trials:
        done.append(each)
        trial, told = each.trial, ", ".join(each.trial.told[:3])
        said = f"{'critical' if trial.is_critical else 'warned'}: {told}" if told else "NOT FOUND"
        if not trial.has_effect:
            said = f"nothing was planted, and it {said}" if told else "nothing to warn of"
        yield f"{each.defect:28}{each.strength:8}{said}"
    for strength in STRENGTHS:
        tried = [e.trial for e in done if e.strength == strength and e.trial.has_effect]
        found, critical = sum(t.is_found for t in tried), sum(t.is_critical for t in tried)
        yield f"{strength}: {found} of {len(tried)} found, {critical} of them critical"
