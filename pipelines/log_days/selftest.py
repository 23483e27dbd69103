"""Plants every known defect into a copy of a log's last days, and says which the gate finds.

The rows of the windows are read into memory once; nothing is written. The clean days are tried
too, because a gate that warns of them finds everything. Not for judging one planted defect:
`validation.data_gate.days.trial`.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.event_log.parquet_files import Before
from pipelines.event_log.reader import read_rows
from pipelines.event_log.rules import embedding_matrix
from pipelines.log_days.judging import EARLIER_DAYS
from pipelines.log_days.reading import DayRange, categories_of, measure_log, rows_in_memory
from pipelines.log_days.windows import LogWindow, open_window
from pipelines.settings import Settings

if TYPE_CHECKING:
    from validation.data_gate.days.trial import Trial, Workbench
    from validation.data_gate.planted.log_rows import LogRows

CLEAN = "(nothing planted)"
STRENGTHS = ("weak", "middle", "strong")
SEED = 1


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
    from validation.data_gate.defects import DEFECTS

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
    from validation.data_gate.days.trial import Workbench

    before = DayRange(window.judged.first - EARLIER_DAYS, window.judged.first)
    history = measure_log(window.event_log, window.plan, before, Path(scratch))
    return Workbench(load_log(window), history, categories_of(window.plan), scratch)


def load_log(window: LogWindow, days: DayRange | None = None) -> "LogRows":
    """Read the rows of a window's days, or of others, and of the day before them, into memory."""
    from validation.data_gate.planted.log_rows import LogRows

    days, plan = days or window.judged, window.plan
    found = rows_in_memory(window.event_log, plan, days)
    return LogRows(
        impressions=found["impressions"],
        actions=found["actions"],
        pins=_pins(window),
        users=found["users"],
        first_day=days.first,
        holdout_day=window.holdout_day,
        end_day=days.end,
    )


def _pins(window: LogWindow) -> pa.Table:
    """Return the pins of the recipe's embedding version."""
    version, parts = window.plan.config.embedding_version, []
    for file in window.event_log.files_of("pins"):
        rows = read_rows(window.event_log, file, (), Before("pin_id", 1 << 62))
        keep = np.asarray(rows["embedding_version"].cast(pa.string())) == version
        rows = rows.filter(pa.array(keep))
        vectors = to_list_column(embedding_matrix(file.path, "pin_id", rows))
        parts.append(pa.table({"pin_id": rows["pin_id"], "embedding": vectors}))
    return pa.concat_tables(parts)


def lines_of(trials: Iterable[NamedTrial]) -> Iterator[str]:
    """Yield a line for each trial as it is done, and then how many were found."""
    done = []
    for each in trials:
        done.append(each)
        yield f"{each.defect:28}{each.strength:8}{_said(each)}"
    for strength in STRENGTHS:
        tried = [e.trial for e in done if e.strength == strength and e.trial.has_effect]
        found, critical = sum(t.is_found for t in tried), sum(t.is_critical for t in tried)
        yield f"{strength}: {found} of {len(tried)} found, {critical} of them critical"


def _said(named: NamedTrial) -> str:
    trial = named.trial
    if named.defect == CLEAN and not trial.told:
        return "nothing is warned of, as it should be"
    if not trial.has_effect:
        return "nothing here that it could spoil" if not trial.told else "warned of nothing planted"
    if not trial.told:
        return "NOT FOUND"
    severity = "critical" if trial.is_critical else "warned"
    return f"{severity}: {', '.join(trial.told[:3])}"
