"""Recipes as text: from a YAML or TOML file to a recipe's value, and from a value to YAML.

A file is data: YAML's aliases, which may grow without bound, are refused (`extends` shares values
between recipes), and so are fields that stand twice. A field is named by its full dotted path.
Types are strict: '2' is no number, and neither is true. What is shown can be saved and used as a
recipe again. Not for finding a file (`pipelines.recipes.references`). Tested in
tests/pipelines/recipes/test_text.py.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes.built_in import production

_FLOAT = ("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), None)
"""Numbers such as 1e-3, which YAML 1.1 takes for text because they have no point."""
_NAMES = ("name", "metric")
"""Fields by which an entry of a list is known to people: of heads and features, and of limits."""
_ABSENT = object()


class _Loader(yaml.SafeLoader):
    """The safe loader, which takes 1e-3 for a number, and no alias and no field twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next value's node, where it is no alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise ConstructorError(None, None, "a recipe has no aliases (*)", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping, in which every field stands once."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"field {key.value!r} stands twice"
                raise ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes a text that the loader would take for a number."""


for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(*_FLOAT)


def parse(text: str, origin: str, is_toml: bool) -> Any:
    """Return what a text says.

    Args:
        text: YAML or TOML.
        origin: Where it was read, for the message.
        is_toml: Which of the two it is.

    Raises:
        ConfigurationError: it cannot be read as such; the message says where.
    """
    try:
        return tomllib.loads(text) if is_toml else yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        deep = "it is nested too deep" if isinstance(error, RecursionError) else ""
        raise ConfigurationError(
            f"recipe {origin} cannot be read as {'TOML' if is_toml else 'YAML'}: "
            f"{deep or ' '.join(str(error).split())}; expected sections with fields; correct that "
            f"line"
        ) from None


def validated(value: dict[str, Any], origin: str) -> RunConfig:
    """Return the value of a recipe.

    Args:
        value: The JSON form of a `RunConfig`, without `source`.
        origin: Where it was read, for the message.

    Raises:
        ConfigurationError: it is not valid; the message has a line for each problem.
    """
    try:
        if "source" in value:
            raise TypeError("source is set by who reads the recipe; remove the field")
        return RunConfig.model_validate_json(json.dumps(value, default=str), strict=True)
    except RecursionError:
        problems = ["it is nested too deep; expected sections with fields; take out levels"]
    except TypeError as error:  # of JSON's, about a field that is no text
        problems = [str(error)]
    except ValidationError as error:
        problems = [_problem(each) for each in error.errors(include_url=False)]
    lines = "\n".join(f"- {problem}" for problem in problems)
    raise ConfigurationError(
        f"recipe {origin} is not valid:\n{lines}\n"
        f"Correct the recipe; `homefeed recipe show completejourney` prints a valid one"
    )


def _problem(detail: Any) -> str:
    """Say what is wrong with one field (`ValidationError.errors()`)."""
    *above, name = place = detail["loc"] or ("it",)
    path, what = _dotted(place), detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        section = _dotted([part for part in above if isinstance(part, str)])
        known = [each.rpartition(".") for each in _fields(production().model_dump(mode="json"))]
        beside = {last: _dotted((*above, last)) for first, _, last in known if first == section}
        # Those beside it come last, so that they win over others of the same name.
        everywhere = {
            last: f"{first}.{last}".lstrip(".") for first, _, last in reversed(known)
        } | beside
        for fields in (beside, everywhere):
            if near := difflib.get_close_matches(str(name), fields, n=1):
                return f"{path}: there is no such field; did you mean {fields[near[0]]}?"
        return f"{path}: there is no such field; expected one of {', '.join(beside or everywhere)}"
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] == "value_error":  # our validators name option, value and range
        return what if not detail["loc"] or what.startswith(path) else f"{path}: {what}"
    found = json.dumps(detail["input"], ensure_ascii=False, default=str)
    found = f"{found[:77]}..." if len(found) > 80 else found
    return f"{path} is {found}: {what[0].lower()}{what[1:]}"


def _dotted(place: Sequence[str | int]) -> str:
    """Return a field's place as people write it: `features.heads[0].name`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).lstrip(".")


def _fields(value: Any, above: str = "") -> Iterator[str]:
    """Yield the dotted paths of a value's fields; entries of a list count as one."""
    for each in value[:1] if isinstance(value, list) else ():
        yield from _fields(each, above)
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield (path := f"{above}.{name}".lstrip("."))
        yield from _fields(inner, path)


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
