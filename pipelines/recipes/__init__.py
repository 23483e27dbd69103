"""Complete values of a cycle's configuration: ours by name, and others by where they are.

Others come in by `make_recipe`. Not for where things run (`pipelines.settings`), nor for whether an
event log can feed a recipe (`pipelines.preconditions`). The DAG file imports this room, so nothing
heavy is imported when it is.
"""

from pipelines.recipes.built_in import RECIPES, completejourney, production, smoke, world
from pipelines.recipes.references import canonical, key_of, make_recipe

__all__ = [
    "RECIPES",
    "canonical",
    "completejourney",
    "key_of",
    "make_recipe",
    "production",
    "smoke",
    "world",
]
