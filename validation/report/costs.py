"""What a cycle cost, as the rows of a table: by stage, against the last cycles.

Not for measuring it (`pipelines.metrics.usage`).
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from statistics import median
from typing import Any

from rich.filesize import decimal

from pipelines.contracts.cycle import StageCost

NOT_KNOWN = "–"
Costs = Sequence[StageCost]
"""What the stages of one cycle used, as far as they have ended."""


def cost_rows(costs: Costs, earlier: Sequence[Costs]) -> list[dict[str, str]]:
    """Return a row for each stage that has ended, and one for all of them together, as texts.

    `earlier` is the median time of the last cycles. The sum is held against the same stages of the
    earlier cycles: one that lacks a stage is not counted in it.
    """
    rows = [_row(each.stage, (each,), earlier) for each in costs]
    return [*rows, _row("together", costs, earlier)] if costs else []


def duration(seconds: float) -> str:
    """Return a time as seconds, and from a hundred on as h:mm:ss: '0.4 s', '41.0 s', '3:05:00'."""
    return f"{seconds:.1f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))


def _row(name: str, costs: Costs, earlier: Sequence[Costs]) -> dict[str, str]:
    """Return a row; a time differs from the median by a share where it is not all noise."""

    def said(
        field: str, together: Callable[[Iterable[int]], int], say: Callable[[int], str]
    ) -> str:
        known: list[Any] = [getattr(each.usage, field, None) for each in costs]
        return NOT_KNOWN if None in known else say(together(known))

    wall_s = sum(each.wall_s for each in costs)
    stages = {each.stage for each in costs}
    same = [[each.wall_s for each in cycle if each.stage in stages] for cycle in earlier]
    walls = [sum(found) for found in same if len(found) == len(stages)]
    usual = median(walls) if walls else 0.0
    share = f" ({100 * (wall_s / usual - 1):+.0f} %)" if usual >= 1 else ""
    return dict(
        stage=name,
        wall=duration(wall_s),
        earlier=f"{duration(usual)}{share}" if walls else NOT_KNOWN,
        cpu=said("cpu_s", sum, duration),
        gpu=said("gpu_s", sum, duration),
        peak=said("peak_memory_bytes", max, decimal),
        read=said("read_bytes", sum, decimal),
        written=said("written_bytes", sum, decimal),
    )
