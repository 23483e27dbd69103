"""`homefeed recipe` and `anchor`: what a recipe says, whether it can be run, which is accepted.

Tested in tests/pipelines/cli/test_recipe.py and test_anchor.py.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from typer import Argument, Option

from pipelines.cli.printing import Commands, recipes_like, say, say_all, say_text, say_value
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.errors import DataContractError, HomefeedError, TrackingUnavailableError
from pipelines.contracts.time import parse_instant
from pipelines.recipes import make_recipe
from pipelines.recipes.references import EXPECTED
from pipelines.registry import accepted_code, moves
from pipelines.registry import history as record
from pipelines.registry.history import Recipe, Recipes
from pipelines.settings import Settings

app = Commands(no_args_is_help=True, help="What a recipe says, and whether it can be run.")
anchor_app = Commands(no_args_is_help=True, help="The accepted recipe, and recipes on hold.")

_HELP = f"{EXPECTED[0].upper()}{EXPECTED[1:]}."
Reference = Annotated[str, Argument(help=_HELP, autocompletion=recipes_like)]
AsOf = Annotated[str, Option(help="Day (YYYY-MM-DD, UTC); by default the newest with labels.")]
Reason = Annotated[str, Option(help="Why, in a sentence, for the record.")]


@app.command()
def show(reference: Reference) -> dict[str, Any]:
    """Print the complete recipe as YAML, which can be saved and used as a recipe."""
    from pipelines.recipes.text import to_yaml

    recipe = make_recipe(reference)
    say_text(to_yaml(recipe))
    return {"recipe": recipe, **recipe.recipe_ref.model_dump(include={"digest", "reference"})}


@app.command()
def diff(one: Reference, other: Reference) -> dict[str, list[str]]:
    """Print the fields in which two recipes differ, one per line, and both digests."""
    from pipelines.recipes.text import differences

    first, second = make_recipe(one), make_recipe(other)
    found, digests = differences(first, second), [first.recipe_digest, second.recipe_digest]
    say_all(found or ["no field differs"])
    say(f"digests: {', '.join(digests)}")
    return {"differences": found, "digests": digests}


@app.command()
def propose(
    event_log: Annotated[str, Option(help="Its path or URI; HOMEFEED_EVENT_LOG by default.")] = "",
    name: Annotated[str, Option(help="What the recipe calls itself.")] = "mine",
) -> dict[str, str]:
    """Print a recipe for an event log as YAML, with the reason of each line, to be edited."""
    from pipelines.log_check.propose import propose as proposed

    text = proposed(event_log or Settings().event_log_uri, name)
    say_text(text)
    return {"recipe": text}


@app.command()
def check(reference: Reference, as_of: AsOf = "") -> None:
    """Say all that would keep a cycle with a recipe from being begun now; nothing is recorded.

    The same is asked as at the beginning of a cycle that may promote and trains in one process.
    """
    from pipelines.event_log.completeness import completeness
    from pipelines.event_log.log_files import open_event_log
    from pipelines.preconditions.cycle import (
        QUESTIONS,
        Asked,
        ask_event_log,
        holdout_size,
        listed,
        refusals,
    )
    from validation.model_gate.sizing import needed_by_log

    settings, config, now = Settings(), make_recipe(reference), datetime.now(UTC)
    found, questions, day = list[HomefeedError](), QUESTIONS, now
    try:
        if not as_of:
            event_log = open_event_log(settings.event_log_uri)
            as_of = f"{completeness(event_log).as_of:%Y-%m-%d}"
        day = parse_instant(as_of, "--as-of")
    except DataContractError as error:
        found = [error]
        questions = tuple(ask for ask in QUESTIONS if ask is not ask_event_log)
    asked = Asked.beforehand(config, settings, now, day)
    found += refusals(asked, questions)
    unasked = [error for error in found if isinstance(error, TrackingUnavailableError)]
    found = [error for error in found if error not in unasked]
    say(f"event log: {asked.settings.event_log_uri}, as of {asked.request.day:%Y-%m-%d}")
    served = asked.champion.label if asked.champion else "none, or not known"
    say(f"champion: {f'not checked, because {unasked[0]}' if unasked else served}")
    problems = [each for error in found for each in error.problems or (str(error),)]
    told = {"can_be_run": not found, "problems": problems, "not_checked": [*map(str, unasked)]}
    about = {"as_of": asked.request.day, "champion": asked.champion}
    size = None if found else holdout_size(asked)
    needed = size and needed_by_log(*size, config.model_gate.margin)
    if size and needed:
        more = f"about {needed.users:,} such users, or {needed.days:,} such days"
        say(
            f"holdout: {size.users:,} users and {size.actions:,} actions of the target in "
            f"{size.days} days promote about {needed.power:.0%} of equal models; four in five take "
            f"{more}"
        )
    told |= {"holdout": size and size._asdict(), "needed": needed and needed._asdict()}
    say_value({"recipe": config.recipe_ref, **about, **told})
    if found:
        raise type(found[0])(f"recipe {config.reference} cannot be run:{listed(problems)}")
    say(f"recipe {config.recipe_ref.label} can be run{', once MLflow answers' if unasked else ''}")


@anchor_app.command("show")
def show_accepted() -> dict[str, Any]:
    """List every change of the accepted recipe, oldest first; the last one holds now."""
    known, changes, before = record.load(*_place()), list[record.Entry](), Recipes()
    for change in known.entries:
        if change.recipes != before:
            changes.append(change)
            before, recipe = change.recipes, change.recipes.accepted
            said = f"{change.kind:9}  {recipe.label if recipe else 'unknown'}  {change.reason}"
            say(f"{change.moved_at:%Y-%m-%dT%H:%M:%SZ}  {said}")
    if not changes:
        say(f"no recipe of {known.name} is accepted yet")
    for held in before.held:
        say(f"on hold: {held.recipe.label}: {held.reason}")
    return {"entries": changes, "in_force": known.recipes}


def _place() -> tuple[str, str]:
    settings = Settings()
    return settings.workspace_uri, settings.registered_model


@anchor_app.command(name="set")
def accept(
    recipe: Annotated[str, Option(help="Name, module:function or file, as of today.")],
    reason: Reason,
) -> dict[str, str]:
    """Make a recipe the accepted one: challengers of other recipes are held to it."""
    workspace_uri, name = where = _place()
    config = make_recipe(recipe).model_dump(mode="json")
    accepted = Recipe(config=config, code_digest=code_digest(), run_uri=None)
    moves.accept_recipe(where, accepted, datetime.now(UTC), reason)
    accepted_code.keep(workspace_uri)  # Afterwards: a deletion may have taken it just before.
    digest = accepted.parse().recipe_digest
    say(f"accepted recipe of {name}: {recipe} ({digest[:12]})")
    return {"recipe_digest": digest}


@anchor_app.command()
def release(
    recipe: Annotated[str, Option(help="First digits of the digest of a recipe on hold.")],
    reason: Reason,
) -> dict[str, list[str]]:
    """Let a recipe that was rolled back be promoted again."""
    found = moves.release_recipe(_place(), recipe, datetime.now(UTC), reason)
    left = [each.recipe.digest for each in found.held]
    short = ", ".join(digest[:12] for digest in left)
    say(f"{recipe} is released; on hold: {short or 'nothing'}")
    return {"on_hold": left}
