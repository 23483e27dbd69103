"""What `homefeed local retrain` prints of its cycles at the end. Runs nothing, and asks no server.

Tested in tests/pipelines/local/test_summary.py, and with a real Airflow in test_real_airflow.py.
"""

from collections.abc import Iterator, Sequence

from rich.console import Console

from pipelines.alerts.commands import runnable, serving_command
from pipelines.contracts.judged.cycle import CycleFacts
from pipelines.cycles.reading import find_cycle
from pipelines.cycles.text import lines_of
from pipelines.settings import Settings


def show_summary(console: Console, settings: Settings, triggers: Sequence[str]) -> None:
    """Print what each cycle came to and took, and how to ask what serves now."""
    for trigger in triggers:
        cycle = find_cycle(settings.workspace_location, trigger, settings)
        lines = [f"{trigger}: did not begin"] if cycle is None else describe(cycle)
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    serving = f"which model serves now: {runnable(serving_command(settings))}"
    console.print(serving, markup=False, highlight=False, soft_wrap=True)


def describe(cycle: CycleFacts) -> Iterator[str]:
    """Yield the lines about one cycle, with its times."""
    yield from lines_of(cycle, is_whole=True)
    costs = cycle.costs
    times = ", ".join(f"{each.stage} {each.wall_s:.1f}" for each in costs.stages)
    yield (
        f"  elapsed {costs.elapsed_s:.1f} s, of it {100 * costs.overhead_share:.0f} % outside the "
        f"stages' own work; seconds: {times}"
    )
