"""`homefeed anchor`: which recipe is accepted, and which are on hold; a person may change both.

Tested in tests/pipelines/cli/recipes/test_anchor.py.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from pipelines import storage
from pipelines.cli.printing import AsJson, Commands, say, say_result
from pipelines.contracts.code_identity import code_digest
from pipelines.recipes import make_recipe
from pipelines.registry import anchor
from pipelines.registry.seed_noise import SeedNoise
from pipelines.settings import Settings

app = Commands(no_args_is_help=True, help="The accepted recipe, and recipes on hold.")

Reason = Annotated[str, typer.Option(help="Why, in a sentence, for the record.")]


@app.command()
def show(as_json: AsJson = False) -> None:
    """List every change of the accepted recipe, oldest first; the last that counts holds now."""
    settings = Settings()
    workspace_uri = storage.to_uri(settings.workspace_location)
    entries = anchor.read(workspace_uri, settings.registered_model)
    in_force = anchor.in_force(workspace_uri, settings.registered_model)
    value = {"entries": entries, "in_force": in_force[-1] if in_force else None}
    say_result(value, as_json, lambda: _lines_of(settings.registered_model, entries, in_force))


def _lines_of(
    name: str, entries: Sequence[anchor.AnchorEntry], in_force: Sequence[anchor.AnchorEntry]
) -> Iterator[str]:
    if not entries:
        yield f"no recipe of {name} is accepted yet"
    for entry in entries:
        recipe = _named(entry.recipe) if entry.recipe else "unknown"
        kind = entry.kind if entry in in_force else f"{entry.kind} (given up, does not count)"
        yield f"{entry.set_at:%Y-%m-%dT%H:%M:%SZ}  {kind:9}  {recipe}  {entry.reason}"
    for each in in_force[-1].held if in_force else ():
        yield f"on hold: {each.digest[:12]}  {_named(each.recipe)}: {each.reason}"


def _named(recipe: anchor.Recipe) -> str:
    """Return a recipe's reference, also where today's code cannot read the recipe."""
    return str(recipe.config.get("source") or recipe.config.get("recipe"))


@app.command(name="set")
def set_(
    recipe: Annotated[str, typer.Option(help="Name, module:function or file, as of today.")],
    reason: Reason,
) -> dict[str, str]:
    """Make a recipe the accepted one: challengers of other recipes are held to it."""
    settings = Settings()
    accepted = anchor.Recipe(
        config=make_recipe(recipe).model_dump(mode="json"), code_digest=code_digest(), run_uri=None
    )
    workspace_uri = storage.to_uri(settings.workspace_location)
    name = settings.registered_model
    anchor.set_by_hand(workspace_uri, name, accepted, datetime.now(UTC), reason)
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
    entry = anchor.release(workspace_uri, name, recipe, datetime.now(UTC), reason)
    left = [each.digest for each in entry.held]
    short = ", ".join(digest[:12] for digest in left)
    say(f"{recipe} is released; on hold: {short or 'nothing'}")
    return {"on_hold": left}
