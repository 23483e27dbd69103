"""`homefeed ingest ...`: write an event log, from somebody's data or from a simulated world.

Tested in tests/pipelines/cli/test_main.py.
"""

from typing import Annotated

import typer

from pipelines import storage
from pipelines.cli.printing import Commands, say
from pipelines.sources.world.parameters import Like, WorldParameters, make_parameters

app = Commands(help="Write an event log from somebody's data.", no_args_is_help=True)
_WORLD = WorldParameters()

To = Annotated[str, typer.Option(help="Event log URI to write.")]


@app.command()
def completejourney(to: To) -> dict[str, str]:
    """Write the Complete Journey retail data as an event log."""
    from pipelines.sources.completejourney.adapter import CompleteJourneyAdapter
    from pipelines.sources.publish import ingest

    ingest(CompleteJourneyAdapter(), to)
    return _written(to)


@app.command()
def world(
    to: To,
    num_users: Annotated[int, typer.Option(help="Users.")] = _WORLD.num_users,
    num_pins: Annotated[int, typer.Option(help="Pins.")] = _WORLD.num_pins,
    num_days: Annotated[int, typer.Option(help="Days with events.")] = _WORLD.num_days,
    start: Annotated[str, typer.Option(help="First day (YYYY-MM-DD).")] = str(_WORLD.start),
    seed: Annotated[int, typer.Option(help="The same one gives the same log.")] = _WORLD.seed,
    like: Annotated[
        Like, typer.Option(help="Whose action types and embedding version it has: a recipe's.")
    ] = "world",
    pin_lifetime_days: Annotated[
        float | None, typer.Option(help="Half-life of a pin's appeal; by default no pin fades.")
    ] = None,
) -> dict[str, str]:
    """Write a simulated world whose best possible ranking is known."""
    from pipelines.sources.publish import ingest
    from pipelines.sources.world.adapter import WorldAdapter

    made = make_parameters(num_users, num_pins, num_days, start, seed, like, pin_lifetime_days)
    ingest(WorldAdapter(made), to)
    return _written(to)


def _written(to: str) -> dict[str, str]:
    uri = storage.to_uri(to)
    say(uri)
    return {"event_log_uri": uri}
