"""`homefeed recipe`: what a recipe says, whether it can be run, and where two of them differ.

Nothing is built or recorded. Tested in tests/pipelines/cli/recipes/test_recipe.py.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines import storage
from pipelines.cli.say import say, say_lines
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    TrackingUnavailableError,
)
from pipelines.contracts.time import floor_to_day, parse_instant, to_ms
from pipelines.recipes import make_recipe
from pipelines.recipes.references import EXPECTED
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.event_log.glimpse import Glimpse

app = typer.Typer(no_args_is_help=True, help="What a recipe says, and whether it can be run.")

Reference = Annotated[str, typer.Argument(help=f"{EXPECTED[0].upper()}{EXPECTED[1:]}.")]
AsOf = Annotated[
    str, typer.Option(help="Day (YYYY-MM-DD, UTC); the day after the log's last by default.")
]


@app.command()
def show(reference: Reference) -> None:
    """Print the complete recipe as YAML, which can be saved and used as a recipe."""
    from pipelines.recipes.showing import to_yaml

    say_lines(to_yaml(make_recipe(reference)))


@app.command()
def diff(one: Reference, other: Reference) -> None:
    """Print the fields in which two recipes differ, one per line, and both digests."""
    from pipelines.recipes.showing import differences

    first, second = make_recipe(one), make_recipe(other)
    found = differences(first, second)
    for line in found:
        say(line)
    if not found:
        is_alike = first.recipe == second.recipe
        which = "the name too" if is_alike else "only the name differs"
        say(f"all fields are the same, {which}: {first.recipe}, {second.recipe}")
    say(f"digests: {first.recipe_digest}, {second.recipe_digest}")
    if found and first.recipe_digest == second.recipe_digest:
        say("the digests are the same: what differs makes no other model")


@app.command()
def check(reference: Reference, as_of: AsOf = "") -> None:
    """Say all that would keep a recipe from being run now, before anything is built."""
    from pipelines.preconditions.recipe_alone import listed, recipe_problems

    settings, config = Settings(), make_recipe(reference)
    in_recipe = recipe_problems(config)
    in_log, notes = _problems_outside(config, settings, as_of)
    for note in notes:
        say(note)
    if in_recipe or in_log:
        kind = ConfigurationError if in_recipe else DataContractError
        raise kind(f"recipe {config.reference} cannot be run:{listed(in_recipe + in_log)}")
    say(f"recipe {config.recipe_ref.label} can be run")


def _problems_outside(
    config: RunConfig, settings: Settings, as_of: str
) -> tuple[list[str], list[str]]:
    """Return what event log and champion lack for a recipe, and what they were, in sentences."""
    from pipelines.event_log.glimpse import Glimpse
    from pipelines.event_log.log_files import open_event_log
    from pipelines.preconditions.event_log import log_problems

    uri = storage.to_uri(settings.event_log_location)
    try:
        event_log = open_event_log(uri)
    except DataContractError as error:
        return [str(error)], []
    if as_of:
        day = floor_to_day(parse_instant(as_of, "--as-of"))
    else:
        last = event_log.span("impressions")[1] + timedelta(days=1)
        day = datetime(last.year, last.month, last.day, tzinfo=UTC)
    log = Glimpse(event_log, to_ms(day))
    found = log_problems(config, log, day)
    against, note = _problems_with_champion(config, settings, log, day)
    return [*found, *against], [f"event log: {uri}, as of {day:%Y-%m-%d}", note]


def _problems_with_champion(
    config: RunConfig, settings: Settings, log: "Glimpse", as_of: datetime
) -> tuple[list[str], str]:
    """Return why the champion cannot be compared with a recipe, and which champion that is."""
    from pipelines.preconditions.champion import champion_problems, recipe_of
    from pipelines.registry import registry, tracking

    name = settings.registered_model
    try:
        client = tracking.connect(settings.tracking_uri)
        champion = registry.read_champion(client, name)
        if champion is None:
            return [], f"champion: {name} has none yet"
        its_own = recipe_of(client, storage.to_uri(settings.workspace_location), champion)
    except TrackingUnavailableError as error:
        return [], f"champion: not checked, because {error}"
    if its_own is None:
        return [], f"champion: {champion.label} is not checked; its cycle is not on record"
    found = champion_problems(its_own, config, log, as_of)
    lead = f"{champion.label} serves and cannot be compared:"
    label = its_own.recipe_ref.label
    return [f"{lead} {each}" for each in found], f"champion: {champion.label}, recipe {label}"
