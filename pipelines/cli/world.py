"""`homefeed world`: a simulated world that answers. Tested in tests/pipelines/world_run/."""

from typing import Annotated, Any, Literal

from typer import Option

from pipelines.cli.printing import Commands, say
from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings
from pipelines.sources.world.parameters import WorldParameters

app = Commands(no_args_is_help=True, help="A simulated world whose users answer what is shown.")
_SIZES = tuple(WorldParameters.model_fields)
Ranks = Literal["champion", "challenger", "frozen", "random", "optimum"]


@app.command()
def run(
    to: Annotated[str, Option(help="Event log that grows by the days.")],
    policy: Annotated[Ranks, Option(help="Who ranks; the optimum is the best that is known.")],
    days: Annotated[int, Option(help="How many more days.", min=1)] = 1,
    server: Annotated[
        str, Option(help="Address of `homefeed serve` that is asked; scored here by default.")
    ] = "",
    size: Annotated[
        list[str] | None,
        Option(help=f"NAME=VALUE of a new world, again and again: {', '.join(_SIZES)}."),
    ] = None,
) -> list[dict[str, Any]]:
    """Let users ask, rank, let them act, and write it down, day by day."""
    from pipelines import storage
    from pipelines.world_run.days import read_world, run_days
    from pipelines.world_run.who_ranks import policy_maker

    sizes = dict(_size(each) for each in size or [])
    uri = storage.to_uri(to)
    world = read_world(uri, **sizes)
    if server and policy != "champion":
        raise ConfigurationError("--server asks the champion; leave it out, or --policy champion")
    found = []
    for each in run_days(uri, world, policy_maker(Settings(), uri, policy, server), days):
        a_request = each.expected_repins / max(each.num_requests, 1)
        say(
            f"{each.day}  {each.policy}: {each.num_requests:,} requests, "
            f"{each.expected_repins:,.1f} expected repins ({a_request:.4f} a request), "
            f"{each.expected_in_top_3:,.1f} of them in the top 3, "
            f"{each.num_repins:,} drawn"
        )
        found.append(each.model_dump(mode="json"))
    return found


def _size(given: str) -> tuple[str, str]:
    name, _, value = given.partition("=")
    if name not in _SIZES or not value:
        raise ConfigurationError(
            f"--size is {given!r}; expected NAME=VALUE with a name of {', '.join(_SIZES)}"
        )
    return name, value
