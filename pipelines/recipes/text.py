"""Recipes as text: from a YAML file to a recipe's value, and from a value to YAML.

A file is data: YAML's aliases, which may grow without bound, are refused (`extends` shares values
between recipes), and so are fields that stand twice. A field is named by its full dotted path.
Types are strict: '2' is no number, and neither is true. What is shown can be saved and used as a
recipe again. Not for finding a file (`pipelines.recipes.references`). Tested in
tests/pipelines/recipes/test_text.py.
"""

import difflib
import json
import re
from collections.abc import Hashable
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes.built_in import production

_FLOAT = ("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), None)
"""Numbers such as 1e-3, which YAML 1.1 takes for text because they have no point."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which takes 1e-3 for a number, and no alias and no field twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
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


def parse(content: bytes, origin: str, what: str = "recipe") -> Any:
    """Return what a YAML file says that was read at `origin`; `what` it is, for the message.

    Raises:
        ConfigurationError: it cannot be read as such; the message says where.
    """
    try:
        return yaml.load(content, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        deep = "it is nested too deep" if isinstance(error, RecursionError) else ""
        raise ConfigurationError(
            f"{what} {origin} cannot be read as YAML: {deep or ' '.join(str(error).split())}; "
            f"expected sections with fields; correct that line"
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
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    path, what = "".join(parts).lstrip(".") or "it", detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = (*RunConfig.model_fields, *_flat(production().model_dump(mode="json")))
        near = difflib.get_close_matches(path, known, n=1)
        return f"{path}: there is no such field{f'; did you mean {near[0]}?' if near else ''}"
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] == "value_error":  # our validators name option, value and range
        return what if not detail["loc"] or what.startswith(path) else f"{path}: {what}"
    found = json.dumps(detail["input"], ensure_ascii=False, default=str)
    found = f"{found[:77]}..." if len(found) > 80 else found
    hint = "; write [] for none" if found == "null" and detail["type"] == "tuple_type" else ""
    return f"{path} is {found}: {what[0].lower()}{what[1:]}{hint}"


def to_yaml(recipe: RunConfig) -> str:
    """Return a recipe's complete value; its digest and origin stand before it as a comment."""
    fields = recipe.model_dump(mode="json", exclude={"source"})
    text = yaml.dump(fields, Dumper=_Dumper, sort_keys=False, width=100)
    return f"# digest {recipe.recipe_digest}\n# read from {recipe.reference}\n{text}"


def fields_of(recipe: RunConfig) -> dict[str, str]:
    """Return a recipe's values as JSON by their paths, as in `features.heads[0].name`."""
    flat = _flat(recipe.model_dump(mode="json", exclude={"source", "recipe"}))
    return {path: json.dumps(value, ensure_ascii=False) for path, value in flat.items()}


def differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Return the fields whose values differ, one line each; the name is no such field."""
    was, now = fields_of(one), fields_of(other)
    told = {path: (was.get(path, "nothing"), now.get(path, "nothing")) for path in was | now}
    return [f"{path}: {old} -> {new}" for path, (old, new) in told.items() if old != new]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return the values of a value's fields by their paths."""
    if isinstance(value, dict):
        inner = {f"{path}.{name}".lstrip("."): each for name, each in value.items()}
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        inner = {f"{path}[{place}]": each for place, each in enumerate(value)}
    else:
        return {path: value}
    return {name: each for at in inner for name, each in _flat(inner[at], at).items()}
