"""What a cycle cost, as the rows of a table: by stage, against the last cycles.

Not for measuring it (`pipelines.metrics.usage`).
"""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from pipelines.contracts.cycle import CycleCosts, StageCost

_STEPS = ("B", "kB", "MB", "GB", "TB", "PB")
NOT_KNOWN = "–"


def cost_rows(costs: CycleCosts, earlier: Sequence[CycleCosts]) -> list[dict[str, str]]:
    """Return a row for each stage that has ended, and one for all of them together, as texts.

    `earlier` is the median time of the last cycles. The sum is held against the same stages of the
    earlier cycles: one that lacks a stage is not counted in it.
    """
    if not costs.stages:
        return []
    rows = [_row(each.stage, (each,), earlier) for each in costs.stages]
    return [*rows, _row("together", costs.stages, earlier)]


def duration(seconds: float) -> str:
    """Return a time as people say it: '0.4 s', '41 s', '12 min', '3 h 05 min'."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(num_bytes: float) -> str:
    """Return a number of bytes as people say it: '0 B', '1.2 MB', '340 GB'."""
    step = 0
    while num_bytes >= 999.5 and step < len(_STEPS) - 1:
        num_bytes, step = num_bytes / 1000, step + 1
    return f"{num_bytes:.0f} {_STEPS[step]}" if not step else f"{num_bytes:.3g} {_STEPS[step]}"


def _row(name: str, costs: Sequence[StageCost], earlier: Sequence[CycleCosts]) -> dict[str, str]:
    """Return a row; a time differs from the median by a share where it is not all noise."""

    def said(
        field: str, together: Callable[[Iterable[float]], float], say: Callable[[float], str]
    ) -> str:
        found = [getattr(each.usage, field) if each.usage else None for each in costs]
        known = [float(each) for each in found if each is not None]
        return say(together(known)) if len(known) == len(found) else NOT_KNOWN

    wall_s = sum(each.wall_s for each in costs)
    same = [[cycle.of(each.stage) for each in costs] for cycle in earlier]
    walls = [sum(cost.wall_s for cost in found if cost) for found in same if all(found)]
    usual = median(walls) if walls else 0.0
    share = f" ({100 * (wall_s / usual - 1):+.0f} %)" if usual >= 1 else ""
    return dict(
        stage=name,
        wall=duration(wall_s),
        earlier=f"{duration(usual)}{share}" if walls else NOT_KNOWN,
        cpu=said("cpu_s", sum, duration),
        gpu=said("gpu_s", sum, duration),
        peak=said("peak_memory_bytes", max, size),
        read=said("read_bytes", sum, size),
        written=said("written_bytes", sum, size),
    )
