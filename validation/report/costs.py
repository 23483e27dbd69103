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


Prices = tuple[float, float]
"""Of an hour of a core and of a GPU; 0: not known."""


def cost_rows(
    costs: Costs, earlier: Sequence[Costs], prices: Prices = (0.0, 0.0)
) -> list[dict[str, str]]:
    """Return a row for each stage that has ended, and one for all of them together, as texts.

    `earlier` is the median time of the last cycles. The sum is held against the same stages of the
    earlier cycles: one that lacks a stage is not counted in it.
    """
    shown = [(each.stage, (each,)) for each in costs] + [("together", costs)] * bool(costs)
    return [_row(name, of, earlier) | {"price": price_of(of, prices)} for name, of in shown]


def price_of(costs: Iterable[StageCost], prices: Prices) -> str:
    """Return what stages cost by the prices; '' without prices, or where nothing was measured."""
    hours = hours_of(costs)
    return f"{hours[0] * prices[0] + hours[1] * prices[1]:,.4g}" if hours and any(prices) else ""


def hours_of(costs: Iterable[StageCost]) -> tuple[float, float] | None:
    """Return the hours of cores and of GPUs that stages took; None: none was measured."""
    used = [cost.usage for cost in costs if cost.usage is not None]
    spent = sum(each.cpu_s for each in used), sum(each.gpu_s for each in used)
    return (spent[0] / 3600, spent[1] / 3600) if used else None


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
