"""`homefeed recipe`: what a recipe says, whether it can be run, and where two of them differ.

Nothing is built or recorded. Tested in tests/pipelines/cli/recipes/test_recipe.py.
"""

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines import storage
from pipelines.cli.printing import Commands, say, say_text, say_value
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.errors import DataContractError, HomefeedError, TrackingUnavailableError
from pipelines.contracts.time import parse_instant
from pipelines.recipes import canonical, make_recipe
from pipelines.recipes.references import EXPECTED
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.preconditions.cycle import Asked

app = Commands(no_args_is_help=True, help="What a recipe says, and whether it can be run.")

Reference = Annotated[str, typer.Argument(help=f"{EXPECTED[0].upper()}{EXPECTED[1:]}.")]
AsOf = Annotated[
    str, typer.Option(help="Day (YYYY-MM-DD, UTC); the day after the log's last by default.")
]


@app.command()
def show(reference: Reference) -> dict[str, Any]:
    """Print the complete recipe as YAML, which can be saved and used as a recipe."""
    from pipelines.recipes.showing import to_yaml

    recipe = make_recipe(reference)
    say_text(to_yaml(recipe))
    return {"recipe": recipe, **recipe.recipe_ref.model_dump(include={"digest", "reference"})}


@app.command()
def diff(one: Reference, other: Reference) -> dict[str, list[str]]:
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
    return {"differences": found, "digests": [first.recipe_digest, second.recipe_digest]}


@app.command()
def check(reference: Reference, as_of: AsOf = "") -> None:
    """Say all that would keep a cycle with a recipe from being begun now; nothing is recorded.

    The same is asked as at the beginning of a cycle that may promote and trains in one process.
    """
    from pipelines.preconditions.cycle import QUESTIONS, Asked, ask_event_log, refusals
    from pipelines.preconditions.recipe_alone import listed
    from pipelines.snapshot.plan import plan_of

    settings, config, now = Settings(), make_recipe(reference), datetime.now(UTC)
    found: list[HomefeedError] = []
    questions = QUESTIONS
    try:
        day = parse_instant(as_of, "--as-of") if as_of else _day_after(settings)
    except DataContractError as error:
        found, day = [error], now
        questions = tuple(ask for ask in QUESTIONS if ask is not ask_event_log)
    request = RunRequest(
        recipe=canonical(reference),
        as_of=day,
        now=now,
        may_promote=True,
        num_devices=1,
        accelerator=settings.accelerator,
        trigger="recipe check",
    )
    asked = Asked(request, config, settings, may_settle=False)
    found += refusals(asked, questions)
    unasked = [error for error in found if isinstance(error, TrackingUnavailableError)]
    found = [error for error in found if error not in unasked]
    if asked.log is not None:
        say(f"event log: {asked.event_log_uri}, as of {request.day:%Y-%m-%d}")
        plan = plan_of(config, request.day)
        spans = (f"{name} {each.start:%Y-%m-%d} to {each.end:%Y-%m-%d}"
                 for name, each in plan.windows.items())  # fmt: skip
        say(f"impressions that it would use: {', '.join(spans)}; the last day is not included")
    say(f"champion: {f'not checked, because {unasked[0]}' if unasked else _champion_of(asked)}")
    problems = [each for error in found for each in error.problems or (str(error),)]
    say_value(
        {
            "recipe": config.recipe_ref,
            "as_of": request.day,
            "can_be_run": not found,
            "problems": problems,
            "not_checked": [str(error) for error in unasked],
            "champion": asked.champion,
        }
    )
    if found:
        raise type(found[0])(f"recipe {config.reference} cannot be run:{listed(problems)}")
    say(f"recipe {config.recipe_ref.label} can be run{', once MLflow answers' if unasked else ''}")


def _day_after(settings: Settings) -> datetime:
    """Return the day after the event log's last.

    Raises:
        DataContractError: there is no log, or a table of it is missing.
    """
    from pipelines.event_log.log_files import open_event_log

    event_log = open_event_log(storage.to_uri(settings.event_log_location))
    last = event_log.span("impressions")[1] + timedelta(days=1)
    return datetime(last.year, last.month, last.day, tzinfo=UTC)


def _champion_of(asked: "Asked") -> str:
    """Return in words which champion the questions were about."""
    from pipelines.preconditions.champion import recipe_of

    if asked.client is None or not asked.knows_champion:
        return "not known"
    if asked.champion is None:
        return f"{asked.settings.registered_model} has none yet"
    label, its_own = asked.champion.label, None
    with contextlib.suppress(TrackingUnavailableError):
        its_own = recipe_of(asked.client, asked.workspace_uri, asked.champion)
    if its_own is None:
        return f"{label} is not checked; its cycle is not on record"
    return f"{label}, recipe {its_own.recipe_ref.label}"
