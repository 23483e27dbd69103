"""`homefeed anchor`: which recipe is accepted, and which are on hold; a person may change both.

Tested in tests/pipelines/cli/recipes/test_anchor.py.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from pipelines import storage
from pipelines.cli.printing import AsJson, Commands, say, say_result
from pipelines.contracts.code_identity import code_digest
from pipelines.recipes import make_recipe
from pipelines.registry import by_hand, history
from pipelines.registry.recipes_on_record import Recipe, Recipes
from pipelines.registry.seed_noise import SeedNoise
from pipelines.settings import Settings

app = Commands(no_args_is_help=True, help="The accepted recipe, and recipes on hold.")

Reason = Annotated[str, typer.Option(help="Why, in a sentence, for the record.")]


@app.command()
def show(as_json: AsJson = False) -> None:
    """List every change of the accepted recipe, oldest first; the last one holds now."""
    settings = Settings()
    workspace_uri = storage.to_uri(settings.workspace_location)
    known = history.load(workspace_uri, settings.registered_model)
    changes, before = [], Recipes()
    for each in known.placed:
        if each.entry.recipes != before or isinstance(each.entry.event, history.RecipeChange):
            changes.append(each.entry)
        before = each.entry.recipes
    value = {"entries": changes, "in_force": known.recipes}
    say_result(value, as_json, lambda: _lines_of(settings.registered_model, changes))


def _lines_of(name: str, changes: list[history.Entry]) -> Iterator[str]:
    if not changes:
        yield f"no recipe of {name} is accepted yet"
    for each in changes:
        event, recipe = each.event, each.recipes.accepted
        at = event.set_at if isinstance(event, history.RecipeChange) else event.moved_at
        named = _named(recipe) if recipe else "unknown"
        yield f"{at:%Y-%m-%dT%H:%M:%SZ}  {event.kind:9}  {named}  {event.reason}"
    for held in changes[-1].recipes.held if changes else ():
        yield f"on hold: {held.digest[:12]}  {_named(held.recipe)}: {held.reason}"


def _named(recipe: Recipe) -> str:
    """Return a recipe's reference, also where today's code cannot read the recipe."""
    return str(recipe.config.get("source") or recipe.config.get("recipe"))


@app.command(name="set")
def set_(
    recipe: Annotated[str, typer.Option(help="Name, module:function or file, as of today.")],
    reason: Reason,
) -> dict[str, str]:
    """Make a recipe the accepted one: challengers of other recipes are held to it."""
    settings = Settings()
    accepted = Recipe(
        config=make_recipe(recipe).model_dump(mode="json"), code_digest=code_digest(), run_uri=None
    )
    workspace_uri = storage.to_uri(settings.workspace_location)
    name = settings.registered_model
    by_hand.accept_recipe(workspace_uri, name, accepted, datetime.now(UTC), reason)
    digest = accepted.parse().recipe_digest
    say(f"accepted recipe of {name}: {recipe} ({digest[:12]})")
    return {"registered_model": name, "recipe": recipe, "recipe_digest": digest}


@app.command()
def seeds(
    run: Annotated[str, typer.Option(help="URI or path of a run folder with its snapshot.")],
    num: Annotated[int, typer.Option(min=5, help="Trainings that differ in their seed.")] = 5,
) -> SeedNoise:
    """Measure how much models of a run's recipe differ by their seed, and keep that."""
    from pipelines.cli.recipes.seeds import measure_seeds

    found = measure_seeds(storage.to_uri(run), num)
    for seed, value in zip(found.seeds, found.values, strict=True):
        say(f"seed {seed}: {found.target_metric} {value:.4f}")
    say(f"standard deviation between seeds: {100 * found.deviation:.2f} % of the mean")
    return found


@app.command()
def release(
    recipe: Annotated[str, typer.Option(help="First digits of the digest of a recipe on hold.")],
    reason: Reason,
) -> dict[str, list[str]]:
    """Let a recipe that was rolled back be promoted again."""
    settings = Settings()
    workspace_uri = storage.to_uri(settings.workspace_location)
    name = settings.registered_model
    found = by_hand.release_recipe(workspace_uri, name, recipe, datetime.now(UTC), reason)
    left = [each.digest for each in found.held]
    short = ", ".join(digest[:12] for digest in left)
    say(f"{recipe} is released; on hold: {short or 'nothing'}")
    return {"on_hold": left}
