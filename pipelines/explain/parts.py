"""In what the two sides of a comparison differ: parts, each of which can be put back alone.

A recipe's parts are its action types, its features, its heads, each window that belongs to a
recipe, the model and the training. Not for training anything (`pipelines.explain.training`).
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from pipelines.contracts.config import RECIPE_WINDOWS, RunConfig
from pipelines.contracts.errors import ConfigurationError

_LISTS = {
    "action type": "action_types",
    "numeric feature": "numeric",
    "categorical feature": "categorical",
}
_NO_RECIPE = {"seed", "checkpoint_every_steps"}  # `RunConfig.recipe_digest` leaves them out too.


@dataclass(frozen=True)
class Setting:
    """All that decides a model but for its seed."""

    recipe: RunConfig
    as_of: datetime  # Of the rows that it is trained on.
    code: str  # Digest of the code that trains it; '' unknown.


def parts_of(ours: Setting, theirs: Setting) -> dict[str, str]:
    """Return the parts in which two settings differ, by name, with what they are on both sides."""
    found = {}
    if ours.as_of != theirs.as_of:
        found["data"] = f"rows before {theirs.as_of:%Y-%m-%d} -> {ours.as_of:%Y-%m-%d}"
    if theirs.code not in ("", ours.code):
        found["code"] = f"{theirs.code[:12]} -> {ours.code[:12]}"
    mine, other = _groups(ours.recipe), _groups(theirs.recipe)
    for name in {**other, **mine}:
        then, now = other.get(name), mine.get(name)
        told = [(f"{then or 'not there'}", f"{now or 'not there'}")] if then != now else []
        if told and isinstance(then, dict) and isinstance(now, dict):
            told = [(f"{k}: {then.get(k)}", v) for k, v in now.items() if v != then.get(k)]
        if told:
            found[name] = ", ".join(f"{was} -> {is_now}" for was, is_now in told)
    return found


def put_back(ours: Setting, theirs: Setting, name: str) -> Setting:
    """Return our setting with one part as the other side has it.

    Raises:
        ConfigurationError: our recipe needs the part as it is.
    """
    if name in ("data", "code"):
        field = {"data": "as_of", "code": "code"}[name]
        return replace(ours, **{field: getattr(theirs, field)})
    groups = _groups(ours.recipe) | {name: _groups(theirs.recipe).get(name)}
    listed = {
        field: [v for n, v in groups.items() if n.startswith(f"{kind} ") and v is not None]
        for kind, field in _LISTS.items()
    }
    dumped = ours.recipe.model_dump(mode="json")
    dumped |= {"features": groups["heads"] | listed, "model": groups["model"]}
    dumped["training"] |= groups["training"]
    dumped["snapshot"] |= {window: groups[f"snapshot.{window}"] for window in RECIPE_WINDOWS}
    try:
        return replace(ours, recipe=RunConfig.model_validate(dumped))
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"]
        raise ConfigurationError(f"{name} cannot be put back alone: {said}") from None


def _groups(recipe: RunConfig) -> dict[str, Any]:
    """Return the parts of a recipe by name, as JSON."""
    dumped = recipe.model_dump(mode="json")
    features, found = dumped["features"], dict[str, Any]()
    for kind, field in _LISTS.items():
        found |= {
            f"{kind} {e if isinstance(e, str) else e['name']}": e for e in features.pop(field)
        }
    found |= {f"snapshot.{window}": dumped["snapshot"][window] for window in RECIPE_WINDOWS}
    training = {name: v for name, v in dumped["training"].items() if name not in _NO_RECIPE}
    return found | {"heads": features, "training": training, "model": dumped["model"]}
