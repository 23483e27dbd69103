"""Recipes as text for people: a complete one as YAML, and where two of them differ.

What is shown can be saved and used as a recipe again. Tested in
tests/pipelines/recipes/test_showing.py.
"""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from pipelines.contracts.config import RunConfig
from pipelines.recipes.reading import EXPONENT, FLOAT_TAG

_NAMES = ("name", "metric")
"""Fields by which an entry of a list is known to people: of heads and features, and of limits."""
_ABSENT = object()


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes a text that the reader would take for a number."""


_Dumper.add_implicit_resolver(FLOAT_TAG, EXPONENT, None)


def to_yaml(recipe: RunConfig) -> str:
    """Return a recipe's complete value; its digest and origin stand before it as a comment."""
    fields = recipe.model_dump(mode="json", exclude={"source"})
    text = yaml.dump(fields, Dumper=_Dumper, sort_keys=False, width=100)
    return f"# digest {recipe.recipe_digest}\n# read from {recipe.reference}\n{text}"


def differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Return the fields whose values differ, one line each; the name is no such field.

    An entry of a list is named by its name, where both lists have the same entries in the same
    order. Otherwise the lists are shown whole, because their order has a meaning.
    """
    values = (each.model_dump(mode="json", exclude={"source", "recipe"}) for each in (one, other))
    return [f"{path}: {_short(was)} -> {_short(now)}" for path, was, now in _pairs("", *values)]


def _pairs(path: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted path, one value, other value) of what differs."""
    mine, theirs = _named(one), _named(other)
    are_mappings = isinstance(one, dict) and isinstance(other, dict)
    if one == other:
        return
    if are_mappings or (mine and list(mine) == list(theirs)):
        for name in dict.fromkeys((*mine, *theirs)):
            inner = f"{path}.{name}".lstrip(".") if are_mappings else f"{path}[{name}]"
            yield from _pairs(inner, mine.get(name, _ABSENT), theirs.get(name, _ABSENT))
    else:
        yield path, one, other


def _named(value: Any) -> dict[str, Any]:
    """Return a mapping's entries, or those of a list by their names; none where they have none."""
    if isinstance(value, dict):
        return value
    entries = value if isinstance(value, list) else []
    for field in _NAMES if all(isinstance(each, dict) for each in entries) else ():
        names = [each.get(field) for each in entries]
        if None not in names and len(set(names)) == len(names):
            return dict(zip(map(str, names), entries, strict=True))
    return {}


def _short(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
