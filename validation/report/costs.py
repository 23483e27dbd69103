"""What a cycle cost, as the rows of a table: by stage, against the last cycles.

Not for measuring it (`pipelines.metrics.usage`). Tested in tests/validation/report/test_costs.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from pipelines.contracts.cycle import CycleCosts, StageCost

_STEPS = ("B", "kB", "MB", "GB", "TB", "PB")
NOT_KNOWN = "–"


@dataclass(frozen=True)
class CostRow:
    """What one stage used, as texts; `earlier` is the median time of the last cycles."""

    stage: str
    wall: str
    earlier: str
    cpu: str
    gpu: str
    peak: str
    read: str
    written: str


def cost_rows(costs: CycleCosts, earlier: Sequence[CycleCosts]) -> tuple[CostRow, ...]:
    """Return a row for each stage that has ended, and one for all of them together.

    The sum is held against the same stages of the earlier cycles: one that lacks a stage is not
    counted in it.
    """
    if not costs.stages:
        return ()
    names = [each.stage for each in costs.stages]
    rows = [_row(each.stage, (each,), _walls(earlier, (each.stage,))) for each in costs.stages]
    return (*rows, _row("together", costs.stages, _walls(earlier, names)))


def total_wall_s(costs: CycleCosts) -> float:
    """Return the seconds of all stages together; stages that run side by side count each."""
    return sum(each.wall_s for each in costs.stages)


def duration(seconds: float) -> str:
    """Return a time as people say it: '0.4 s', '41 s', '12 min', '3 h 05 min'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(num_bytes: float) -> str:
    """Return a number of bytes as people say it: '0 B', '1.2 MB', '340 GB'."""
    step = 0
    while num_bytes >= 999.5 and step < len(_STEPS) - 1:
        num_bytes, step = num_bytes / 1000, step + 1
    return f"{num_bytes:.0f} {_STEPS[step]}" if not step else f"{num_bytes:.3g} {_STEPS[step]}"


def _walls(earlier: Sequence[CycleCosts], names: Sequence[str]) -> list[float]:
    found = [[each.of(name) for name in names] for each in earlier]
    return [sum(cost.wall_s for cost in costs if cost) for costs in found if all(costs)]


def _row(name: str, costs: Sequence[StageCost], walls: list[float]) -> CostRow:
    wall_s = sum(each.wall_s for each in costs)
    return CostRow(
        stage=name,
        wall=duration(wall_s),
        earlier=_against(wall_s, walls),
        cpu=_said(costs, "cpu_s", sum, duration),
        gpu=_said(costs, "gpu_s", sum, duration),
        peak=_said(costs, "peak_memory_bytes", max, size),
        read=_said(costs, "read_bytes", sum, size),
        written=_said(costs, "written_bytes", sum, size),
    )


def _against(wall_s: float, walls: list[float]) -> str:
    """Say the median of earlier cycles, and how this one differs where it is not all noise."""
    if not walls:
        return NOT_KNOWN
    usual = median(walls)
    if usual < 1:
        return duration(usual)
    return f"{duration(usual)} ({100 * (wall_s / usual - 1):+.0f} %)"


def _said(
    costs: Sequence[StageCost],
    field: str,
    together: Callable[[list[float]], float],
    say: Callable[[float], str],
) -> str:
    """Return a figure of all these stages; `NOT_KNOWN` where one of them was not measured."""
    found = [getattr(each.usage, field) if each.usage else None for each in costs]
    known = [float(each) for each in found if each is not None]
    return say(together(known)) if len(known) == len(found) else NOT_KNOWN
